"""One process of a job of several: runs a scenario and writes what it saw to ``OUT/rank_N.json``.

Usage: python distributed_worker.py FRAMEWORK SCENARIO OUT [SETTINGS-IN-JSON]
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

FEATURES, CLASSES = 4, 3


def samples(count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Features of shape (count, FEATURES) and classes of shape (count,), the same for everyone."""
    generator = np.random.default_rng(7)
    return generator.normal(size=(count, FEATURES)).astype("float32"), generator.integers(0, CLASSES, count)


class Torch:
    """What the scenarios need of PyTorch."""

    def __init__(self) -> None:
        import torch

        import dowdyboy_torch

        self.torch = torch
        self.package: ModuleType = dowdyboy_torch

    def model(self, kind: str) -> Any:
        nn = self.torch.nn
        self.torch.manual_seed(11)
        extra = {"plain": [], "norm": [nn.BatchNorm1d(8)], "dropout": [nn.Dropout(0.3)]}[kind]
        return nn.Sequential(nn.Linear(FEATURES, 8), *extra, nn.ReLU(), nn.Linear(8, CLASSES))

    def loss(self) -> Any:
        return self.torch.nn.CrossEntropyLoss()

    def optimizer(self, model: Any) -> Any:
        return self.torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)

    def loader(self, count: int, batch_size: int, shuffle: bool) -> Any:
        data = self.torch.utils.data
        dataset = data.TensorDataset(*map(self.torch.from_numpy, samples(count)))
        return data.DataLoader(dataset, batch_size, shuffle=shuffle)

    def batch(self, indices: list[int], count: int) -> list[Any]:
        return [self.torch.from_numpy(part[indices]) for part in samples(count)]

    def clip(self, model: Any, norm: float) -> None:
        self.torch.nn.utils.clip_grad_norm_(model.parameters(), norm)

    def clear(self, optimizer: Any) -> None:
        optimizer.zero_grad()


class Paddle:
    """What the scenarios need of PaddlePaddle."""

    def __init__(self) -> None:
        import paddle

        import dowdyboy_paddle

        self.paddle = paddle
        self.package: ModuleType = dowdyboy_paddle

    def model(self, kind: str) -> Any:
        nn = self.paddle.nn
        self.paddle.seed(11)
        extra = {"plain": [], "norm": [nn.BatchNorm1D(8)], "dropout": [nn.Dropout(0.3)]}[kind]
        return nn.Sequential(nn.Linear(FEATURES, 8), *extra, nn.ReLU(), nn.Linear(8, CLASSES))

    def loss(self) -> Any:
        return self.paddle.nn.CrossEntropyLoss()

    def optimizer(self, model: Any) -> Any:
        return self.paddle.optimizer.Momentum(0.1, 0.9, parameters=model.parameters())

    def loader(self, count: int, batch_size: int, shuffle: bool) -> Any:
        data = self.paddle.io
        dataset = data.TensorDataset(list(map(self.paddle.to_tensor, samples(count))))
        return data.DataLoader(dataset, batch_size=batch_size, shuffle=shuffle)

    def batch(self, indices: list[int], count: int) -> list[Any]:
        return [self.paddle.to_tensor(part[indices]) for part in samples(count)]

    def clip(self, model: Any, norm: float) -> None:
        self.paddle.nn.utils.clip_grad_norm_(model.parameters(), norm)

    def clear(self, optimizer: Any) -> None:
        optimizer.clear_grad()


def make_trainer(framework: Any, out: Path, kind: str, settings: dict[str, Any]) -> tuple[Any, Any]:
    """A trainer with a model of ``kind``, and that model."""
    fixed = {"out_dir": out / "run", "cpu": True, "disable_tqdm": True, "log_with": "none"}
    trainer = framework.package.Trainer(framework.package.TrainerConfig(**fixed, **settings))
    model = framework.model(kind)
    trainer.set_model(model)
    trainer.set_component(framework.loss())
    trainer.set_optimizer(framework.optimizer(model))
    return trainer, model


def train_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
    [model], [loss_func] = trainer.get_models(), trainer.get_components()
    loss = loss_func(model(bat[0]), bat[1])
    trainer.set_records({"loss": loss})
    trainer.log({"loss": loss}, global_step)
    return loss


def eval_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
    """Records floats, ints, vectors, and some values on a part of the processes or batches only."""
    [model], [loss_func] = trainer.get_models(), trainer.get_components()
    logits = model(bat[0])
    trainer.set_records({"val_loss": loss_func(logits, bat[1]), "size": len(bat[1]), "many": len(bat[1]) > 2})
    for row in logits:
        trainer.set_records({"logits": row})
    if bat[1][0].item() == 0:
        trainer.set_records({"sometimes": float(bat[0][0, 0])})
    return None


def digest(records: dict[str, Any]) -> dict[str, Any]:
    """Type, shape and content of each record, to the last bit."""
    found = {}
    for name, tensor in records.items():
        array = np.ascontiguousarray(tensor.numpy())
        found[name] = [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]
    return found


def weights(model: Any) -> dict[str, Any]:
    """All that a model's state dict holds, as nested lists."""
    return {name: tensor.numpy().tolist() for name, tensor in model.state_dict().items()}


def place(trainer: Any) -> dict[str, Any]:
    """Where this process runs, and what the trainer takes it for."""
    return {
        "network": Path("/proc/self/ns/net").stat().st_ino,
        "rank": trainer.rank,
        "world_size": trainer.world_size,
        "main": trainer.is_main_process(),
        "local_main": trainer.is_local_main_process(),
    }


def evaluate(framework: Any, out: Path, settings: dict[str, Any]) -> Any:
    """Runs ``test`` over many sizes of data and batches, with BatchNorm."""
    trainer, _ = make_trainer(framework, out, "norm", {})
    seen: dict[str, Any] = {}
    for count in range(1, 18):
        for batch_size in range(1, 6):
            trainer.set_test_dataloader(framework.loader(count, batch_size, shuffle=True))
            key = f"{count} samples in batches of {batch_size}"
            trainer.test(eval_step, lambda trainer, key=key: seen.update({key: digest(trainer.get_records())}))
    return {"seen": {key: [[name, *what] for name, what in value.items()] for key, value in seen.items()}}


def train(framework: Any, out: Path, settings: dict[str, Any]) -> Any:
    """Trains; with ``stop_at`` all processes raise at that step, but not where torchrun has started them again.

    With ``tell_place`` the result says where each process ran, which differs from one to the next.
    """
    kind, count, batch_size = settings.pop("kind"), settings.pop("count"), settings.pop("batch_size")
    stop_at, tell_place = settings.pop("stop_at", None), settings.pop("tell_place", False)
    trainer, model = make_trainer(framework, out, kind, settings)
    trainer.set_train_dataloader(framework.loader(count, batch_size, shuffle=True))
    trainer.set_val_dataloader(framework.loader(count, batch_size, shuffle=False))
    records: list[Any] = []

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        if global_step == stop_at and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
            raise RuntimeError("stopped on purpose")
        return train_step(trainer, bat, bat_idx, global_step)

    trainer.fit(step, eval_step, lambda trainer, ep: records.append(digest(trainer.get_records())))
    result = {"weights": weights(model), "records": records, "steps": trainer.global_step}
    return {**result, "place": place(trainer)} if tell_place else result


def by_hand(framework: Any, out: Path, settings: dict[str, Any]) -> Any:
    """The training that ``world_size`` processes should do, in one process and without a trainer."""
    from dowdyboy_core._data import Share, deal
    from dowdyboy_core._order import FixedSizeBatches, ShuffledOrder
    from dowdyboy_core.rand import derive_seed

    world_size, window, clip = settings["world_size"], settings["accumulate_steps"], settings["clip_grad_norm"]
    model, loss_func = framework.model("plain"), framework.loss()
    optimizer = framework.optimizer(model)
    batching = FixedSizeBatches(ShuffledOrder(settings["count"]), settings["batch_size"], drop_last=False)
    for epoch in range(1, settings["epoch"] + 1):
        sequence = list(batching.batches(derive_seed(1024, "train"), epoch))
        shares = [list(deal(sequence, Share(rank, world_size), True)) for rank in range(world_size)]
        rounds = list(zip(*shares, strict=True))
        for start in range(0, len(rounds), window):
            joined = [indices for ranks in rounds[start : start + window] for indices in ranks]
            framework.clear(optimizer)
            for indices in joined:
                features, classes = framework.batch(indices, settings["count"])
                (loss_func(model(features), classes) / len(joined)).backward()
            if clip is not None:
                framework.clip(model, clip)
            optimizer.step()
    return {"weights": weights(model)}


def fail(framework: Any, out: Path, settings: dict[str, Any]) -> Any:
    """One process ends in the way that ``how`` says, in the middle of training."""
    import signal

    trainer, _ = make_trainer(framework, out, "plain", {"epoch": 50})
    trainer.set_train_dataloader(framework.loader(24, 2, shuffle=True))

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        if trainer.rank == 1 and global_step == 3:
            if settings["how"] == "raise":
                raise RuntimeError("a hook failed on purpose")
            if settings["how"] == "exit":
                sys.exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
        return train_step(trainer, bat, bat_idx, global_step)

    trainer.fit(step)
    return {}


SCENARIOS = {"evaluate": evaluate, "train": train, "by_hand": by_hand, "fail": fail}


def main(framework: str, scenario: str, out: str, settings: str = "{}") -> None:
    """Runs a scenario as one of several processes, or alone."""
    chosen = {"torch": Torch, "paddle": Paddle}[framework]()
    result = SCENARIOS[scenario](chosen, Path(out), json.loads(settings))
    rank = os.environ.get("RANK") or os.environ.get("PADDLE_TRAINER_ID") or "0"
    Path(out, f"rank_{rank}.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])

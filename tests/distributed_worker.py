"""One process of a job of several: runs a scenario and writes what it saw to ``OUT/rank_N.json``.

Usage: python distributed_worker.py FRAMEWORK SCENARIO OUT [SETTINGS-IN-JSON]
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import signal
import sys
import time
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

    def loader(self, count: int, batch_size: int, shuffle: bool, **settings: Any) -> Any:
        data = self.torch.utils.data
        dataset = data.TensorDataset(*map(self.torch.from_numpy, samples(count)))
        return data.DataLoader(dataset, batch_size, shuffle=shuffle, **settings)

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

    def loader(self, count: int, batch_size: int, shuffle: bool, **settings: Any) -> Any:
        data = self.paddle.io
        # With workers arrays, not tensors, which can't be used in a forked process.
        features, classes = samples(count)
        dataset: Any = list(zip(features, classes, strict=True))
        if not settings.get("num_workers"):
            dataset = data.TensorDataset(list(map(self.paddle.to_tensor, (features, classes))))
        return data.DataLoader(dataset, batch_size=batch_size, shuffle=shuffle, **settings)

    def batch(self, indices: list[int], count: int) -> list[Any]:
        return [self.paddle.to_tensor(part[indices]) for part in samples(count)]

    def clip(self, model: Any, norm: float) -> None:
        self.paddle.nn.utils.clip_grad_norm_(model.parameters(), norm)

    def clear(self, optimizer: Any) -> None:
        optimizer.clear_grad()


def make_trainer(
    framework: Any, out: Path, kind: str, settings: dict[str, Any], *, wrap: bool = True
) -> tuple[Any, Any]:
    """A trainer with a model of ``kind``, and that model; with ``wrap=False`` it is still to be set."""
    fixed = {"out_dir": out / "run", "cpu": True, "disable_tqdm": True, "log_with": "none"}
    trainer = framework.package.Trainer(framework.package.TrainerConfig(**{**fixed, **settings}))
    model = framework.model(kind)
    if wrap:
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
        array = np.ascontiguousarray(tensor.cpu().numpy())
        found[name] = [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]
    return found


def weights(model: Any) -> dict[str, Any]:
    """All that a model's state dict holds, as nested lists."""
    return {name: tensor.cpu().numpy().tolist() for name, tensor in model.state_dict().items()}


def place(trainer: Any) -> dict[str, Any]:
    """Where this process runs, and what the trainer takes it for."""
    return {
        "network": Path("/proc/self/ns/net").stat().st_ino,
        "rank": trainer.rank,
        "world_size": trainer.world_size,
        "main": trainer.is_main_process(),
        "local_main": trainer.is_local_main_process(),
    }


def train(framework: Any, out: Path, settings: dict[str, Any]) -> Any:
    """Trains; at step ``stop_at`` all processes raise, at ``kill_at`` the second one is killed, the first time.

    With ``tell_place`` the result says where each process ran, which differs from one to the next. With ``plain`` there
    is a second training, of those settings and without dropout, and what it should have come to.
    """
    kind, count, batch_size = settings.pop("kind"), settings.pop("count"), settings.pop("batch_size")
    tell_place, plain = settings.pop("tell_place", False), settings.pop("plain", None)
    stop_at, kill_at, once = settings.pop("stop_at", None), settings.pop("kill_at", None), out / "killed"
    trainer, model = make_trainer(framework, out, kind, settings)
    trainer.set_train_dataloader(framework.loader(count, batch_size, shuffle=True))
    trainer.set_val_dataloader(framework.loader(count, batch_size, shuffle=False))
    records: list[Any] = []

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        if global_step == stop_at and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
            raise RuntimeError("stopped on purpose")
        if global_step == kill_at and trainer.rank == 1 and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return train_step(trainer, bat, bat_idx, global_step)

    trainer.fit(step, eval_step, lambda trainer, ep: records.append(digest(trainer.get_records())))
    result = {"weights": weights(model), "records": records, "steps": trainer.global_step}
    result |= {"device": str(trainer.device()), "precision": trainer.precision}
    if plain is not None:
        again = train(framework, out / "plain", {**plain, "kind": "plain"})
        wanted = by_hand(framework, out, {**plain, "world_size": trainer.world_size})
        result["plain"] = {"got": again["weights"], "wanted": wanted["weights"]}
    return {**result, "place": place(trainer)} if tell_place else result


def by_hand(framework: Any, out: Path, settings: dict[str, Any]) -> Any:
    """The training that ``world_size`` processes should do, in one process and without a trainer."""
    from dowdyboy_core.backend import FixedSizeBatches, Share, ShuffledOrder, deal
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


class Trap:
    """Ends this process in the way that ``how`` says where ``spring`` is called for the place ``where``.

    The time is noted in ``OUT/failed`` right before, so that a test knows how long the others took to follow.
    """

    def __init__(self, out: Path, where: str, how: str, rank: int) -> None:
        self.out, self.where, self.how, self.rank = out, where, how, rank

    def spring(self, where: str, rank: int) -> None:
        if (where, rank) != (self.where, self.rank):
            return
        (self.out / "failed").write_text(repr(time.time()), encoding="utf-8")
        if self.how == "raise":
            raise RuntimeError("it failed on purpose")
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        codes: dict[str, int | str] = {"exit 0": 0, "exit 3": 3, "exit text": "it ended on purpose"}
        sys.exit(codes[self.how])


def fail(framework: Any, out: Path, settings: dict[str, Any]) -> Any:
    """One process ends at the place ``where``, while the others go on and soon wait for it."""
    trap = Trap(out, settings["where"], settings["how"], settings["rank"])
    trainer, model = make_trainer(framework, out, "plain", {"epoch": 50}, wrap=False)
    trap.spring("before set_model", trainer.rank)
    trainer.set_model(model)
    workers = settings.get("num_workers", 0)
    trainer.set_train_dataloader(framework.loader(24, 2, shuffle=True, num_workers=workers))
    # One batch is left over: the first process has a second one, and the others are already waiting.
    trainer.set_val_dataloader(framework.loader(trainer.world_size + 1, 1, shuffle=False))
    trainer.set_test_dataloader(framework.loader(6, 1, shuffle=False))

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        if global_step == 3:
            trap.spring("train_step", trainer.rank)
        return train_step(trainer, bat, bat_idx, global_step)

    def val_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        trap.spring(f"val_step {bat_idx}", trainer.rank)
        return eval_step(trainer, bat, bat_idx, global_step)

    def test_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        trap.spring("test_step", trainer.rank)
        return eval_step(trainer, bat, bat_idx, global_step)

    def on_epoch_end(trainer: Any, ep: int) -> None:
        trap.spring("on_epoch_end", trainer.rank)

    trap.spring("before fit", trainer.rank)
    if settings["where"].startswith("test"):
        trainer.test(test_step)
        trap.spring("test is over", trainer.rank)
    trainer.fit(step, val_step, on_epoch_end)
    return {}


SCENARIOS = {"train": train, "fail": fail}


def main(framework: str, scenario: str, out: str, settings: str = "{}") -> None:
    """Runs a scenario as one of several processes, or alone; with ``spawn`` starts so many processes first."""
    faulthandler.dump_traceback_later(70)  # where it hangs, if it does
    chosen: Any = {"torch": Torch, "paddle": Paddle}[framework]()
    given = json.loads(settings)
    if "spawn" in given:
        chosen.package.spawn(main, given.pop("spawn"), (framework, scenario, out, json.dumps(given)))
        return
    result = SCENARIOS[scenario](chosen, Path(out), given)
    rank = os.environ.get("RANK") or os.environ.get("PADDLE_TRAINER_ID") or "0"
    Path(out, f"rank_{rank}.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])

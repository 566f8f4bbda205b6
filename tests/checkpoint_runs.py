"""Small runs that save where tests look at them: each tells what lives at the moment that its checkpoint is of."""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

DTYPES = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64 complex128".split()
FLOAT8 = {"torch": "e4m3fn e5m2 e4m3fnuz e5m2fnuz e8m0fnu", "paddle": "e4m3fn e5m2"}
UNSIGNED = "uint64 uint32 uint16".split()  # which NumPy alone has
BATCHES = 4


@dataclass
class Run:
    """What a test needs of a run.

    Attributes:
        name: ``"torch"`` or ``"paddle"``.
        framework: its module.
        trainer: the trainer.
        folder: the checkpoint that was looked at.
        seen: what lived then that doesn't live on.
    """

    name: str
    framework: Any
    trainer: Any
    folder: Path
    seen: dict[str, Any] = field(default_factory=dict)

    def models(self) -> list[Any]:
        """The models as they were set."""
        return list(self.trainer.get_raw_models())

    def parts(self) -> tuple[list[Any], list[Any]]:
        """The optimizers, and their schedulers."""
        optimizers, schedulers = self.trainer.get_optimizers()
        return list(optimizers), list(schedulers)

    def numpy(self, tensor: Any) -> Any:
        """A tensor for NumPy, bfloat16 as float32."""
        if "bfloat16" in str(tensor.dtype):
            tensor = tensor.astype("float32") if self.name == "paddle" else tensor.float()
        if "float8" in str(tensor.dtype):  # as its bytes
            return tensor.view(self.framework.uint8).numpy() if self.name == "torch" else tensor.numpy().view("u1")
        return tensor.detach().numpy()


def streams(run: Run) -> dict[str, Any]:
    """Where the global random streams stand, as page and JSON have it."""
    if run.name == "torch":
        framework: Any = {"cpu": run.framework.get_rng_state().numpy(), "cuda": []}
    else:
        framework = [list(state.__getstate__()) for state in run.framework.get_rng_state("cpu")]
    version, words, kept = random.getstate()
    kind, keys, *rest = np.random.get_state()
    return {
        "python": [version, list(words), kept],
        "numpy": [kind, [int(key) for key in keys], *rest],
        "framework": framework,
    }


def layers(name: str, framework: Any, parts: str) -> Any:
    """A small model; ``parts`` is a word with a letter for each layer."""
    nn = framework.nn
    batch_norm = nn.BatchNorm1d if name == "torch" else nn.BatchNorm1D
    make: dict[str, Callable[[], Any]] = {
        "L": lambda: nn.Linear(3, 3),
        "B": lambda: batch_norm(3),
        "D": lambda: nn.Dropout(0.5),
    }
    return nn.Sequential(*(make[part]() for part in parts))


def buffers(name: str, framework: Any) -> Any:
    """A component with a buffer of each type."""
    module = framework.nn.Module() if name == "torch" else framework.nn.Layer()
    for number, dtype in enumerate([*DTYPES, *(f"float8_{kind}" for kind in FLOAT8[name].split())]):
        values = np.arange(number, number + 6).reshape(2, 3)
        tensor = framework.tensor(values) if name == "torch" else framework.to_tensor(values)
        cast = tensor.to(getattr(framework, dtype)) if name == "torch" else tensor.astype(dtype)
        module.register_buffer(f"of_{dtype}", cast)
    module.register_buffer("number", framework.ones([]))
    return module


class Own:
    """A component that is no module, and says what its state is."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {name: np.arange(3, dtype=name) for name in UNSIGNED}

    def state_dict(self) -> dict[str, Any]:
        """All that it keeps."""
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes that up."""
        self.state = state


def metric(framework: Any) -> Any:
    """A metric of the form that torchmetrics gives its own, whose state no ``state_dict`` has."""

    class Metric(framework.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._defaults, self._persistent = {"total": framework.zeros(2)}, {"total": False}
            self.total = framework.ones(2)

        def add_state(self) -> None:
            """By this it is known."""

    return Metric()


def start(backend: str, out_dir: Path, **fields: Any) -> Run:
    """A trainer with two models, three optimizers, two components and four batches."""
    framework: Any = importlib.import_module(backend)
    package: Any = importlib.import_module(f"dowdyboy_{backend}")
    fields = {"mixed_precision": "fp16" if backend == "torch" else "no", "epoch": 2, **fields}
    config = package.TrainerConfig(out_dir=out_dir, cpu=True, log_with="none", disable_tqdm=True, **fields)
    trainer = package.Trainer(config)
    first, second = layers(backend, framework, "LBDL"), layers(backend, framework, "LB")
    generator = np.random.default_rng(5)
    tensor = framework.tensor if backend == "torch" else framework.to_tensor
    batches = [tensor(generator.standard_normal((6, 3), np.float32)) for _ in range(BATCHES)]
    metrics = [metric(framework)] if backend == "torch" else []
    if metrics:
        second[1].metric = metric(framework)
    trainer.set_models([first, second])
    trainer.set_components([len, buffers(backend, framework), Own(), *metrics])
    trainer.set_optimizers(*optimizers(backend, framework, first, second))
    trainer.set_train_dataloader(batches)
    trainer.set_val_dataloader(batches[:3])
    return Run(backend, framework, trainer, out_dir / "checkpoint")


def optimizers(name: str, framework: Any, first: Any, second: Any) -> tuple[list[Any], list[Any]]:
    """Adam with a scheduler, one without slots or scheduler, and one that follows a value and so has an infinity."""
    some, others = list(first[:2].parameters()), list(first[2:].parameters())
    if name == "torch":
        optim, lr = framework.optim, framework.optim.lr_scheduler

        class Remembers(lr.MultiStepLR):  # type: ignore[misc, name-defined]
            def __init__(self, *arguments: Any) -> None:
                self.tensor = framework.arange(3)
                super().__init__(*arguments)

        adam, plain = optim.Adam(some, 0.01), optim.SGD(others, 0.01)
        momentum = optim.SGD(second.parameters(), 0.01, momentum=0.9)
        return [adam, plain, momentum], [Remembers(adam, [1, 5, 5]), None, lr.ReduceLROnPlateau(momentum)]
    optim, lr = framework.optimizer, framework.optimizer.lr
    by_clock, by_value = lr.MultiStepDecay(0.01, [1, 5]), lr.ReduceOnPlateau(0.01)
    adam, plain = optim.Adam(by_clock, parameters=some), optim.SGD(0.01, parameters=others)
    momentum = optim.Momentum(by_value, 0.9, parameters=second.parameters())
    return [adam, plain, momentum], [by_clock, None, by_value]


def train_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
    """The hook: several kinds of records, and a curve."""
    first, second = trainer.get_models()
    loss = (second(first(bat)) ** 2).mean()
    trainer.set_records({"loss": loss, "batch": bat_idx, "row": [1.5, bat_idx], "wide": np.float64(0.1)})
    trainer.set_records({"even": bat_idx % 2 == 0})
    trainer.log({"loss": loss}, global_step)
    return loss


def run_into_an_epoch(name: str, out_dir: Path) -> Run:
    """A run that saved after the first batch of epoch 2 and has done nothing since."""
    fields = {"save_best": True, "save_best_rec": "loss", "ema_decay": 0.5, "name": "page", "seed": 7}
    run = start(name, out_dir, save_steps=BATCHES + 1, **fields)

    class Enough(Exception):
        pass

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        if global_step == BATCHES + 1:
            run.seen |= {"rng": streams(run), "bat_idx": bat_idx, "global_step": global_step}
            trainer.wait_for_checkpoint()
            raise Enough
        return train_step(trainer, bat, bat_idx, global_step)

    def on_epoch_end(trainer: Any, ep: int) -> None:
        run.seen["best"] = float(trainer.get_records()["loss"].numpy().astype(np.float64).mean())

    try:
        run.trainer.fit(step, lambda *_: None, on_epoch_end)
    except Enough:
        run.folder /= "last_epoch_2"
    return run


def run_into_validation(name: str, out_dir: Path) -> Run:
    """A run that SIGTERM stopped after the second validation batch of its first epoch."""
    run = start(name, out_dir)

    def val_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        trainer.set_records({"seen": bat_idx})
        if bat_idx == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        run.trainer.fit(train_step, val_step)
    except SystemExit as stopped:
        assert stopped.code == 128 + signal.SIGTERM
        run.folder /= "last_epoch_1"
    return run


def train_in_two(name: str, out_dir: str) -> None:
    """What each of two processes runs: it saves after the first batch of each, and stops there."""
    run = start(name, Path(out_dir), save_steps=1, mixed_precision="no")
    run.trainer.set_train_dataloader([run.framework.ones([6, 3]) * number for number in range(BATCHES)])

    class Enough(Exception):
        pass

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        if global_step == 1:
            own = {key: value for key, value in streams(run).items() if key != "framework"}
            Path(out_dir, f"rank_{trainer.rank}.json").write_text(json.dumps(own), encoding="utf-8")
            trainer.wait_for_checkpoint()
            raise Enough
        trainer.set_records({"rank": trainer.rank})
        first, second = trainer.get_models()
        return (second(first(bat)) ** 2).mean()

    try:
        run.trainer.fit(step)
    except Enough:
        pass

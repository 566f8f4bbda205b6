"""The small problems that the checks train on: the same numbers for every backend."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dowdyboy_conformance.harnesses.harness import Floats, Harness, Layers
from dowdyboy_core import Trainer, TrainerConfig

FEATURES, HIDDEN, CLASSES = 4, 4, 3


def data(samples: int = 12, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features of shape (samples, 4) and classes of shape (samples,)."""
    generator = np.random.Generator(np.random.PCG64(seed))
    features = generator.standard_normal((samples, FEATURES)).astype(np.float32)
    return features, generator.integers(0, CLASSES, samples)


def layers(*sizes: int, seed: int = 1) -> list[tuple[Floats, Floats]]:
    """Weights (out, in) and biases (out,) of linear layers between the sizes."""
    generator = np.random.Generator(np.random.PCG64(seed))
    made: list[tuple[Floats, Floats]] = []
    for inputs, outputs in itertools.pairwise(sizes):
        weight = generator.uniform(-0.5, 0.5, (outputs, inputs)).astype(np.float32)
        made.append((weight, generator.uniform(-0.5, 0.5, outputs).astype(np.float32)))
    return made


def config(out_dir: Path, **changed: Any) -> TrainerConfig:
    """A quiet configuration that saves nothing and draws nothing, unless it is told to."""
    quiet: dict[str, Any] = {
        "epoch": 1,
        "cpu": True,
        "log_with": "none",
        "disable_tqdm": True,
        "enable_save_checkpoint": False,
    }
    return TrainerConfig(out_dir=out_dir, **{**quiet, **changed})


@dataclass
class Run:
    """A trainer with a classifier in it, ready to fit; the hooks may be replaced."""

    harness: Harness
    trainer: Trainer
    model: Any
    optimizer: Any
    scheduler: Any
    loss: Any
    losses: list[float] = field(default_factory=list)

    def train_step(self, trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        """The usual hook; notes the loss."""
        features, classes = bat
        loss = self.loss(trainer.get_models()[0](features), classes)
        trainer.set_records({"train_loss": loss})
        self.losses.append(float(self.harness.numpy(loss)))
        return loss

    def val_step(self, trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        """The usual hook."""
        features, classes = bat
        loss = self.loss(trainer.get_models()[0](features), classes)
        trainer.set_records({"val_loss": loss})
        return loss

    def fit(self, val: bool = True, on_epoch_end: Any = None) -> Run:
        """Fits with the usual hooks."""
        self.trainer.fit(self.train_step, self.val_step if val else None, on_epoch_end)
        return self

    def parameters(self) -> dict[str, NDArray[Any]]:
        """The model's parameters now."""
        return self.harness.parameters(self.model)


def build(
    harness: Harness,
    out_dir: Path,
    *,
    optimizer: str = "sgd",
    lr: float = 0.1,
    schedule: str | None = None,
    mode: str = "min",
    batch_size: int = 4,
    samples: int = 12,
    shuffle: bool = False,
    workers: int = 0,
    batch_norm: bool = False,
    dropout: float = 0.0,
    dataset: Any = None,
    initial: Layers | None = None,
    **settings: Any,
) -> Run:
    """A run of a small classifier over ``samples`` samples, with the same data for validation."""
    trainer = harness.make_trainer(config(out_dir, **settings))
    weights = layers(FEATURES, HIDDEN, CLASSES) if initial is None else initial
    model = harness.model(weights, batch_norm=batch_norm, dropout=dropout)
    made = harness.optimizer(optimizer, [model], lr, schedule=schedule, mode=mode)
    plain = harness.dataset(*data(samples))
    source = plain if dataset is None else dataset
    trainer.set_train_dataloader(harness.loader(source, batch_size, shuffle=shuffle, workers=workers))
    trainer.set_val_dataloader(harness.loader(plain, 5))
    trainer.set_test_dataloader(harness.loader(plain, 5))
    trainer.set_model(model)
    trainer.set_optimizer(*made)
    loss = harness.loss("cross_entropy")
    return Run(harness, trainer, model, *made, loss)

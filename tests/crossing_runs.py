"""Twin scripts of both frameworks that train the same model on the same data, for the tests of crossing runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import torch
from tests import crossing_twins as twins
from torch.utils import data as torch_data

SAMPLES, BATCH = 24, 4


class _Samples:
    """Features or ids, and classes."""

    def __init__(self, kind: str, dtype: str) -> None:
        stream = np.random.default_rng(0)
        flat = stream.normal(size=(SAMPLES, 6)).astype(dtype)
        images = stream.normal(size=(SAMPLES, 2, 4, 4)).astype(dtype)
        self.x = {"mlp": flat, "conv": images, "lstm": stream.integers(0, 7, (SAMPLES, 5))}[kind]
        self.y = stream.integers(0, 3, SAMPLES)

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, place: int) -> Any:
        return self.x[place], self.y[place]


class _TorchSamples(_Samples, torch_data.Dataset[Any]):
    pass


class _PaddleSamples(_Samples, paddle.io.Dataset[Any]):
    pass


class TorchNet(torch.nn.Module):
    """A small model for classes, of which every parameter has influence on the loss."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        n = torch.nn
        self.kind = kind
        self.body: Any
        if kind == "mlp":
            self.body = n.Sequential(n.Linear(6, 6), n.Tanh(), n.LayerNorm(6), n.Linear(6, 6, bias=False), n.PReLU())
            self.head = n.Linear(6, 3)
        elif kind == "conv":
            self.body = n.Sequential(
                n.Conv2d(2, 4, 3, padding=1), n.Tanh(), n.GroupNorm(2, 4), n.ConvTranspose2d(4, 2, 2, 2), n.Flatten()
            )
            self.head = n.Linear(128, 3)
        else:
            self.table = n.Embedding(7, 4)
            self.body = n.LSTM(4, 4, 2, bidirectional=True, batch_first=True)
            self.head = n.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        """The scores of the classes."""
        return self.head(self.body(self.table(x))[0].mean(1) if self.kind == "lstm" else self.body(x))


class PaddleNet(paddle.nn.Layer):
    """That again."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        n = paddle.nn
        self.kind = kind
        self.body: Any
        if kind == "mlp":
            middle = n.Linear(6, 6, bias_attr=False)
            self.body = n.Sequential(n.Linear(6, 6), n.Tanh(), n.LayerNorm(6), middle, n.PReLU())
            self.head = n.Linear(6, 3)
        elif kind == "conv":
            self.body = n.Sequential(
                n.Conv2D(2, 4, 3, padding=1), n.Tanh(), n.GroupNorm(2, 4), n.Conv2DTranspose(4, 2, 2, 2), n.Flatten()
            )
            self.head = n.Linear(128, 3)
        else:
            self.table = n.Embedding(7, 4)
            self.body = n.LSTM(4, 4, 2, "bidirect")
            self.head = n.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        """The scores of the classes."""
        return self.head(self.body(self.table(x))[0].mean(1) if self.kind == "lstm" else self.body(x))


@dataclass(frozen=True)
class Case:
    """What is trained, and where the run is saved that crosses.

    Attributes:
        models: of which kinds.
        optimizer: which, for each model.
        schedule: which.
        at: the training step at which the crossing checkpoint is asked for; None for the end of the first epoch.
        groups: whether the head has a tenth of the learning rate.
        frozen: whether the first layer is not trained.
        settings: further fields of the configuration.
    """

    models: tuple[str, ...]
    optimizer: str
    schedule: str
    at: int | None = None
    groups: bool = False
    frozen: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


def _parameters(framework: str, case: Case, model: Any, rate: float) -> Any:
    if not case.groups:
        return model.parameters()
    head = list(model.head.parameters())
    rest = [item for item in model.parameters() if all(item is not other for other in head)]
    if framework == "torch":
        return [{"params": rest}, {"params": head, "lr": 0.1 * rate}]
    return [{"params": rest}, {"params": head, "learning_rate": 0.1}]


def made(framework: str, case: Case, out: Path, *, epochs: int, dtype: str = "float64", **settings: Any) -> Any:
    """A trainer of a case, with all that it needs."""
    with twins.default_dtype(framework, dtype):
        twins.seed(framework, 1)
        net = TorchNet if framework == "torch" else PaddleNet
        models: list[Any] = [net(kind) for kind in case.models]
    trainer = twins.trainer(framework, out, epoch=epochs, save_interval=1, **{**case.settings, **settings})
    optimizers, schedulers = [], []
    for model in models:
        if case.frozen:
            for parameter in model.body[0].parameters():
                parameter.requires_grad_(False) if framework == "torch" else setattr(parameter, "stop_gradient", True)
        rate = twins.OPTIMIZERS[case.optimizer][0]
        given = _parameters(framework, case, model, rate)
        pair = twins.optimizer(framework, case.optimizer, case.schedule, given)
        optimizers.append(pair[0])
        schedulers.append(pair[1])
    trainer.set_models(models)
    trainer.set_optimizers(optimizers, schedulers)
    kind = case.models[0]
    if framework == "torch":
        samples = _TorchSamples(kind, dtype)
        trainer.set_train_dataloader(torch_data.DataLoader(samples, BATCH, shuffle=True))
        trainer.set_val_dataloader(torch_data.DataLoader(samples, 8))
    else:
        ours = _PaddleSamples(kind, dtype)
        trainer.set_train_dataloader(paddle.io.DataLoader(ours, batch_size=BATCH, shuffle=True))
        trainer.set_val_dataloader(paddle.io.DataLoader(ours, batch_size=8))
    return trainer


def train(framework: str, case: Case, out: Path, *, epochs: int, stop_at: int | None = None, **settings: Any) -> Any:
    """Trains a case.

    Returns:
        The losses by training step, and the trainer.
    """
    trainer = made(framework, case, out, epochs=epochs, **settings)
    loss_of = torch.nn.CrossEntropyLoss() if framework == "torch" else paddle.nn.CrossEntropyLoss()
    losses: dict[int, float] = {}

    def forward(the_trainer: Any, batch: Any) -> Any:
        x, y = batch
        total: Any = 0
        for model in the_trainer.get_models():
            total = total + loss_of(model(x), y)
        return total

    def step(the_trainer: Any, batch: Any, _place: int, number: int) -> Any:
        loss = forward(the_trainer, batch)
        losses[number] = float(loss.detach())
        if number == case.at:
            the_trainer.save_checkpoint("mid")
        if number == stop_at:
            the_trainer.stop()
        return loss

    def check(the_trainer: Any, batch: Any, _place: int, _number: int) -> Any:
        loss = forward(the_trainer, batch)
        the_trainer.set_records({"val_loss": loss})
        return loss

    trainer.fit(step, check)
    return losses, trainer


def crossing_point(out: Path, case: Case) -> Path:
    """The checkpoint of a run that crosses."""
    pattern = "epoch_1" if case.at is None else "chk_mid_*"
    [found] = (out / "checkpoint").glob(pattern)
    return found


def weights(framework: str, case: Case, checkpoint: Path, out: Path, *, ema: bool = False) -> dict[str, Any]:
    """The weights of a checkpoint as a framework takes them up."""
    trainer = made(framework, case, out, epochs=1)
    trainer.load_checkpoint(str(checkpoint), weights_only=True, ema=ema)
    return {
        f"{number}/{name}": twins.values(tensor)
        for number, model in enumerate(trainer.get_raw_models())
        for name, tensor in model.state_dict().items()
    }

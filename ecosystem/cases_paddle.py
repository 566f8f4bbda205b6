"""What PaddlePaddle itself brings."""

from __future__ import annotations

from typing import Any

import paddle
from paddle import nn
from paddle.io import DataLoader, TensorDataset

from . import data
from .harness import Parts, case


def loader(x: Any, y: Any, *, shuffle: bool = True) -> Any:
    """A loader over arrays."""
    return DataLoader(TensorDataset([paddle.to_tensor(x), paddle.to_tensor(y)]), batch_size=data.BATCH, shuffle=shuffle)


def classify(model: Any, bat: Any) -> Any:
    """The loss of a classifier."""
    x, y = bat
    return nn.functional.cross_entropy(model(x), y)


def perceptron(*, dropout: float = 0.2) -> Any:
    """A small classifier of vectors."""
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))


def vectors(*, shuffle: bool = True) -> Any:
    """A loader of labelled vectors."""
    return loader(*data.vectors(), shuffle=shuffle)


@case("paddle: multilayer perceptron, AdamW, validation", "paddle")
def plain() -> Parts:
    """The simplest, to see that the harness is right."""
    model = perceptron()
    optimizer = paddle.optimizer.AdamW(0.01, parameters=model.parameters())
    return Parts(model, optimizer, vectors(), classify, val_loader=loader(*data.vectors(seed=1), shuffle=False))


@case("paddle: the same in two processes", "paddle", processes=2)
def together() -> Parts:
    """Without dropout, of which each process draws its own."""
    model = perceptron(dropout=0.0)
    optimizer = paddle.optimizer.AdamW(0.01, parameters=model.parameters())
    return Parts(model, optimizer, vectors(), classify)

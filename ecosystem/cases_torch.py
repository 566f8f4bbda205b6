"""What PyTorch itself brings."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from . import data
from .harness import Parts, case


def loader(x: Any, y: Any, *, shuffle: bool = True, batch_size: int = data.BATCH) -> DataLoader[Any]:
    """A loader over arrays."""
    return DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=batch_size, shuffle=shuffle)


def classify(model: Any, bat: Any) -> Any:
    """The loss of a classifier."""
    x, y = bat
    return nn.functional.cross_entropy(model(x), y)


def perceptron(*, dropout: float = 0.2) -> nn.Module:
    """A small classifier of vectors."""
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))


def vectors(*, shuffle: bool = True) -> DataLoader[Any]:
    """A loader of labelled vectors."""
    return loader(*data.vectors(), shuffle=shuffle)


@case("multilayer perceptron, AdamW, validation", "torch")
def plain() -> Parts:
    """The simplest, to see that the harness is right."""
    model = perceptron()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    return Parts(model, optimizer, vectors(), classify, val_loader=loader(*data.vectors(seed=1), shuffle=False))


@case("the same in two processes", "torch", processes=2)
def together() -> Parts:
    """Without dropout, of which each process draws its own."""
    model = perceptron(dropout=0.0)
    return Parts(model, torch.optim.AdamW(model.parameters(), 0.01), vectors(), classify)

"""A state to save and load on PyTorch; diff this file with checkpoints_paddle.py to see what a framework changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from dowdyboy_torch import Trainer, TrainerConfig


class State:
    """A model of linear layers with its Adam optimizer, after one step, and what the framework itself does with them.

    Args:
        width: the layers are of ``width`` by ``width``.
        layers: how many there are.
    """

    def __init__(self, width: int, layers: int) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(11)
        self.model = nn.Sequential(*(nn.Linear(width, width) for _ in range(layers)))
        self.renew_optimizer()
        self.model(torch.randn(1, width)).square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def renew_optimizer(self) -> None:
        """Puts one without slots in place, as a new process has it."""
        self.optimizer = torch.optim.Adam(self.model.parameters(), 0.001)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The live tensors, by names of their own."""
        found = dict(self.model.state_dict())
        for number, slots in self.optimizer.state_dict()["state"].items():
            found |= {f"{number}/{slot}": value for slot, value in slots.items()}
        return found

    def arrays(self) -> dict[str, Any]:
        """The memory of the live tensors, for NumPy."""
        return {name: value.detach().numpy() for name, value in self.tensors().items()}

    def save(self, path: Path) -> None:
        """As scripts save without a trainer."""
        torch.save({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}, path)

    def load(self, path: Path) -> None:
        """As scripts load what ``save`` wrote."""
        stored = torch.load(path, weights_only=True)
        self.model.load_state_dict(stored["model"])
        self.optimizer.load_state_dict(stored["optimizer"])

    def save_safetensors(self, path: Path) -> None:
        """By the safetensors library."""
        save_file(self.tensors(), path)

    def trainer(self, config: TrainerConfig) -> Trainer:
        """A trainer of this model that trains nothing by itself: what it is timed at is saving and loading."""
        trainer = Trainer(config)
        trainer.set_train_dataloader([torch.zeros(1)])
        trainer.set_model(self.model)
        trainer.set_optimizer(self.optimizer)
        return trainer


class Work:
    """Training that goes on while a checkpoint is written: small matrices, and so a good deal of Python."""

    def __init__(self) -> None:
        self.model = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256))
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.001)
        self.batch = torch.randn(64, 256)

    def step(self) -> None:
        """One training step."""
        self.optimizer.zero_grad()
        self.model(self.batch).square().mean().backward()
        self.optimizer.step()

"""A state to save and load on PaddlePaddle; diff this with checkpoints_torch.py to see what a framework changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn
from safetensors.paddle import save_file

from dowdyboy_paddle import Trainer, TrainerConfig


class State:
    """A model of linear layers with its Adam optimizer, after one step, and what the framework itself does with them.

    Args:
        width: the layers are of ``width`` by ``width``.
        layers: how many there are.
    """

    def __init__(self, width: int, layers: int) -> None:
        paddle.device.set_device("cpu")
        paddle.seed(11)
        self.model = nn.Sequential(*(nn.Linear(width, width) for _ in range(layers)))
        self.renew_optimizer()
        self.model(paddle.randn([1, width])).square().mean().backward()
        self.optimizer.step()
        self.optimizer.clear_grad(set_to_zero=False)

    def renew_optimizer(self) -> None:
        """Puts one without slots in place, as a new process has it."""
        self.optimizer = paddle.optimizer.Adam(0.001, parameters=self.model.parameters())

    def tensors(self) -> dict[str, paddle.Tensor]:
        """The live tensors, by names of their own."""
        slots = {name: value for name, value in self.optimizer.state_dict().items() if isinstance(value, paddle.Tensor)}
        return {**self.model.state_dict(), **slots}

    def arrays(self) -> dict[str, Any]:
        """The memory of the live tensors, for NumPy."""
        return {name: np.from_dlpack(value.detach()) for name, value in self.tensors().items()}

    def save(self, path: Path) -> None:
        """As scripts save without a trainer."""
        stored: Any = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        paddle.save(stored, str(path))

    def load(self, path: Path) -> None:
        """As scripts load what ``save`` wrote."""
        stored = paddle.load(str(path))
        self.model.set_state_dict(stored["model"])
        self.optimizer.set_state_dict(stored["optimizer"])

    def save_safetensors(self, path: Path) -> None:
        """By the safetensors library."""
        save_file(self.tensors(), path)

    def trainer(self, config: TrainerConfig) -> Trainer:
        """A trainer of this model that trains nothing by itself: what it is timed at is saving and loading."""
        trainer = Trainer(config)
        trainer.set_train_dataloader([paddle.zeros([1])])
        trainer.set_model(self.model)
        trainer.set_optimizer(self.optimizer)
        return trainer


class Work:
    """Training that goes on while a checkpoint is written: small matrices, and so a good deal of Python."""

    def __init__(self) -> None:
        self.model = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256))
        self.optimizer = paddle.optimizer.SGD(0.001, parameters=self.model.parameters())
        self.batch = paddle.randn([64, 256])

    def step(self) -> None:
        """One training step."""
        self.optimizer.clear_grad(set_to_zero=False)
        self.model(self.batch).square().mean().backward()
        self.optimizer.step()

"""The harness of the reference, and the example for harnesses of other backends."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dowdyboy_core import TrainerConfig

from ..reference import Trainer
from ..reference.framework import random
from ..reference.framework.data import DataLoader, IterableDataset, TensorDataset, get_worker_info
from ..reference.framework.layers import (
    BatchNorm,
    CrossEntropyLoss,
    Dropout,
    Linear,
    Module,
    MSELoss,
    Sequential,
    Tanh,
)
from ..reference.framework.optim import SGD, Adam, CosineDecay, Optimizer, ReduceOnPlateau, StepDecay
from ..reference.framework.tensor import Tensor, is_recording
from .harness import COSINE_STEPS, Floats, Harness, Layers, Optimizing


class _Stream(IterableDataset):
    def __init__(self, start: Callable[[], Iterator[Any]]) -> None:
        self._start = start

    def __iter__(self) -> Iterator[Any]:
        return self._start()


class _Branched(Module):
    def __init__(self, first: Module, second: Module) -> None:
        super().__init__()
        self.fc0, self.fc1 = first, second

    def forward(self, *inputs: Any) -> Any:
        features, both = inputs
        return self.fc0(features) + self.fc1(features) if both else self.fc0(features)


class NumpyHarness(Harness):
    """The reference."""

    name = "numpy"
    module = "dowdyboy_conformance.reference"
    viewer = "jsonl"
    world_variable = "DOWDYBOY_WORLD_SIZE"
    rank_variables = ("DOWDYBOY_RANK", "DOWDYBOY_LOCAL_RANK", "DOWDYBOY_MASTER")

    def make_trainer(self, config: TrainerConfig) -> Trainer:
        return Trainer(config)

    def model(self, layers: Layers, *, batch_norm: bool = False, dropout: float = 0.0) -> Any:
        parts: dict[str, Module] = {}
        for number, (weight, bias) in enumerate(layers):
            if number:
                parts[f"act{number}"] = Tanh()
                if dropout:
                    parts[f"drop{number}"] = Dropout(dropout)
            parts[f"fc{number}"] = self._linear(weight, bias)
            if batch_norm and not number:
                parts["norm0"] = BatchNorm(weight.shape[0])
        return Sequential(parts)

    def _linear(self, weight: Floats, bias: Floats) -> Linear:
        linear = Linear(weight.shape[1], weight.shape[0])
        linear.weight.data, linear.bias.data = weight.copy(), bias.copy()
        return linear

    def branched_model(self, layers: Layers) -> Any:
        return _Branched(*(self._linear(*layer) for layer in layers))

    def native_parameters(self, model: Any) -> Iterable[tuple[str, Any]]:
        return model.parameters().items()  # type: ignore[no-any-return]

    def state(self, model: Any) -> dict[str, NDArray[Any]]:
        return {path: self.numpy(tensor) for path, tensor in model.state().items()}

    def freeze(self, model: Any) -> None:
        for parameter in model.parameters().values():
            parameter.trainable = False

    def unfreeze(self, model: Any) -> None:
        for parameter in model.parameters().values():
            parameter.trainable = True

    def optimizer(
        self, name: str, models: Sequence[Any], lr: float, *, schedule: str | None = None, mode: str = "min"
    ) -> Optimizing:
        parameters = [item for model in models for item in model.parameters().values()]
        optimizer: Optimizer
        if name in ("sgd", "momentum"):
            optimizer = SGD(parameters, lr, momentum=0.9 if name == "momentum" else 0.0)
        else:
            optimizer = Adam(parameters, lr, decay=0.01 if name == "adamw" else 0.0)
        if schedule is None:
            return Optimizing(optimizer, None)
        if schedule == "step":
            return Optimizing(optimizer, StepDecay(optimizer, 0.5))
        if schedule == "cosine":
            return Optimizing(optimizer, CosineDecay(optimizer, COSINE_STEPS))
        return Optimizing(optimizer, ReduceOnPlateau(optimizer, mode, 0.5))

    def learning_rate(self, optimizer: Any) -> float:
        return float(optimizer.lr)

    def train_by_hand(
        self, model: Any, loss: Any, made: Optimizing, batches: Sequence[Any], *, window: int, max_norm: float | None
    ) -> None:
        parameters = model.parameters().values()
        for number, (features, targets) in enumerate(batches, start=1):
            (loss(model(features), targets) * (1 / window)).backward()
            if number % window == 0:
                norm = sum(float(np.square(item.grad, dtype=np.float64).sum()) for item in parameters) ** 0.5
                for item in parameters:
                    item.grad = item.grad * np.float32(min(1.0, (max_norm or np.inf) / (norm + 1e-6)))
                made.optimizer.step()
                for item in parameters:
                    item.grad = None
        if made.scheduler is not None:
            made.scheduler.step()

    def loss(self, name: str) -> Any:
        return CrossEntropyLoss() if name == "cross_entropy" else MSELoss()

    def dataset(self, *arrays: NDArray[Any]) -> Any:
        return TensorDataset(*map(self.tensor, arrays))

    def stream(self, start: Callable[[], Iterator[Any]]) -> Any:
        return _Stream(start)

    def loader(
        self,
        dataset: Any,
        batch_size: int | None,
        *,
        shuffle: bool = False,
        workers: int = 0,
        drop_last: bool = False,
        collate: Callable[[Any], Any] | None = None,
        init: Callable[[int], Any] | None = None,
        persistent: bool = False,
        timeout: int = 0,
    ) -> Any:
        return DataLoader(
            dataset,
            batch_size,
            shuffle=shuffle,
            num_workers=workers,
            drop_last=drop_last,
            collate_fn=collate,
            timeout=timeout,
            worker_init=init,
        )

    def worker_dataset(self) -> Any:
        info: Any = get_worker_info()
        return info.dataset

    def batched_by(self, dataset: Any, batch_sampler: Any) -> Any:
        return DataLoader(dataset, batch_sampler=batch_sampler)

    def tensor(self, values: Any) -> Any:
        return Tensor(np.array(values))

    def is_tensor(self, value: Any) -> bool:
        return isinstance(value, Tensor)

    def numpy(self, tensor: Any) -> NDArray[Any]:
        return np.array(tensor.data if isinstance(tensor, Tensor) else tensor)

    def has_graph(self, tensor: Any) -> bool:
        return bool(tensor.tracked)

    def gradients(self, model: Any) -> dict[str, NDArray[Any]]:
        return {path: np.array(item.grad) for path, item in model.parameters().items() if item.grad is not None}

    def overwrite(self, tensor: Any, value: float) -> None:
        tensor.data[...] = value

    def is_training(self, model: Any) -> bool:
        return bool(model.training)

    def is_grad_enabled(self) -> bool:
        return is_recording()

    def draw(self) -> float:
        return float(random.uniform(0, 1, ()))

    def read_curves(self, folder: Path) -> dict[str, list[tuple[int, float]]]:
        points: dict[str, list[tuple[int, float]]] = {}
        for line in map(json.loads, (folder / "curves.jsonl").read_text(encoding="utf-8").splitlines()):
            points.setdefault(line["curve"], []).append((line["step"], line["value"]))
        return points

    def read_times(self, folder: Path) -> dict[str, list[float]]:
        times: dict[str, list[float]] = {}
        for line in map(json.loads, (folder / "curves.jsonl").read_text(encoding="utf-8").splitlines()):
            times.setdefault(line["curve"], []).append(line["time"])
        return times

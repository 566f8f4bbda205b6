"""The harness of dowdyboy-paddle."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle.optimizer import lr as schedulers

from dowdyboy_core import TrainerConfig
from dowdyboy_paddle import Trainer

from .harness import COSINE_STEPS, Floats, Harness, Layers, Optimizing


class _Stream(paddle.io.IterableDataset):  # type: ignore[type-arg]
    def __init__(self, start: Callable[[], Iterator[Any]]) -> None:
        super().__init__()
        self._start = start

    def __iter__(self) -> Iterator[Any]:
        return self._start()


class _Batches(paddle.io.BatchSampler):
    """A batch sampler of the user's own; the loader takes subclasses of its own class only."""

    def __init__(self, given: Any) -> None:  # not calling super's: it wants a dataset
        vars(self).update(getattr(given, "__dict__", {}))  # such as its place among the processes
        self._given = given
        if hasattr(given, "set_epoch"):
            self.set_epoch = given.set_epoch

    def __iter__(self) -> Iterator[Any]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)


class _Branched(paddle.nn.Layer):
    def __init__(self, first: paddle.nn.Layer, second: paddle.nn.Layer) -> None:
        super().__init__()
        self.fc0, self.fc1 = first, second

    def forward(self, features: paddle.Tensor, both: bool) -> Any:
        return self.fc0(features) + self.fc1(features) if both else self.fc0(features)


class _Recurrent(paddle.nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = paddle.nn.LSTM(1, 3, num_layers=2, dropout=0.2)
        self.head = paddle.nn.Linear(3, 3)

    def forward(self, features: paddle.Tensor) -> Any:
        return self.head(self.lstm(features.unsqueeze(-1))[0][:, -1])


class _Convolution(paddle.nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = paddle.nn.Conv2D(1, 3, 2, padding=1), paddle.nn.BatchNorm2D(3)
        self.head = paddle.nn.Linear(27, 3)

    def forward(self, features: paddle.Tensor) -> Any:
        seen = self.norm(self.convolution(features.reshape([-1, 1, 2, 2])))
        return self.head(paddle.nn.functional.relu(seen).flatten(1))


class PaddleHarness(Harness):
    """PaddlePaddle on the CPU."""

    name = "paddle"
    module = "dowdyboy_paddle"
    viewer = "visualdl"
    world_variable = "PADDLE_TRAINERS_NUM"
    rank_variables = ("PADDLE_TRAINER_ID", "PADDLE_TRAINER_ENDPOINTS")
    linear_is_transposed = True
    arrays_become_tensors = True
    running_variance = "norm0._variance"
    running_variance_is_biased = True

    def make_trainer(self, config: TrainerConfig) -> Trainer:
        return Trainer(config)

    def model(self, layers: Layers, *, batch_norm: bool = False, dropout: float = 0.0) -> Any:
        parts: list[tuple[str, Any]] = []
        for number, (weight, bias) in enumerate(layers):
            if number:
                parts.append((f"act{number}", paddle.nn.Tanh()))
                if dropout:
                    parts.append((f"drop{number}", paddle.nn.Dropout(dropout)))
            parts.append((f"fc{number}", self._linear(weight, bias)))
            if batch_norm and not number:
                parts.append(("norm0", paddle.nn.BatchNorm1D(weight.shape[0])))
        return paddle.nn.Sequential(*parts)

    def _linear(self, weight: Floats, bias: Floats) -> paddle.nn.Layer:
        linear = paddle.nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.set_value(np.ascontiguousarray(weight.T))
        linear.bias.set_value(bias)
        return linear

    def branched_model(self, layers: Layers) -> Any:
        return _Branched(*(self._linear(*layer) for layer in layers))

    def further_models(self) -> dict[str, Callable[[], Any]]:
        return {"convolution": _Convolution, "recurrent": _Recurrent}

    def native_parameters(self, model: Any) -> Iterable[tuple[str, Any]]:
        return model.named_parameters()  # type: ignore[no-any-return]

    def state(self, model: Any) -> dict[str, NDArray[Any]]:
        return {name: self.numpy(item) for name, item in model.state_dict().items()}

    def freeze(self, model: Any) -> None:
        for parameter in model.parameters():
            parameter.stop_gradient = True

    def unfreeze(self, model: Any) -> None:
        for parameter in model.parameters():
            parameter.stop_gradient = False

    def optimizer(
        self, name: str, models: Sequence[Any], lr: float, *, schedule: str | None = None, mode: str = "min"
    ) -> Optimizing:
        scheduler: Any = None
        direction: Any = mode
        if schedule == "step":
            scheduler = schedulers.StepDecay(lr, step_size=1, gamma=0.5)
        elif schedule == "cosine":
            scheduler = schedulers.CosineAnnealingDecay(lr, COSINE_STEPS)
        elif schedule == "plateau":
            scheduler = schedulers.ReduceOnPlateau(lr, mode=direction, factor=0.5, patience=0)
        rate = lr if scheduler is None else scheduler
        parameters = [item for model in models for item in model.parameters()]
        optimizers = paddle.optimizer
        if name == "sgd":
            optimizer = optimizers.SGD(rate, parameters)
        elif name == "momentum":
            optimizer = optimizers.Momentum(rate, 0.9, parameters)
        elif name == "adam":
            optimizer = optimizers.Adam(rate, parameters=parameters)
        else:
            optimizer = optimizers.AdamW(rate, parameters=parameters, weight_decay=0.01)
        return Optimizing(optimizer, scheduler)

    def learning_rate(self, optimizer: Any) -> float:
        return float(optimizer.get_lr())

    def train_by_hand(
        self, model: Any, loss: Any, made: Optimizing, batches: Sequence[Any], *, window: int, max_norm: float | None
    ) -> None:
        for number, (features, targets) in enumerate(batches, start=1):
            (loss(model(features), targets) / window).backward()
            if number % window == 0:
                if max_norm is not None:
                    paddle.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
                made.optimizer.step()
                made.optimizer.clear_grad()
        if made.scheduler is not None:
            made.scheduler.step()

    def loss(self, name: str) -> Any:
        return paddle.nn.CrossEntropyLoss() if name == "cross_entropy" else paddle.nn.MSELoss()

    def dataset(self, *arrays: NDArray[Any]) -> Any:
        return paddle.io.TensorDataset([paddle.to_tensor(array) for array in arrays])

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
        loader: Any = paddle.io.DataLoader  # annotated more narrowly than it accepts
        return loader(
            dataset,
            batch_size=batch_size,
            shuffle=shuffle,
            num_workers=workers,
            drop_last=drop_last,
            collate_fn=collate,
            worker_init_fn=init,
            persistent_workers=persistent,
            timeout=timeout,
        )

    def worker_dataset(self) -> Any:
        info: Any = paddle.io.get_worker_info()
        return info.dataset

    def batched_by(self, dataset: Any, batch_sampler: Any) -> Any:
        return paddle.io.DataLoader(dataset, batch_sampler=_Batches(batch_sampler))

    def tensor(self, values: Any) -> Any:
        return paddle.to_tensor(np.array(values))

    def is_tensor(self, value: Any) -> bool:
        return isinstance(value, paddle.Tensor)

    def numpy(self, tensor: Any) -> NDArray[Any]:
        return np.array(tensor.numpy())

    def has_graph(self, tensor: Any) -> bool:
        return not tensor.stop_gradient

    def gradients(self, model: Any) -> dict[str, NDArray[Any]]:
        return {name: self.numpy(item.grad) for name, item in model.named_parameters() if item.grad is not None}

    def overwrite(self, tensor: Any, value: float) -> None:
        with paddle.no_grad():
            tensor.fill_(value)

    def is_training(self, model: Any) -> bool:
        return bool(model.training)

    def is_grad_enabled(self) -> bool:
        return bool(paddle.is_grad_enabled())

    def draw(self) -> float:
        return float(paddle.rand([1]).numpy()[0])

    def read_curves(self, folder: Path) -> dict[str, list[tuple[int, float]]]:
        return {tag: [(point.id, point.value) for point in points] for tag, points in _read_points(folder).items()}

    def read_times(self, folder: Path) -> dict[str, list[float]]:
        return {tag: [point.timestamp / 1000 for point in points] for tag, points in _read_points(folder).items()}


def _read_points(folder: Path) -> dict[str, list[Any]]:
    """What VisualDL's server, started now, would show: of each folder it reads the file that comes last."""
    from visualdl import LogReader
    from visualdl.reader.reader import is_VDLRecord_file

    files = sorted(path.name for path in folder.iterdir() if is_VDLRecord_file(path.name))
    if not files:
        return {}
    reader = LogReader(file_path=str(folder / files[-1]))
    return {tag: reader.get_data("scalar", tag) for tag in reader.get_tags().get("scalar", [])}

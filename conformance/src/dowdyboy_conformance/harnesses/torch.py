"""The harness of dowdyboy-torch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim import lr_scheduler

from dowdyboy_core import TrainerConfig
from dowdyboy_torch import Trainer

from .harness import COSINE_STEPS, Floats, Harness, Layers, Optimizing


class _Stream(torch.utils.data.IterableDataset[Any]):
    def __init__(self, start: Callable[[], Iterator[Any]]) -> None:
        self._start = start

    def __iter__(self) -> Iterator[Any]:
        return self._start()


class _Branched(torch.nn.Module):
    def __init__(self, first: torch.nn.Module, second: torch.nn.Module) -> None:
        super().__init__()
        self.fc0, self.fc1 = first, second

    def forward(self, features: torch.Tensor, both: bool) -> Any:
        return self.fc0(features) + self.fc1(features) if both else self.fc0(features)


class _Recurrent(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(1, 3, num_layers=2, dropout=0.2, batch_first=True)
        self.head = torch.nn.Linear(3, 3)

    def forward(self, features: torch.Tensor) -> Any:
        return self.head(self.lstm(features.unsqueeze(-1))[0][:, -1])


def _convolution() -> torch.nn.Module:
    image, convolution = torch.nn.Unflatten(1, (1, 2, 2)), torch.nn.Conv2d(1, 3, 2, padding=1)
    norm, head = torch.nn.BatchNorm2d(3), torch.nn.Linear(27, 3)
    return torch.nn.Sequential(image, convolution, norm, torch.nn.ReLU(), torch.nn.Flatten(), head)


class TorchHarness(Harness):
    """PyTorch on the CPU."""

    name = "torch"
    module = "dowdyboy_torch"
    viewer = "tensorboard"
    world_variable = "WORLD_SIZE"
    rank_variables = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    capabilities = frozenset({"fp16", "bf16"})

    def make_trainer(self, config: TrainerConfig) -> Trainer:
        return Trainer(config)

    def model(self, layers: Layers, *, batch_norm: bool = False, dropout: float = 0.0) -> Any:
        parts: OrderedDict[str, torch.nn.Module] = OrderedDict()
        for number, (weight, bias) in enumerate(layers):
            if number:
                parts[f"act{number}"] = torch.nn.Tanh()
                if dropout:
                    parts[f"drop{number}"] = torch.nn.Dropout(dropout)
            parts[f"fc{number}"] = self._linear(weight, bias)
            if batch_norm and not number:
                parts["norm0"] = torch.nn.BatchNorm1d(weight.shape[0])
        return torch.nn.Sequential(parts)

    def _linear(self, weight: Floats, bias: Floats) -> torch.nn.Module:
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(weight))
            linear.bias.copy_(torch.from_numpy(bias))
        return linear

    def branched_model(self, layers: Layers) -> Any:
        return _Branched(*(self._linear(*layer) for layer in layers))

    def further_models(self) -> dict[str, Callable[[], Any]]:
        return {"convolution": _convolution, "recurrent": _Recurrent}

    def native_parameters(self, model: Any) -> Iterable[tuple[str, Any]]:
        return model.named_parameters()  # type: ignore[no-any-return]

    def state(self, model: Any) -> dict[str, NDArray[Any]]:
        return {name: self.numpy(item) for name, item in model.state_dict().items()}

    def freeze(self, model: Any) -> None:
        model.requires_grad_(False)

    def unfreeze(self, model: Any) -> None:
        model.requires_grad_(True)

    def optimizer(
        self, name: str, models: Sequence[Any], lr: float, *, schedule: str | None = None, mode: str = "min"
    ) -> Optimizing:
        parameters = [item for model in models for item in model.parameters()]
        optimizer: torch.optim.Optimizer
        if name in ("sgd", "momentum"):
            optimizer = torch.optim.SGD(parameters, lr=lr, momentum=0.9 if name == "momentum" else 0.0)
        elif name == "adam":
            optimizer = torch.optim.Adam(parameters, lr=lr)
        else:
            optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01)
        if schedule is None:
            return Optimizing(optimizer, None)
        if schedule == "step":
            return Optimizing(optimizer, lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5))
        if schedule == "cosine":
            return Optimizing(optimizer, lr_scheduler.CosineAnnealingLR(optimizer, COSINE_STEPS))
        direction: Any = mode
        plateau = lr_scheduler.ReduceLROnPlateau(optimizer, mode=direction, factor=0.5, patience=0)
        return Optimizing(optimizer, plateau)

    def learning_rate(self, optimizer: Any) -> float:
        return float(optimizer.param_groups[0]["lr"])

    def train_by_hand(
        self, model: Any, loss: Any, made: Optimizing, batches: Sequence[Any], *, window: int, max_norm: float | None
    ) -> None:
        for number, (features, targets) in enumerate(batches, start=1):
            (loss(model(features), targets) / window).backward()
            if number % window == 0:
                if max_norm is not None:
                    torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
                made.optimizer.step()
                made.optimizer.zero_grad()
        if made.scheduler is not None:
            made.scheduler.step()

    def loss(self, name: str) -> Any:
        return torch.nn.CrossEntropyLoss() if name == "cross_entropy" else torch.nn.MSELoss()

    def dataset(self, *arrays: NDArray[Any]) -> Any:
        return torch.utils.data.TensorDataset(*(torch.from_numpy(array.copy()) for array in arrays))

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
        order: dict[str, Any] = {} if isinstance(dataset, _Stream) else {"shuffle": shuffle}
        return torch.utils.data.DataLoader(
            dataset,
            batch_size,
            num_workers=workers,
            drop_last=drop_last,
            collate_fn=collate,
            worker_init_fn=init,
            persistent_workers=persistent,
            timeout=timeout,
            **order,
        )

    def worker_dataset(self) -> Any:
        info: Any = torch.utils.data.get_worker_info()
        return info.dataset

    def batched_by(self, dataset: Any, batch_sampler: Any) -> Any:
        return torch.utils.data.DataLoader(dataset, batch_sampler=batch_sampler)

    def tensor(self, values: Any) -> Any:
        return torch.from_numpy(np.array(values))

    def is_tensor(self, value: Any) -> bool:
        return isinstance(value, torch.Tensor)

    def numpy(self, tensor: Any) -> NDArray[Any]:
        return np.array(tensor.detach().numpy())

    def has_graph(self, tensor: Any) -> bool:
        return bool(tensor.requires_grad)

    def gradients(self, model: Any) -> dict[str, NDArray[Any]]:
        return {name: self.numpy(item.grad) for name, item in model.named_parameters() if item.grad is not None}

    def overwrite(self, tensor: Any, value: float) -> None:
        with torch.no_grad():
            tensor.fill_(value)

    def is_training(self, model: Any) -> bool:
        return bool(model.training)

    def is_grad_enabled(self) -> bool:
        return torch.is_grad_enabled()

    def draw(self) -> float:
        return float(torch.rand(()).item())

    def read_curves(self, folder: Path) -> dict[str, list[tuple[int, float]]]:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        events.Reload()
        return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}

    def read_times(self, folder: Path) -> dict[str, list[float]]:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        return {tag: [point.wall_time for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}

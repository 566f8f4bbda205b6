"""The framework behind the seam: what each method has to do stands in :class:`dowdyboy_core.Backend`."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from dowdyboy_core import Backend, ConfigError, Tracker
from dowdyboy_core.backend import (
    Array,
    DeviceRequest,
    Exchanges,
    Isolate,
    MapParts,
    StreamParts,
    check_entries,
    exchanges_of,
    unsynchronised,
    unwrap,
)

from . import _averaging, _data, _distributed, _state, _weights
from ._exchange import NumpyVocabulary
from ._tracker import JsonLinesTracker
from .framework import random
from .framework.layers import Module
from .framework.optim import CosineDecay, Optimizer, ReduceOnPlateau
from .framework.tensor import Tensor, no_gradients, quiet


class NumpyBackend(Backend):
    """NumPy, in one process or as one of several."""

    name = "numpy"
    version = np.__version__
    trackers = ("jsonl",)
    vocabulary = NumpyVocabulary()

    def __init__(self) -> None:
        self._exchanges: Exchanges[_distributed.NumpyExchange] = Exchanges()

    # ---- where it runs

    def open(self, request: DeviceRequest) -> None:
        if request.kind == "gpu":
            raise ConfigError("A GPU was asked for, and NumPy has none. Set cpu=True.")
        self.rank, self.local_rank, self.world_size = _distributed.from_environment()
        if self.world_size > 1:
            _distributed.join(self.rank, self.world_size)

    def device(self) -> str:
        return "cpu"

    def enable_precision(self, precision: str) -> str:
        return "no"  # and the trainer says so, if another one was asked for

    def gather(self, value: Any) -> list[Any]:
        return [value] if self.world_size == 1 else _distributed.gather(value)

    def barrier(self) -> None:
        self.gather(None)

    def unsynchronised(self, models: Sequence[Any]) -> AbstractContextManager[Any]:
        return unsynchronised(models)

    def align_untrained(self, models: Sequence[Any]) -> None:
        if self.world_size > 1:
            _distributed.align_untrained([unwrap(model) for model in models])

    def aligned(self, models: Sequence[Any]) -> AbstractContextManager[Any]:
        if self.world_size == 1:
            return nullcontext()
        return _distributed.aligned([self.unwrap_model(model) for model in models])

    # ---- random numbers

    def seed(self, seed: int) -> None:
        random.seed(seed)

    def get_rng_state(self) -> Any:
        return random.get_state()

    def set_rng_state(self, state: Any) -> None:
        random.set_state(state)

    # ---- data

    def split_loader(self, loader: Any, isolate: Isolate) -> MapParts | StreamParts | None:
        return _data.split_loader(loader, isolate)

    def to_device(self, batch: Any) -> Any:
        return batch  # there is one device, and everything is there

    # ---- models

    def is_model(self, value: Any) -> bool:
        return isinstance(value, Module)

    def prepare_model(self, model: Any, *, sync_bn: bool, find_unused_parameters: bool) -> Any:
        if self.world_size == 1:
            return model
        if sync_bn:
            _distributed.synchronise_batch_norm(model)
        exchange = _distributed.NumpyExchange(model, find_unused_parameters)
        self._exchanges.add(exchange)
        return _distributed.replicate(exchange)

    def unwrap_model(self, model: Any) -> Any:
        return unwrap(model)

    def follow_trained(self, model: Any) -> None:
        for exchange in exchanges_of([model]):
            exchange.follow()

    def set_training(self, model: Any, training: bool) -> None:
        for exchange in exchanges_of([model]):
            exchange.training = training
        unwrap(model).train(training)

    def keep_modes(self, model: Any) -> Callable[[], None]:
        kept = [(module, module.training) for _, module in model.modules()]

        def put_back() -> None:
            for module, training in kept:
                module.training = training

        return put_back

    def named_parameters(self, model: Any) -> Iterable[tuple[str, Any]]:
        return model.parameters().items()  # type: ignore[no-any-return]

    def wants_gradient(self, parameter: Any) -> bool:
        return bool(parameter.trainable)

    def set_wants_gradient(self, parameter: Any, wanted: bool) -> None:
        parameter.trainable = wanted

    def copy_parameters(self, parameters: Sequence[Any]) -> list[Any]:
        return _averaging.copy_parameters(parameters)

    def average_parameters(self, average: Sequence[Any], parameters: Sequence[Any], decay: float) -> None:
        _averaging.average_parameters(average, parameters, decay)

    def swap_parameters(self, average: Sequence[Any], parameters: Sequence[Any]) -> None:
        _averaging.swap_parameters(average, parameters)

    def statistics_anew(self, models: Sequence[Any]) -> AbstractContextManager[Any]:
        return _averaging.statistics_anew(models)

    # ---- optimizers and schedulers

    def is_optimizer(self, value: Any) -> bool:
        return isinstance(value, Optimizer)

    def optimizer_parameters(self, optimizer: Any) -> Sequence[Any]:
        return optimizer.parameters  # type: ignore[no-any-return]

    def zero_grad(self, optimizer: Any) -> None:
        for parameter in optimizer.parameters:
            parameter.grad = None
            parameter.fresh = False

    def loss_problem(self, loss: Any) -> str | None:
        if not isinstance(loss, Tensor):
            return f"is {loss!r:.80} of type {type(loss).__name__}"
        if loss.size != 1:
            return f"has shape {loss.shape}"
        return None if loss.tracked else "is detached from the model, so that no gradient can flow"

    def backward(self, loss: Any, factor: float) -> None:
        exchanging = self._exchanges.before_backward(loss)
        loss.backward(factor)
        for exchange in exchanging:
            exchange.average_gradients()

    def weights(self) -> _weights.NumpyWeights:
        return _weights.NumpyWeights(self.world_size)

    @quiet
    def scale_gradients(self, optimizer: Any, factor: Any, *, check: bool) -> bool:
        number = np.float32(factor if isinstance(factor, float) else factor.item())
        for parameter in self._with_gradient(optimizer):
            parameter.grad = parameter.grad * number
        return not check or all(np.isfinite(item.grad).all() for item in self._with_gradient(optimizer))

    def clip_gradients(self, optimizer: Any, max_norm: float) -> None:
        squares = [float(np.square(item.grad, dtype=np.float64).sum()) for item in self._with_gradient(optimizer)]
        factor = max_norm / (sum(squares) ** 0.5 + 1e-6)
        if not factor >= 1:  # NaN is none either, and spreads
            self.scale_gradients(optimizer, factor, check=False)

    def clip_gradient_values(self, optimizer: Any, bound: float) -> None:
        for parameter in self._with_gradient(optimizer):
            parameter.grad = np.clip(parameter.grad, np.float32(-bound), np.float32(bound))

    def step(self, optimizer: Any) -> None:
        optimizer.step()

    def scheduler_drives(self, scheduler: Any, optimizer: Any) -> bool:
        return getattr(scheduler, "optimizer", optimizer) is optimizer

    def plateau_mode(self, scheduler: Any) -> str | None:
        return scheduler.mode if isinstance(scheduler, ReduceOnPlateau) else None

    def step_scheduler(self, scheduler: Any, value: float | None) -> None:
        scheduler.step() if value is None else scheduler.step(value)

    def schedule_length(self, scheduler: Any) -> int | None:
        return scheduler.length if isinstance(scheduler, CosineDecay) else None

    # ---- computing

    def forward_context(self, training: bool) -> AbstractContextManager[Any]:
        return nullcontext() if training else no_gradients()

    # ---- values

    def to_float(self, value: Any) -> float:
        return float(value.item())

    def describe_tensor(self, value: Any) -> tuple[str, tuple[int, ...]] | None:
        return (value.dtype.name, value.shape) if isinstance(value, Tensor) else None

    def keep_tensor(self, value: Any) -> Any:
        return Tensor(value.data.copy())

    def stack(self, values: Sequence[Any], dtype: str) -> Any:
        if isinstance(values, np.ndarray):
            return Tensor(values.astype(dtype))
        arrays = [value.data if isinstance(value, Tensor) else value for value in values]
        return Tensor(np.stack([np.asarray(array, dtype) for array in arrays]))

    def cast(self, tensor: Any, dtype: str) -> Any:
        return Tensor(tensor.data.astype(dtype))

    def concatenate(self, tensors: Sequence[Any]) -> Any:
        return Tensor(np.concatenate([tensor.data for tensor in tensors]))

    def mean(self, tensor: Any) -> float:
        return float(tensor.data.mean(dtype=np.float64))

    # ---- state

    def model_state(self, model: Any) -> dict[str, Array]:
        return _state.model_state(model)

    def load_model_state(self, model: Any, state: Mapping[str, Array]) -> None:
        _state.load_model_state(model, state)

    def optimizer_state(self, optimizer: Any, names: Mapping[int, str]) -> Any:
        return _state.optimizer_state(optimizer, names)

    def load_optimizer_state(self, optimizer: Any, names: Mapping[int, str], state: Any) -> None:
        _state.load_optimizer_state(optimizer, names, state)

    def scheduler_state(self, scheduler: Any) -> Any:
        return scheduler.state()

    def load_scheduler_state(self, scheduler: Any, state: Any) -> None:
        check_entries("scheduler", state, scheduler.state())
        scheduler.load_state(state)

    def tensor_state(self, tensor: Any) -> Array:
        return _state.to_array(tensor.data)

    def tensor_from_state(self, array: Array, like: Any = None, *, host: bool = False) -> Any:
        return Tensor(_state.from_array(array))

    # ---- the rest

    def open_tracker(self, name: str, folder: Path) -> Tracker:
        return JsonLinesTracker(folder)

    def free_memory(self) -> None:
        gc.collect()

    def _with_gradient(self, optimizer: Any) -> list[Any]:
        return [parameter for parameter in optimizer.parameters if parameter.grad is not None]

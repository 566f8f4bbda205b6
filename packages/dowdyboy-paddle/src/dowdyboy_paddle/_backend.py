"""PaddlePaddle behind the seam."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
import paddle
from paddle.optimizer import Optimizer
from paddle.optimizer.lr import LRScheduler, ReduceOnPlateau

from dowdyboy_core import Backend, Tracker
from dowdyboy_core.backend import (
    Array,
    DeviceRequest,
    Exchanges,
    Isolate,
    MapParts,
    StreamParts,
    exchanges_of,
    map_leaves,
    unsynchronised,
    unwrap,
)

from . import _averaging, _data, _distributed, _gradients, _names, _own, _own_state, _schedules, _state, _weights
from ._amp import ForwardContexts, available_precision
from ._arrays import to_array, to_tensor
from ._devices import choose_device
from ._exchange import PaddleVocabulary
from ._sync_bn import synchronise_batch_norm
from ._tracker import VisualDLTracker


@cache  # to ask costs a microsecond, for each tensor that is recorded
def _name_of(dtype: paddle.dtype) -> str:
    return str(dtype).removeprefix("paddle.")


class PaddleBackend(Backend):
    """PaddlePaddle, in one process or as one of several."""

    name = "paddle"
    version = paddle.version.full_version
    trackers = ("visualdl",)
    vocabulary = PaddleVocabulary()
    generators = (paddle.base.core.Generator,)

    def __init__(self) -> None:
        self._device = "cpu"
        self._place: Any = paddle.CPUPlace()
        self._models: WeakSet[paddle.nn.Layer] = WeakSet()
        self._contexts = ForwardContexts("no")
        self._exchanges: Exchanges[_distributed.PaddleExchange] = Exchanges()

    def __reduce__(self) -> tuple[Any, ...]:
        # To a worker that starts afresh, which seeds and draws, and computes nothing.
        return type(self), (), {"_device": self._device}

    # ---- where it runs

    def open(self, request: DeviceRequest) -> None:
        self.rank, self.local_rank, self.world_size = _distributed.from_environment()
        self._device = choose_device(request, self.local_rank)
        self.asynchronous = self._device != "cpu"
        self._place = paddle.device.set_device(self._device)
        if self.world_size > 1:
            _distributed.join(self._device)

    def gather(self, value: Any) -> list[Any]:
        return [value] if self.world_size == 1 else _distributed.gather(value)

    def largest(self, numbers: Sequence[int]) -> list[int]:
        return list(numbers) if self.world_size == 1 else _distributed.largest(numbers)

    def barrier(self) -> None:
        self.gather(None)

    def unsynchronised(self, models: Sequence[Any]) -> AbstractContextManager[Any]:
        return unsynchronised(models)

    def align_untrained(self, models: Sequence[Any]) -> None:
        if self.world_size > 1:
            _distributed.align_untrained([unwrap(model) for model in models])

    def aligned(self, models: Sequence[Any]) -> AbstractContextManager[Any]:
        return _distributed.aligned([unwrap(model) for model in models]) if self.world_size > 1 else nullcontext()

    def device(self) -> str:
        return self._device

    def enable_precision(self, precision: str) -> str:
        in_force = available_precision(precision, self._device)
        self._contexts = ForwardContexts(in_force)
        return in_force

    # ---- random numbers

    def seed(self, seed: int) -> None:
        paddle.seed(seed)

    def get_rng_state(self) -> Any:
        return _state.rng_state(self._device)

    def set_rng_state(self, state: Any) -> None:
        _state.set_rng_state(self._device, state)

    def set_rng_aside(self, seed: int) -> Callable[[], None]:
        if self._device != "cpu":
            return super().set_rng_aside(seed)
        # Not paddle.seed and paddle.get_rng_state, which look for every kind of device and take three times as long.
        generator = paddle.base.core.default_cpu_generator()
        state = generator.get_state()
        generator.manual_seed(seed)
        return partial(generator.set_state, state)

    # ---- data

    def split_loader(self, loader: Any, isolate: Isolate) -> MapParts | StreamParts | None:
        own = _own.own_parts(loader)
        return _data.split_loader(loader, isolate) if own is None else own

    def to_device(self, batch: Any) -> Any:
        if (
            self._device == "cpu"
            and type(batch) in (list, tuple)
            and all(type(item) is paddle.Tensor for item in batch)
        ):
            return batch  # as most are: there is nothing to move, and nothing to walk through
        return map_leaves(_data.Mover(self._device), batch)

    # ---- models

    def is_model(self, value: Any) -> bool:
        return isinstance(value, paddle.nn.Layer)

    def prepare_model(self, model: Any, *, sync_bn: bool, find_unused_parameters: bool) -> Any:
        model = _state.move(model, self._place)
        self._models.add(model)
        if self.world_size == 1:
            return model
        if sync_bn:
            model = synchronise_batch_norm(model, self._device)
        exchange = _distributed.PaddleExchange(model, find_unused_parameters)
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
        unwrap(model).train() if training else unwrap(model).eval()

    def keep_modes(self, model: Any) -> Callable[[], None]:
        kept = [(layer, layer.training) for layer in model.sublayers(include_self=True)]
        exchanged = [(exchange, exchange.training) for exchange in exchanges_of([model])]

        def put_back() -> None:
            for layer, training in kept:
                if layer.training != training:
                    self.set_training(layer, training)  # a method of the user's own may do more than its name says
            for layer, training in kept:
                layer.training = training
            for exchange, training in exchanged:
                exchange.training = training

        return put_back

    def named_parameters(self, model: Any) -> Iterable[tuple[str, Any]]:
        return _names.named_parameters(model)

    def wants_gradient(self, parameter: Any) -> bool:
        return not parameter.stop_gradient

    def set_wants_gradient(self, parameter: Any, wanted: bool) -> None:
        parameter.stop_gradient = not wanted

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
        return [item for group in _state.parameter_groups(optimizer) for item in group]

    def unsaved_state(self, optimizer: Any) -> str | None:
        return _own_state.unsaved_state(optimizer)

    def zero_grad(self, optimizer: Any) -> None:
        optimizer.clear_grad(set_to_zero=False)
        for parameter in self.optimizer_parameters(optimizer):
            if parameter.stop_gradient:  # which PaddlePaddle leaves its last gradient, that clipping counts
                parameter.grad = None

    def loss_problem(self, loss: Any) -> str | None:
        if not isinstance(loss, paddle.Tensor):
            return f"is {loss!r:.80} of type {type(loss).__name__}"
        if loss.ndim and math.prod(loss.shape) != 1:  # not size, which computes for ten times as long
            return f"has shape {tuple(loss.shape)}"
        return "is detached from the model, so that no gradient can flow" if loss.stop_gradient else None

    def backward(self, loss: Any, factor: float) -> None:
        exchanging = self._exchanges.before_backward(loss)
        with self._contexts.outside():
            _distributed.backward(loss if factor == 1.0 else loss * factor, self._models)
        _distributed.check_used(exchanging)

    def weights(self) -> _weights.PaddleWeights:
        return _weights.PaddleWeights(self.world_size, self._device)

    def scale_gradients(self, optimizer: Any, factor: Any, *, check: bool) -> bool:
        return _gradients.scale(self.optimizer_parameters(optimizer), factor, check=check)

    def has_sparse_gradients(self, optimizer: Any) -> bool:
        return _gradients.has_sparse(self.optimizer_parameters(optimizer))

    def clip_gradients(self, optimizer: Any, max_norm: float) -> None:
        paddle.nn.utils.clip_grad_norm_(self.optimizer_parameters(optimizer), max_norm)

    def clip_gradient_values(self, optimizer: Any, bound: float) -> None:
        paddle.nn.utils.clip_grad_value_(self.optimizer_parameters(optimizer), bound)

    def step(self, optimizer: Any) -> None:
        optimizer.step()

    def scheduler_drives(self, scheduler: Any, optimizer: Any) -> bool:
        return getattr(optimizer, "_learning_rate", scheduler) is scheduler

    def own_scheduler(self, optimizer: Any) -> Any:
        rate = getattr(optimizer, "_learning_rate", None)
        return rate if isinstance(rate, LRScheduler) else None

    def plateau_mode(self, scheduler: Any) -> str | None:
        return scheduler.mode if isinstance(scheduler, ReduceOnPlateau) else None

    def step_scheduler(self, scheduler: Any, value: float | None) -> None:
        scheduler.step() if value is None else scheduler.step(value)

    def schedule_length(self, scheduler: Any) -> int | None:
        return _schedules.length(scheduler)

    # ---- computing

    def forward_context(self, training: bool) -> AbstractContextManager[Any]:
        return self._contexts(training)

    # ---- values

    def to_float(self, value: Any) -> float:
        return float(value.item())

    def describe_tensor(self, value: Any) -> tuple[str, tuple[int, ...]] | None:
        if not isinstance(value, paddle.Tensor):
            return None
        return _name_of(value.dtype), tuple(value.shape)

    def keep_tensor(self, value: Any) -> Any:
        return value.item() if self._device == "cpu" and not value.ndim else value.detach().clone()

    def stack(self, values: Sequence[Any], dtype: str) -> Any:
        kind: Any = dtype
        if isinstance(values, np.ndarray):
            return paddle.to_tensor(values, dtype=kind)
        tensors = [value if isinstance(value, paddle.Tensor) else paddle.to_tensor(value) for value in values]
        return paddle.stack([tensor.astype(kind) for tensor in tensors])

    def cast(self, tensor: Any, dtype: str) -> Any:
        return tensor.astype(dtype)

    def concatenate(self, tensors: Sequence[Any]) -> Any:
        return paddle.concat(list(tensors))

    def mean(self, tensor: Any) -> float:
        return float(tensor.astype("float64").mean().item())

    # ---- state

    def model_state(self, model: Any) -> dict[str, Array]:
        return _state.model_state(model)

    def model_layout(self, model: Any) -> dict[str, Array]:
        return _state.model_layout(model)

    def layout_when_loaded(self, model: Any, state: Mapping[str, Array]) -> dict[str, Array] | None:
        return _state.layout_when_loaded(model, state)

    def load_model_state(self, model: Any, state: Mapping[str, Array]) -> None:
        _state.load_model_state(model, state)

    def optimizer_state(self, optimizer: Any, names: Mapping[int, str]) -> Any:
        return _state.optimizer_state(optimizer, names)

    def load_optimizer_state(self, optimizer: Any, names: Mapping[int, str], state: Any) -> None:
        _state.load_optimizer_state(optimizer, names, state)

    def scheduler_state(self, scheduler: Any) -> Any:
        return _state.scheduler_state(scheduler)

    def load_scheduler_state(self, scheduler: Any, state: Any) -> None:
        _state.load_scheduler_state(scheduler, state)

    def tensor_state(self, tensor: Any) -> Array:
        return to_array(tensor)

    def tensor_from_state(self, array: Array, like: Any = None, *, host: bool = False) -> Any:
        place = paddle.CPUPlace() if host else getattr(like, "place", None)
        return to_tensor(array, place)

    def own_state(self, value: Any) -> Any:
        return _own_state.own_state(value)

    def load_own_state(self, value: Any, state: Any) -> None:
        _own_state.load_own_state(value, state)

    # ---- the rest

    def open_tracker(self, name: str, folder: Path) -> Tracker:
        return VisualDLTracker(folder)

    def free_memory(self) -> None:
        gc.collect()
        if self._device != "cpu":
            paddle.device.cuda.empty_cache()

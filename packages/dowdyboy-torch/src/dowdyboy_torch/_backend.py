"""PyTorch behind the seam."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

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
from ._arrays import to_array
from ._devices import choose_device
from ._exchange import TorchVocabulary
from ._sync_bn import synchronise_batch_norm
from ._tracker import TensorBoardTracker


@cache
def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class TorchBackend(Backend):
    """PyTorch, in one process or as one of several."""

    name = "torch"
    version = torch.__version__
    wrappers = (_names.INNER,)
    trackers = ("tensorboard",)
    vocabulary = TorchVocabulary()
    generators = (torch.Generator,)

    def __init__(self) -> None:
        self._device = torch.device("cpu")
        self._contexts = ForwardContexts("no", self._device)
        self._exchanges: Exchanges[_distributed.TorchExchange] = Exchanges()

    # ---- where it runs

    def open(self, request: DeviceRequest) -> None:
        self.rank, self.local_rank, self.world_size = _distributed.from_environment()
        self._device = choose_device(request, self.local_rank)
        self.asynchronous = self._device.type != "cpu"
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

    def device(self) -> torch.device:
        return self._device

    def enable_precision(self, precision: str) -> str:
        in_force = available_precision(precision, self._device)
        self._contexts = ForwardContexts(in_force, self._device)
        return in_force

    # ---- random numbers

    def seed(self, seed: int) -> None:
        # Not torch.manual_seed, which looks for every kind of device and takes a hundred times as long.
        torch.default_generator.manual_seed(seed)
        if self._device.type == "cuda" and torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)

    def get_rng_state(self) -> Any:
        devices = torch.cuda.get_rng_state_all() if self._device.type == "cuda" else []
        return {
            "cpu": to_array(torch.get_rng_state()),
            "cuda": [to_array(item) for item in devices],
        }

    def set_rng_state(self, state: Any) -> None:
        torch.set_rng_state(_state.to_tensor(state["cpu"]))
        if self._device.type == "cuda" and len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([_state.to_tensor(item) for item in state["cuda"]])

    def set_rng_aside(self, seed: int) -> Callable[[], None]:
        if self._device.type == "cuda":
            return super().set_rng_aside(seed)
        generator = torch.default_generator
        state = generator.get_state()
        generator.manual_seed(seed)

        def put_back() -> None:
            generator.set_state(state)

        return put_back

    # ---- data

    def split_loader(self, loader: Any, isolate: Isolate) -> MapParts | StreamParts | None:
        own = _own.own_parts(loader)
        return _data.split_loader(loader, isolate) if own is None else own

    def to_device(self, batch: Any) -> Any:
        # Data comes from the loader on the CPU: there is nothing to move, and nothing to walk through.
        return batch if self._device.type == "cpu" else map_leaves(_data.Mover(self._device), batch)

    # ---- models

    def is_model(self, value: Any) -> bool:
        return isinstance(value, torch.nn.Module)

    def prepare_model(self, model: Any, *, sync_bn: bool, find_unused_parameters: bool) -> Any:
        model = model.to(self._device)
        if self.world_size == 1:
            return model
        if sync_bn:
            model = synchronise_batch_norm(model, self._device)
        exchange = _distributed.TorchExchange(model, self._device, find_unused_parameters)
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
        kept = [(module, module.training) for module in model.modules()]
        exchanged = [(exchange, exchange.training) for exchange in exchanges_of([model])]

        def put_back() -> None:
            for module, training in kept:
                if module.training != training:
                    module.train(training)  # a method of the user's own may do more than to set what it is named after
            for module, training in kept:
                module.training = training
            for exchange, training in exchanged:
                exchange.training = training

        return put_back

    def named_parameters(self, model: Any) -> Iterable[tuple[str, Any]]:
        return _names.named_parameters(model)

    def wants_gradient(self, parameter: Any) -> bool:
        return bool(parameter.requires_grad)

    def set_wants_gradient(self, parameter: Any, wanted: bool) -> None:
        parameter.requires_grad_(wanted)

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
        return [item for group in optimizer.param_groups for item in group["params"]]

    def unsaved_state(self, optimizer: Any) -> str | None:
        return _own_state.unsaved_state(optimizer)

    def zero_grad(self, optimizer: Any) -> None:
        optimizer.zero_grad(set_to_none=True)

    def loss_problem(self, loss: Any) -> str | None:
        if not isinstance(loss, torch.Tensor):
            return f"is {loss!r:.80} of type {type(loss).__name__}"
        if loss.numel() != 1:
            return f"has shape {tuple(loss.shape)}"
        return None if loss.requires_grad else "is detached from the model, so that no gradient can flow"

    def backward(self, loss: Any, factor: float) -> None:
        self._exchanges.before_backward(loss)
        with self._contexts.outside():
            (loss if factor == 1.0 else loss * factor).backward()

    def weights(self) -> _weights.TorchWeights:
        return _weights.TorchWeights(self.world_size, self._device)

    def scale_gradients(self, optimizer: Any, factor: Any, *, check: bool) -> bool:
        return _gradients.scale(self.optimizer_parameters(optimizer), factor, check=check)

    def has_sparse_gradients(self, optimizer: Any) -> bool:
        return _gradients.has_sparse(self.optimizer_parameters(optimizer))

    def clip_gradients(self, optimizer: Any, max_norm: float) -> None:
        torch.nn.utils.clip_grad_norm_(self.optimizer_parameters(optimizer), max_norm)

    def clip_gradient_values(self, optimizer: Any, bound: float) -> None:
        torch.nn.utils.clip_grad_value_(self.optimizer_parameters(optimizer), bound)

    def step(self, optimizer: Any) -> None:
        optimizer.step()

    def scheduler_drives(self, scheduler: Any, optimizer: Any) -> bool:
        return getattr(scheduler, "optimizer", optimizer) is optimizer

    def plateau_mode(self, scheduler: Any) -> str | None:
        return scheduler.mode if isinstance(scheduler, ReduceLROnPlateau) else None

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
        if not isinstance(value, torch.Tensor):
            return None
        return _name_of(value.dtype), tuple(value.shape)

    def keep_tensor(self, value: Any) -> Any:
        return value.item() if value.is_cpu and not value.ndim else value.detach().clone()

    def stack(self, values: Sequence[Any], dtype: str) -> Any:
        kind = getattr(torch, dtype)
        if isinstance(values, np.ndarray):
            return torch.as_tensor(values, dtype=kind, device=self._device)
        return torch.stack([torch.as_tensor(value).to(self._device, kind) for value in values])

    def cast(self, tensor: Any, dtype: str) -> Any:
        return tensor.to(getattr(torch, dtype))

    def concatenate(self, tensors: Sequence[Any]) -> Any:
        return torch.cat(list(tensors))

    def mean(self, tensor: Any) -> float:
        return float(tensor.to(torch.float64).mean().item())

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
        return _state.to_tree(scheduler.state_dict())

    def load_scheduler_state(self, scheduler: Any, state: Any) -> None:
        _state.load_scheduler_state(scheduler, state)

    def tensor_state(self, tensor: Any) -> Array:
        return to_array(tensor)

    def tensor_from_state(self, array: Array, like: Any = None, *, host: bool = False) -> Any:
        tensor = _state.to_tensor(array)
        return tensor if host else tensor.to(self._device if like is None else like.device)

    def own_state(self, value: Any) -> Any:
        return _own_state.own_state(value)

    def load_own_state(self, value: Any, state: Any) -> None:
        _own_state.load_own_state(value, state)

    # ---- the rest

    def open_tracker(self, name: str, folder: Path) -> Tracker:
        return TensorBoardTracker(folder)

    def free_memory(self) -> None:
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

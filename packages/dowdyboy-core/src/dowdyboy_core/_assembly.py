"""What a run is put together from: loaders, models, components, optimizers, schedulers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Any

from . import log
from ._backend import Backend
from ._config import TrainerConfig
from ._data import EpochLoader, Share, StreamParts, open_loader
from ._errors import ConfigError, DowdyboyError, SetupError
from ._rng import RandomStreams
from ._together import meet
from .rand import derive_seed


class Assembly:
    """Holds the parts of a run, and refuses those that don't fit, with words about what would."""

    def __init__(self, config: TrainerConfig, backend: Backend, streams: RandomStreams) -> None:
        self._config = config
        self._backend = backend
        self._streams = streams
        self.warn: Callable[[str], None] = log.warn
        self.loaders: dict[str, EpochLoader] = {}
        self.models: list[Any] = []
        self.components: list[Any] = []
        self.optimizers: list[Any] = []
        self.schedulers: list[Any] = []

    def set_loader(self, role: str, loader: Any) -> None:
        """Takes the loader for ``'train'``, ``'val'`` or ``'test'``."""
        parts = self._backend.split_loader(loader, self._streams.isolated)
        if parts is None:
            parts = _as_stream(role, loader)
        share = Share(self._backend.rank, self._backend.world_size)
        seed = derive_seed(self._config.seed, role)
        self.loaders[role] = open_loader(
            parts, self._streams, seed, share, fill_up=role == "train", role=role, warn=self._warn
        )

    def _warn(self, text: str) -> None:
        self.warn(text)

    def set_models(self, models: Any) -> None:
        """Takes the models, prepared for the device and the processes."""
        for model in _listed("set_models", models):
            if not self._backend.is_model(model):
                raise ConfigError(
                    f"set_models got {_short(model)}, which is no model of {self._backend.name}. Give instances of its "
                    "module class."
                )
        meet(self._backend.gather, self._backend.rank, "set_models")
        self.models = [
            self._backend.prepare_model(
                model,
                sync_bn=self._config.sync_bn,
                find_unused_parameters=self._config.find_unused_parameters,
            )
            for model in models
        ]

    def raw_models(self) -> list[Any]:
        """The models without what the processes wrapped around them."""
        return [self._backend.unwrap_model(model) for model in self.models]

    def set_components(self, components: Any) -> None:
        """Takes the components; those that are modules go to the device."""
        self.components = [
            self._backend.prepare_model(component, sync_bn=False, find_unused_parameters=False)
            if self._backend.is_model(component)
            else component
            for component in _listed("set_components", components)
        ]
        for component in self.modules_of_components().values():
            trained = [
                name for name, item in self._backend.named_parameters(component) if self._backend.wants_gradient(item)
            ]
            if trained:
                raise ConfigError(
                    f"set_components got {_short(component)} with the parameters {trained}. A component has nothing to "
                    "train: give it to set_models, or freeze it."
                )

    def modules_of_components(self) -> dict[int, Any]:
        """The components that are modules of the framework's, by their place in the list."""
        found = ((place, self._backend.unwrap_model(item)) for place, item in enumerate(self.components))
        return {place: item for place, item in found if self._backend.is_model(item)}

    def set_optimizers(self, optimizers: Any, schedulers: Any) -> None:
        """Takes the optimizers and, place by place, their schedulers or None."""
        given = _listed("set_optimizers", optimizers)
        for optimizer in given:
            if not self._backend.is_optimizer(optimizer):
                raise ConfigError(
                    f"set_optimizers got {_short(optimizer)}, which is no optimizer of {self._backend.name}."
                )
        paired = [] if schedulers is None else _listed("set_optimizers", schedulers)
        if len(paired) > len(given):
            raise ConfigError(
                f"set_optimizers got {len(paired)} schedulers for {len(given)} optimizers. Give one for each, or None."
            )
        paired += [None] * (len(given) - len(paired))
        for number, (optimizer, scheduler) in enumerate(zip(given, paired, strict=True)):
            if scheduler is not None and not self._backend.scheduler_drives(scheduler, optimizer):
                raise ConfigError(
                    f"Scheduler {number}, {_short(scheduler)}, doesn't set the learning rate of optimizer {number}, "
                    f"{_short(optimizer)}. Give each optimizer the scheduler that was made for it."
                )
        self.optimizers = [self._backend.prepare_optimizer(optimizer) for optimizer in given]
        self.schedulers = paired

    def parameter_names(self) -> dict[int, str]:
        """For each parameter's id, ``model number/path in the model``."""
        return {
            id(parameter): f"{number}/{path}"
            for number, model in enumerate(self.raw_models())
            for path, parameter in self._backend.named_parameters(model)
        }

    def check_ready(self, role: str) -> None:
        """Refuses to begin without what the run needs.

        Raises:
            SetupError: a loader, a model or an optimizer is missing, or an optimizer is a stranger to the models.
        """
        if role not in self.loaders:
            raise SetupError(f"There is no {role} loader. Call set_{role}_dataloader first.")
        if not self.models:
            raise SetupError("There is no model. Call set_model or set_models first.")
        if role != "train":
            return
        if not self.optimizers and self._config.auto_optimize:
            raise SetupError(
                "There is no optimizer. Call set_optimizer or set_optimizers first, or set auto_optimize=False."
            )
        known = self.parameter_names()
        for number, optimizer in enumerate(self.optimizers):
            parameters = self._backend.optimizer_parameters(optimizer)
            strangers = [item for item in parameters if id(item) not in known]
            if strangers:
                shapes = ", ".join(str(tuple(item.shape)) for item in strangers[:5])
                raise SetupError(
                    f"Optimizer {number} holds {len(strangers)} of {len(parameters)} parameters that belong to none of "
                    f"the models (shapes {shapes}). Make the optimizer from the parameters of the models given to "
                    "set_models."
                )

    def close_loaders(self) -> None:
        """Ends the workers of epochs that were left before their end."""
        for loader in self.loaders.values():
            loader.close()

    @contextmanager
    def naming_workers(self) -> Iterator[None]:
        """Has an error say which worker of which loader is no more.

        The frameworks notice by a signal, and so in the middle of whatever runs then. They know a number of a process.
        """
        try:
            yield
        except (RuntimeError, SystemError) as error:
            lost = {pid: text for loader in self.loaders.values() for pid, text in loader.lost().items()}
            named = [text for pid, text in lost.items() if str(pid) in re.findall(r"\d+", str(error))]
            if isinstance(error, DowdyboyError) or not named:
                raise
            raise SetupError("\n".join(named)) from error

    def set_training(self, training: bool) -> None:
        """Puts all models and module components into training or evaluation mode."""
        for model in self.models:
            self._backend.set_training(model, training)
        for component in self.modules_of_components().values():
            self._backend.set_training(component, training)


def check_hook(name: str, hook: Any, arguments: str) -> None:
    """Refuses a hook that can't be called as it will be.

    Raises:
        ConfigError: it isn't callable, or can't take these arguments.
    """
    if not callable(hook):
        raise ConfigError(f"{name}={_short(hook)} can't be called. Give a function {name}({arguments}).")
    try:
        signature = inspect.signature(hook)
    except (TypeError, ValueError):  # written in C: it has no signature to look at
        return
    try:
        signature.bind(*arguments.split(", "))
    except TypeError as error:
        raise ConfigError(
            f"{name}{signature} can't be called with ({arguments}): {error}. Define it as def {name}({arguments})."
        ) from error


def _as_stream(role: str, loader: Any) -> StreamParts:
    if isinstance(loader, Iterator):
        raise ConfigError(
            f"set_{role}_dataloader got {_short(loader)}, which can be run through only once. Give a DataLoader, or "
            "an object whose __iter__ starts afresh each epoch."
        )
    if isinstance(loader, (str, bytes)) or not isinstance(loader, Iterable):
        raise ConfigError(
            f"set_{role}_dataloader got {_short(loader)}, which yields no batches. Give a DataLoader or another "
            "iterable."
        )
    batches: Callable[[], Iterator[Any]] = loader.__iter__
    draws = type(loader) not in (list, tuple)  # in which all batches are there already
    return StreamParts(batches, len(loader) if isinstance(loader, Sized) else None, lazy=draws)


def _listed(method: str, values: Any) -> list[Any]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        raise ConfigError(f"{method} got {_short(values)}, which is no list. Give a list.")
    return list(values)


def _short(value: object) -> str:
    kind = type(value).__name__
    if not isinstance(value, (str, int, float, dict, list, tuple)):
        return f"an object of type {kind}"  # whose repr has an address in it, or many lines
    text = repr(value)
    return f"{text[:80]}{'…' if len(text) > 80 else ''} of type {kind}"

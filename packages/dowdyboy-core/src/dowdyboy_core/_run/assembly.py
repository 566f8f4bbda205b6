"""What a run is put together from: loaders, models, components, optimizers, schedulers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Any

from dowdyboy_core import log
from dowdyboy_core._config import TrainerConfig
from dowdyboy_core._errors import CheckpointError, ConfigError, DowdyboyError, SetupError
from dowdyboy_core.backend.arrays import Array
from dowdyboy_core.backend.dealt import loaders_within
from dowdyboy_core.backend.loaders import EpochLoader, MapParts, StreamParts
from dowdyboy_core.backend.orders import known_length
from dowdyboy_core.backend.own_loaders import close_generator
from dowdyboy_core.backend.random_streams import RandomStreams
from dowdyboy_core.backend.seam import Backend
from dowdyboy_core.backend.shares import Share
from dowdyboy_core.backend.together import meet
from dowdyboy_core.rand import derive_seed

from .epochs import Compared, Epochs
from .generators import OwnGenerators
from .passes import Passes
from .position import Position
from .refused import check_loader, check_optimizers, check_scheduler, check_shared, short


class Assembly:
    """Holds the parts of a run, and refuses those that don't fit, with words about what would."""

    def __init__(
        self,
        config: TrainerConfig,
        backend: Backend,
        streams: RandomStreams,
        warn: Callable[[str], None] = log.warn,
        position: Position | None = None,
    ) -> None:
        self._config = config
        self._position = position or Position()
        self._backend = backend
        self._streams = streams
        self._warn = warn
        self._generators = OwnGenerators(backend.generators, backend.name, warn)
        self.loaders: dict[str, EpochLoader] = {}
        self.given_loaders: dict[str, Any] = {}
        self.steps_per_epoch = config.steps_per_epoch
        self.models: list[Any] = []
        self.trained: dict[str, Any] = {}  # in several processes: what they have agreed to train, by number and path
        self.components: list[Any] = []
        self.optimizers: list[Any] = []
        self.schedulers: list[Any] = []

    def set_loader(self, role: str, loader: Any) -> None:
        """Takes the loader for ``'train'``, ``'val'`` or ``'test'``."""

        def split() -> MapParts | StreamParts:
            parts = self._backend.split_loader(loader, self._streams.isolated)
            return _as_stream(role, loader) if parts is None else parts

        check_loader(role, loader, lambda item: self._backend.split_loader(item, self._streams.isolated) is not None)
        split()  # which refuses what is none
        steps = self._config.steps_per_epoch if role == "train" else None
        epochs = Epochs(
            role,
            loader,
            split,
            self._streams,
            derive_seed(self._config.seed, role),
            Share(self._backend.rank, self._backend.world_size),
            fill_up=role == "train" and steps is None,
            compared=Compared(self._backend, self._plain),
            warn=self._warn,
        )
        self.loaders[role] = epochs if steps is None else self._passes(epochs, steps)
        self.given_loaders[role] = loader

    def _passes(self, epochs: Epochs, steps: int) -> Passes:
        return Passes(epochs, steps, self._position, self._backend.rank, self._backend.world_size)

    def _plain(self, value: Any) -> Array | None:
        """A tensor as plain data, or what can be said of one that can't be."""
        described = self._backend.describe_tensor(value)
        if described is None:
            return None
        try:
            return self._backend.tensor_state(value)
        except CheckpointError:  # a sparse one, say
            return Array(*described, b"")

    def set_models(self, models: Any) -> None:
        """Takes the models, prepared for the device and the processes."""
        given = [self._backend.unwrap_model(model) for model in _listed("set_models", models)]
        for model in given:
            if not self._backend.is_model(model):
                raise ConfigError(
                    f"set_models got {short(model)}, which is no model of {self._backend.name}. Give instances of its "
                    "module class."
                )
        meet(self._backend.gather, self._backend.rank, "set_models")
        self._agree_on_trained(given)
        self.models = [
            self._backend.prepare_model(
                model,
                sync_bn=self._config.sync_bn,
                find_unused_parameters=self._config.find_unused_parameters,
            )
            for model in given
        ]

    def follow_trained(self) -> None:
        """Has the processes exchange the gradients of those parameters that are trained by now.

        Raises:
            SetupError: the processes train different parameters.
        """
        self._agree_on_trained(self.raw_models())
        for model in self.models:
            self._backend.follow_trained(model)

    def _agree_on_trained(self, models: list[Any]) -> None:
        if self._backend.world_size == 1:
            return
        self.trained = self.trained_parameters(models)
        all_trained = self._backend.gather(list(self.trained))
        for rank, others in enumerate(all_trained):
            different = [name for name in all_trained[0] if name not in others]
            different += [name for name in others if name not in all_trained[0]]
            if different:
                raise SetupError(
                    f"Processes 0 and {rank} don't train the same parameters: one of them alone trains "
                    f"{different[0]!r} ({len(different)} differ). Make, freeze and unfreeze models alike in all "
                    "processes."
                )

    def trained_parameters(self, models: list[Any]) -> dict[str, Any]:
        """The parameters of unwrapped models that are trained, by the number of the model and the path in it."""
        return {
            f"model {number}, {path}": parameter
            for number, model in enumerate(models)
            for path, parameter in self._backend.named_parameters(model)
            if self._backend.wants_gradient(parameter)
        }

    def raw_models(self) -> list[Any]:
        """The models without what the processes wrapped around them."""
        return [self._backend.unwrap_model(model) for model in self.models]

    def set_components(self, components: Any) -> None:
        """Takes the components; those that are modules go to the device."""
        self.components = [
            # Never wrapped: there is nothing to exchange.
            self._backend.unwrap_model(
                self._backend.prepare_model(component, sync_bn=False, find_unused_parameters=False)
            )
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
                    f"set_components got {short(component)} with the parameters {trained}. A component has nothing to "
                    "train: give it to set_models, or freeze it."
                )

    def modules_of_components(self) -> dict[int, Any]:
        """The components that are modules of the framework's, by their place in the list."""
        return {place: item for place, item in enumerate(self.components) if self._backend.is_model(item)}

    def set_optimizers(self, optimizers: Any, schedulers: Any) -> None:
        """Takes the optimizers and, place by place, their schedulers or None."""
        given = _listed("set_optimizers", optimizers)
        for optimizer in given:
            if not self._backend.is_optimizer(optimizer):
                raise ConfigError(
                    f"set_optimizers got {short(optimizer)}, which is no optimizer of {self._backend.name}."
                )
        paired = [] if schedulers is None else _listed("set_optimizers", schedulers)
        if len(paired) > len(given):
            raise ConfigError(
                f"set_optimizers got {len(paired)} schedulers for {len(given)} optimizers. Give one for each, or None."
            )
        paired += [None] * (len(given) - len(paired))
        check_optimizers(given, self._config)
        for number, (optimizer, scheduler) in enumerate(zip(given, paired, strict=True)):
            if scheduler is None:
                continue
            check_scheduler(number, scheduler, self._config, self._backend)
            if not self._backend.scheduler_drives(scheduler, optimizer):
                raise ConfigError(
                    f"Scheduler {number}, {short(scheduler)}, doesn't set the learning rate of optimizer {number}, "
                    f"{short(optimizer)}. Give each optimizer the scheduler that was made for it."
                )
        self.optimizers = [self._backend.prepare_optimizer(optimizer) for optimizer in given]
        self.schedulers = [
            self._backend.own_scheduler(optimizer) if scheduler is None else scheduler
            for optimizer, scheduler in zip(given, paired, strict=True)
        ]

    def is_own(self, number: int) -> bool:
        """Whether the scheduler of an optimizer is what that was made with."""
        return self.schedulers[number] is self._backend.own_scheduler(self.optimizers[number])

    def each_scheduler(self) -> list[Any]:
        """The schedulers, each object once however many optimizers it is of."""
        return list({id(item): item for item in self.schedulers if item is not None}.values())

    def named_parameters(self) -> Iterator[tuple[str, Any]]:
        """The parameters of all models by ``model number/path in the model``; what several models share comes again."""
        for number, model in enumerate(self.raw_models()):
            for path, parameter in self._backend.named_parameters(model):
                yield f"{number}/{path}", parameter

    def parameter_names(self) -> dict[int, str]:
        """For each parameter's id, ``model number/path in the model``."""
        return {id(parameter): name for name, parameter in self.named_parameters()}

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
        held = [self._backend.optimizer_parameters(optimizer) for optimizer in self.optimizers]
        check_shared(held, known, self._config)

    def keep_modes(self) -> Callable[[], None]:
        """Gives a function that puts each module of all models and components back to the mode that it is in now."""
        kept = [self._backend.keep_modes(item) for item in (*self.models, *self.modules_of_components().values())]

        def put_back() -> None:
            for put_one_back in kept:
                put_one_back()

        return put_back

    def tell_generators(self) -> None:
        """Names the random generators that data of training and validation keeps for itself."""
        for role in ("train", "val"):
            if self._backend.rank == 0 and role in self.given_loaders:
                self._generators.tell(role, self.given_loaders[role])

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
        raise ConfigError(f"{name}={short(hook)} can't be called. Give a function {name}({arguments}).")
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
            f"set_{role}_dataloader got {short(loader)}, which can be run through only once. Give a DataLoader, or "
            "an object whose __iter__ starts afresh each epoch."
        )
    if isinstance(loader, (str, bytes)) or not isinstance(loader, Iterable):
        raise ConfigError(
            f"set_{role}_dataloader got {short(loader)}, which yields no batches. Give a DataLoader or another "
            "iterable."
        )
    if isinstance(loader, (list, tuple)) and type(loader) in (list, tuple):  # in which all batches are there already
        return StreamParts(lambda: iter(loader), len(loader), lazy=False, streams=(loader,))
    count = known_length(loader) if isinstance(loader, Sized) else None
    return StreamParts(
        lambda: iter(loader),
        count,
        end_workers=close_generator,
        samplers=loaders_within(loader),
        streams=(loader,),
        itself=loader,
    )


def _listed(method: str, values: Any) -> list[Any]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        raise ConfigError(f"{method} got {short(values)}, which is no list. Give a list.")
    return list(values)

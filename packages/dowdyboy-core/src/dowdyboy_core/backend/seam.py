"""The seam: all that the trainer asks of a framework, and nothing that it decides.

A backend supplies mechanics. It never decides when something happens, what a best value is, or what a file is
called; and the core never looks into a tensor. What must be written is abstract here; the rest has safe defaults.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from .arrays import Array
from .devices import DeviceRequest
from .loaders import MapParts, StreamParts
from .orders import Isolate
from .points import Tracker
from .vocabulary import Vocabulary
from .weights import Weights


class Backend(ABC):
    """One framework, in one process.

    Attributes:
        name: the framework's name: ``'torch'``, ``'paddle'``, …
        version: the framework's version.
        trackers: the viewers that ``log_with`` may name, the framework's own first.
        wrappers: words in paths of version 1 that are of what was wrapped around a module, and no longer there.
        vocabulary: its words for what crosses to another framework; None where it has none, and then nothing does.
        generators: the framework's classes of random generators, which data may keep for itself.
        asynchronous: whether tensors are computed beside Python, so that reading one waits; known after ``open``.
    """

    name: ClassVar[str]
    version: str
    trackers: ClassVar[tuple[str, ...]] = ()
    wrappers: ClassVar[tuple[str, ...]] = ()
    vocabulary: ClassVar[Vocabulary | None] = None
    generators: ClassVar[tuple[type, ...]] = ()
    asynchronous: bool = False

    # ---- where it runs

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1

    @abstractmethod
    def open(self, request: DeviceRequest) -> None:
        """Takes the device that is asked for.

        Raises:
            ConfigError: there is no such device.
        """

    @abstractmethod
    def device(self) -> Any:
        """The device in use, as the framework names it."""

    @abstractmethod
    def enable_precision(self, precision: str) -> str:
        """Sets the precision of ``forward_context`` and gives the one in force, ``'no'`` where it can't be had."""

    def gather(self, value: Any) -> list[Any]:
        """A value of every process, in the order of the ranks: a tree, as ``_state`` describes them."""
        return [value]

    def largest(self, numbers: Sequence[int]) -> list[int]:
        """For each place the largest of the numbers that the processes give; asked now and then between two batches."""
        return list(map(max, zip(*self.gather(list(numbers)), strict=True)))

    def barrier(self) -> None:
        """Waits until every process has come here."""
        return None

    def unsynchronised(self, models: Sequence[Any]) -> AbstractContextManager[Any]:
        """What a batch inside an accumulation window runs in: its gradients stay in this process for now."""
        return nullcontext()

    def align_untrained(self, models: Sequence[Any]) -> None:
        """Gives every process what the models of the first one hold untrained: running statistics, say."""
        return None

    def aligned(self, models: Sequence[Any]) -> AbstractContextManager[Any]:
        """What a test amid training runs in: ``align_untrained`` before it, and what each process had after it."""
        return nullcontext()

    # ---- random numbers

    @abstractmethod
    def seed(self, seed: int) -> None:
        """Seeds the framework's generators on every device; ``seed`` may have up to 63 bits."""

    @abstractmethod
    def get_rng_state(self) -> Any:
        """The state of those generators, as a tree."""

    @abstractmethod
    def set_rng_state(self, state: Any) -> None:
        """Puts such a state back."""

    def set_rng_aside(self, seed: int) -> Callable[[], None]:
        """Seeds those generators, and gives a function that puts them back; for each batch, and so quick."""
        state = self.get_rng_state()
        self.seed(seed)
        return partial(self.set_rng_state, state)

    # ---- data

    @abstractmethod
    def split_loader(self, loader: Any, isolate: Isolate) -> MapParts | StreamParts | None:
        """Takes a loader of the framework's apart; None if it is none."""

    @abstractmethod
    def to_device(self, batch: Any) -> Any:
        """The batch with every tensor in it on the device, whatever its nesting."""

    # ---- models

    @abstractmethod
    def is_model(self, value: Any) -> bool:
        """Whether ``value`` is a model (or any other module) of the framework's."""

    @abstractmethod
    def prepare_model(self, model: Any, *, sync_bn: bool, find_unused_parameters: bool) -> Any:
        """The model on the device, wrapped for as many processes as there are."""

    def unwrap_model(self, model: Any) -> Any:
        """What ``prepare_model`` was given."""
        return model

    def follow_trained(self, model: Any) -> None:
        """Has a prepared model exchange the gradients of those parameters that are trained by now, alike everywhere."""
        return None

    @abstractmethod
    def set_training(self, model: Any, training: bool) -> None:
        """Puts a model into training or evaluation mode."""

    @abstractmethod
    def keep_modes(self, model: Any) -> Callable[[], None]:
        """Gives a function that puts each module in a model back to the mode that it is in now."""

    @abstractmethod
    def named_parameters(self, model: Any) -> Iterable[tuple[str, Any]]:
        """The parameters of an unwrapped model with their paths in it, each once, by the first."""

    @abstractmethod
    def wants_gradient(self, parameter: Any) -> bool:
        """Whether a parameter is trained."""

    @abstractmethod
    def set_wants_gradient(self, parameter: Any, wanted: bool) -> None:
        """Has a parameter trained from here on, or not."""

    @abstractmethod
    def copy_parameters(self, parameters: Sequence[Any]) -> list[Any]:
        """New tensors with the values, the types and the devices of some parameters; not trained."""

    @abstractmethod
    def average_parameters(self, average: Sequence[Any], parameters: Sequence[Any], decay: float) -> None:
        """Moves tensors of ``copy_parameters`` a share of ``1 - decay`` of the way, without waiting for the device."""

    @abstractmethod
    def swap_parameters(self, average: Sequence[Any], parameters: Sequence[Any]) -> None:
        """Exchanges the values in place, in the same memory, unnoticed by a graph: it is used once they are back."""

    def statistics_anew(self, models: Sequence[Any]) -> AbstractContextManager[Any]:
        """What models run in to have the mean over these batches as running statistics; as before, where it fails."""
        return nullcontext()

    # ---- optimizers and schedulers

    def prepare_optimizer(self, optimizer: Any) -> Any:
        """The optimizer, wrapped for as many processes as there are."""
        return optimizer

    @abstractmethod
    def is_optimizer(self, value: Any) -> bool:
        """Whether ``value`` is an optimizer of the framework's."""

    @abstractmethod
    def optimizer_parameters(self, optimizer: Any) -> Sequence[Any]:
        """The parameters that an optimizer updates."""

    def unsaved_state(self, optimizer: Any) -> str | None:
        """What of an optimizer's state ``optimizer_state`` doesn't have, in words; None if it has it all."""
        return None

    @abstractmethod
    def zero_grad(self, optimizer: Any) -> None:
        """Clears the gradients of an optimizer's parameters."""

    @abstractmethod
    def loss_problem(self, loss: Any) -> str | None:
        """What keeps ``loss`` from being differentiated, in words; None if nothing does."""

    @abstractmethod
    def backward(self, loss: Any, factor: float) -> None:
        """Adds the gradients of ``loss`` times ``factor``."""

    @abstractmethod
    def weights(self) -> Weights:
        """What computes with the weights of batches; asked for once, after ``open``."""

    @abstractmethod
    def scale_gradients(self, optimizer: Any, factor: Any, *, check: bool) -> bool:
        """Multiplies an optimizer's gradients; with ``check`` gives whether all of them are finite, else True.

        The factor is a number of those that ``weights`` computes with.
        """

    def has_sparse_gradients(self, optimizer: Any) -> bool:
        """Whether a gradient of an optimizer's parameters is sparse right now."""
        return False

    @abstractmethod
    def clip_gradients(self, optimizer: Any, max_norm: float) -> None:
        """Scales an optimizer's gradients down so that their total 2-norm is at most ``max_norm``."""

    @abstractmethod
    def clip_gradient_values(self, optimizer: Any, bound: float) -> None:
        """Clamps each element of an optimizer's gradients to at most ``bound`` and at least ``-bound``."""

    @abstractmethod
    def step(self, optimizer: Any) -> None:
        """Updates an optimizer's parameters."""

    def step_with(self, optimizer: Any, closure: Callable[[], Any]) -> None:
        """Has an optimizer that computes the loss itself do so by a closure, and update its parameters."""
        optimizer.step(closure)

    @abstractmethod
    def scheduler_drives(self, scheduler: Any, optimizer: Any) -> bool:
        """Whether a scheduler sets the learning rate of this optimizer."""

    def own_scheduler(self, optimizer: Any) -> Any:
        """The scheduler that an optimizer was made with as its learning rate; None if that is a number."""
        return None

    @abstractmethod
    def plateau_mode(self, scheduler: Any) -> str | None:
        """``'min'`` or ``'max'`` for a scheduler that follows a value, None for one that follows the clock."""

    @abstractmethod
    def step_scheduler(self, scheduler: Any, value: float | None) -> None:
        """Steps a scheduler, with the value that it follows if it is one of those."""

    def schedule_length(self, scheduler: Any) -> int | None:
        """How many steps a scheduler is made for, where it says so."""
        return None

    # ---- computing

    @abstractmethod
    def forward_context(self, training: bool) -> AbstractContextManager[Any]:
        """What a hook runs in: autocast as the precision says, and no gradients unless ``training``."""

    # ---- values

    @abstractmethod
    def to_float(self, value: Any) -> float:
        """A tensor of one element as a float; this waits for the device."""

    @abstractmethod
    def describe_tensor(self, value: Any) -> tuple[str, tuple[int, ...]] | None:
        """Type (``'bool'``, ``'int64'``, ``'float16'``, …) and shape of a tensor; None if it is no tensor."""

    @abstractmethod
    def keep_tensor(self, value: Any) -> Any:
        """A copy of a tensor without its graph, made without waiting for the device.

        Of a tensor without axes it may be the number, where reading that waits for nothing.
        """

    @abstractmethod
    def stack(self, values: Sequence[Any], dtype: str) -> Any:
        """One tensor on the device: ``values`` along a new first axis.

        They are one NumPy array, or a sequence of tensors, arrays and numbers of one shape.
        """

    @abstractmethod
    def cast(self, tensor: Any, dtype: str) -> Any:
        """A tensor with its elements of another type."""

    @abstractmethod
    def concatenate(self, tensors: Sequence[Any]) -> Any:
        """One tensor of several of one type, along their first axis."""

    @abstractmethod
    def mean(self, tensor: Any) -> float:
        """The mean of all elements, summed in float64."""

    # ---- state

    @abstractmethod
    def model_state(self, model: Any) -> dict[str, Array]:
        """All parameters and buffers of an unwrapped model that it would save, copied, by path; what is tied is one."""

    def model_layout(self, model: Any) -> Mapping[str, Array]:
        """What ``model_state`` gives, of which only types and shapes are looked at: the data may be left out."""
        return self.model_state(model)

    def layout_when_loaded(self, model: Any, state: Mapping[str, Array]) -> Mapping[str, Array] | None:
        """The layout of a copy of the model that has loaded the state in the framework's own way; None if it can't."""
        return None

    @abstractmethod
    def load_model_state(self, model: Any, state: Mapping[str, Array]) -> None:
        """Puts such a state, known to fit now or as ``layout_when_loaded`` says, into a model."""

    @abstractmethod
    def optimizer_state(self, optimizer: Any, names: Mapping[int, str]) -> Any:
        """The state of an optimizer, copied, as a tree in which parameters go by ``names[id(parameter)]``."""

    @abstractmethod
    def load_optimizer_state(self, optimizer: Any, names: Mapping[int, str], state: Any) -> None:
        """Puts such a state into an optimizer, which may keep the memory of its arrays: it is used up.

        Raises:
            CheckpointError: the state doesn't fit; the message lists the differences, and nothing was changed.
        """

    @abstractmethod
    def scheduler_state(self, scheduler: Any) -> Any:
        """The state of a scheduler, as a tree."""

    @abstractmethod
    def load_scheduler_state(self, scheduler: Any, state: Any) -> None:
        """Puts such a state into a scheduler, which may keep the memory of its arrays: it is used up."""

    @abstractmethod
    def tensor_state(self, tensor: Any) -> Array:
        """A tensor as plain data, copied."""

    @abstractmethod
    def tensor_from_state(self, array: Array, like: Any = None, *, host: bool = False) -> Any:
        """A new tensor from plain data, where the tensor ``like`` is, or else on the device, or with ``host`` a CPU."""

    def own_state(self, value: Any) -> Any:
        """What a model or component keeps beside its ``state_dict``, by the framework's ways; None if nothing."""
        return None

    def load_own_state(self, value: Any, state: Any) -> None:
        """Puts such a state in place."""
        return None

    # ---- the rest

    @abstractmethod
    def open_tracker(self, name: str, folder: Path) -> Tracker:
        """Makes a viewer's writer, a ``LocalTracker`` where it can; ``name`` is one of ``trackers``.

        Nothing is written before there is a point, and no file of the user's in the folder is touched.

        Raises:
            SetupError: the viewer's package is not installed.
        """

    @abstractmethod
    def free_memory(self) -> None:
        """Gives memory that the framework has cached back to the device."""

"""What ``get_models`` gives in several processes: a stand-in for the user's model, whose gradients are exchanged.

The stand-in is the model to whoever looks at it: every attribute, method and operator is the model's own, so that one
script runs in one process and in several. A framework's wrapper is different: it knows a model's ``forward`` alone,
and what is computed in any other way (by another method, by a part of it, in several calls) is not exchanged. Here
an exchange is made ready right before the backward pass, for whatever was computed by then.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Generic, TypeVar
from weakref import ReferenceType, ref

from dowdyboy_core._errors import SetupError

_Kind = TypeVar("_Kind", bound="Replica")
_Exchange = TypeVar("_Exchange", bound="Exchange")


class Exchange(ABC):
    """The exchange of one model's gradients: of which parameters, and when.

    Attributes:
        model: the user's model.
        names: paths of the parameters whose gradients are exchanged, as they were called when that was agreed upon.
        parameters: those parameters, in the order of the names.
        find_unused: whether some of them may get no gradient in a step.
        training: whether the trainer is training; in an evaluation the processes may have different numbers of batches.
        synchronised: False within a window of accumulation.
    """

    def __init__(self, model: Any, find_unused: bool) -> None:
        self.model = model
        self.find_unused = find_unused
        self.training = True
        self.synchronised = True
        self.names: list[str] = []
        self.parameters: list[Any] = []
        self._others: list[tuple[str, Any]] = []
        self._used = False
        self._touched = 0  # since the last backward pass: a call of the model counts 1, anything else more

    # ---- what a framework brings

    @abstractmethod
    def named_parameters(self) -> Iterable[tuple[str, Any]]:
        """The parameters of the model with their paths."""

    @abstractmethod
    def wants_gradient(self, parameter: Any) -> bool:
        """Whether a parameter is trained."""

    @abstractmethod
    def set_trained(self, parameter: Any, trained: bool) -> None:
        """Has a parameter trained, or not."""

    @abstractmethod
    def is_recording(self) -> bool:
        """Whether operations are recorded for differentiation right now."""

    @abstractmethod
    def connect(self) -> None:
        """Has the gradients of ``parameters`` exchanged from here on, and no others; in all processes alike."""

    @abstractmethod
    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Computes the model, ready for a backward pass that the trainer is not asked for."""

    @abstractmethod
    def prepare_backward(self, loss: Any) -> None:
        """Makes the exchange ready for the backward pass of a loss that is about to begin."""

    def attributes(self) -> Mapping[str, Any]:
        """What a wrapper of the framework's has besides the attributes of its model, for programs written for that."""
        return {}

    # ---- the rest is the same for all

    def follow(self) -> None:
        """Exchanges the gradients of those parameters that are trained by now; in all processes alike.

        A model that is wholly frozen keeps what it has: there is nothing to exchange until it is thawed, as the models
        of an adversarial training are in turn. So does a parameter that is frozen where some may go without gradient.
        """
        found = list(self.named_parameters())
        before = {id(item) for item in self.parameters}
        trained = {id(item) for _, item in found if self.wants_gradient(item)}
        if self.find_unused:
            trained |= before & {id(item) for _, item in found}
        if trained and (trained != before or not self.parameters):
            self.names = [path for path, item in found if id(item) in trained]
            self.parameters = [item for _, item in found if id(item) in trained]
            self._connect_all()
        exchanged = {id(item) for item in self.parameters}
        self._others = [(path, item) for path, item in found if id(item) not in exchanged]

    def _connect_all(self) -> None:
        """Frameworks take those parameters that are trained right now: so all are, for a moment."""
        frozen = [item for item in self.parameters if not self.wants_gradient(item)]
        for item in frozen:
            self.set_trained(item, True)
        try:
            self.connect()
        finally:
            for item in frozen:
                self.set_trained(item, False)

    def touch(self) -> None:
        """Notes that something of the model was handed out, by which gradients may come."""
        self._used = True
        self._touched += 2

    def call(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """Computes the model; evaluation is each process's own affair."""
        if not (self._is_training() and self.is_recording()):
            return self.model(*inputs, **named)
        if not self._is_trained():
            self.touch()
            return self.model(*inputs, **named)
        self._used = True
        self._touched += 1
        return self.forward(*inputs, **named)

    def before_backward(self, loss: Any) -> bool:
        """Makes ready for the backward pass of a loss.

        Returns:
            Whether gradients are exchanged in it.

        Raises:
            SetupError: parameters were frozen or thawed since the processes agreed on what they exchange.
        """
        touched, self._touched = self._touched, 0
        if not (self._used and self._is_training()):
            return False
        self._check_trained()
        if not (self.synchronised and self._is_trained()):
            return False
        if touched != 1 or self.find_unused:  # else the one call of the model has done it
            self.prepare_backward(loss)
        return True

    def _is_training(self) -> bool:
        return self.training or bool(self.model.training)

    def _is_trained(self) -> bool:
        return any(map(self.wants_gradient, self.parameters))

    def _check_trained(self) -> None:
        thawed = [path for path, item in self._others if self.wants_gradient(item)]
        if thawed:
            raise SetupError(
                f"{_list_paths(thawed)} began to be trained within an epoch, when the processes had agreed on the "
                "gradients that they exchange. Unfreeze in on_epoch_end, or before fit: the next epoch trains it, in "
                "all processes."
            )
        if self.find_unused:
            return
        frozen = [path for path, item in zip(self.names, self.parameters, strict=True) if not self.wants_gradient(item)]
        if frozen and len(frozen) < len(self.names):
            raise SetupError(
                f"{_list_paths(frozen)} was frozen within an epoch, when the processes had agreed on the gradients "
                "that they exchange. Freeze in on_epoch_end, or before fit; or set find_unused_parameters=True to do "
                "it anywhere."
            )

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Keeps gradients in this process for the time of the context."""
        before, self.synchronised = self.synchronised, False
        try:
            yield
        finally:
            self.synchronised = before


class Replica:
    """Comes before a framework's module class in that of a stand-in; ``replicate`` makes one."""

    def __getattribute__(self, name: str) -> Any:
        exchange = exchange_of(self)
        try:
            value = getattr(exchange.model, name)
        except AttributeError:
            if name in exchange.attributes():
                return exchange.attributes()[name]
            raise
        exchange.touch()
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(exchange_of(self).model, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(exchange_of(self).model, name)

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        return exchange_of(self).call(inputs, named)

    def __dir__(self) -> list[str]:
        return dir(exchange_of(self).model)

    def __repr__(self) -> str:
        return repr(exchange_of(self).model)


def replicate(kind: type[_Kind], base: type, exchange: Exchange) -> _Kind:
    """A stand-in for the model of an exchange.

    Args:
        kind: the stand-in's class, made of ``Replica`` and ``base``.
        base: the framework's module class.
        exchange: the exchange, which has not agreed on anything yet.
    """
    # Python looks operators up in the class alone: len(model), model[0], with model.
    names = {name for name in dir(type(exchange.model)) if name.startswith("__") and not hasattr(base, name)}
    operators = {name: _operator(name) for name in names if inspect.isfunction(getattr(type(exchange.model), name))}
    made: _Kind = object.__new__(type(kind.__name__, (kind,), {**operators, "__module__": kind.__module__}))
    object.__setattr__(made, _PLACE, exchange)
    exchange.follow()
    return made


_PLACE = "_dowdyboy_exchange"


def exchange_of(replica: Any) -> Exchange:
    """The exchange behind a stand-in."""
    found: Exchange = object.__getattribute__(replica, _PLACE)
    return found


def exchanges_of(models: Iterable[Any]) -> list[Exchange]:
    """The exchanges behind those of some models that are stand-ins."""
    return [exchange_of(model) for model in models if issubclass(type(model), Replica)]


def unwrap(model: Any) -> Any:
    """The model behind a stand-in; any other as it is."""
    return exchange_of(model).model if issubclass(type(model), Replica) else model


class Exchanges(Generic[_Exchange]):
    """The exchanges of a backend's models, in the order in which they were made, as long as their stand-ins live."""

    def __init__(self) -> None:
        self._made: list[ReferenceType[_Exchange]] = []

    def add(self, exchange: _Exchange) -> None:
        """Takes one more."""
        self._made = [*(made for made in self._made if made() is not None), ref(exchange)]

    def before_backward(self, loss: Any) -> list[_Exchange]:
        """Makes them ready for the backward pass of a loss, and gives those that exchange gradients in it."""
        return [exchange for made in self._made if (exchange := made()) is not None and exchange.before_backward(loss)]


@contextmanager
def unsynchronised(models: Iterable[Any]) -> Iterator[None]:
    """Keeps the gradients of some models in this process for the time of the context."""
    with ExitStack() as stack:
        for exchange in exchanges_of(models):
            stack.enter_context(exchange.no_sync())
        yield


def _operator(name: str) -> Callable[..., Any]:
    def apply(self: Any, *given: Any, **named: Any) -> Any:
        return getattr(self, name)(*given, **named)

    return apply


def unused_parameters(paths: list[str] | None, process: str = "this process") -> SetupError:
    """The error for parameters that one of several processes left without a gradient; None if nobody knows which."""
    which = "Some parameters" if paths is None else f"The parameters {paths}"
    return SetupError(
        f"{which} got no gradient in a training step of {process}. Set find_unused_parameters=True, or use them in "
        "every step."
    )


def _list_paths(paths: list[str]) -> str:
    """Some parameters by their paths, as the subject of a sentence; only the first of many."""
    shown = ", ".join(repr(path) for path in paths[:5])
    return (
        f"The parameter {shown}"
        if len(paths) == 1
        else f"Each of the {len(paths)} parameters {shown}{', …' if len(paths) > 5 else ''}"
    )

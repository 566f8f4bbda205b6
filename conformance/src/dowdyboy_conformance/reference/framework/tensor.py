"""Tensors that remember how they were computed, and gradients by walking that way back.

An operation on tensors gives a tensor with an *edge* to each input that gradients flow to: the input, and a function
that makes the input's share of the gradient from that of the result. ``backward`` goes over these edges from the last
result to the first.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
_P = ParamSpec("_P")
_R = TypeVar("_R")
Edge = tuple["Tensor", Callable[[Array], Array]]

_recording = True
_numbers = itertools.count()


def quiet(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """A function whose results overflow to inf and NaN without a warning, as in any framework."""

    @functools.wraps(function)
    def wrapped(*args: _P.args, **named: _P.kwargs) -> _R:
        with np.errstate(over="ignore", invalid="ignore"):
            return function(*args, **named)

    return wrapped


class Tensor:
    """An array in a computation.

    Attributes:
        data: the values; never changed in place by the framework, so that what was computed from them stays right.
        trainable: whether ``backward`` leaves a gradient in ``grad``.
        grad: the gradients added up so far, None before the first.
        hook: what a gradient goes through before it is added to ``grad``; None for nothing.
        fresh: whether ``backward`` has added to ``grad`` since someone last set this to False.
        edges: where the gradient goes on to, and how.
        number: grows with every tensor that is made; a result has a larger one than what it was made of.
    """

    def __init__(self, data: ArrayLike, edges: tuple[Edge, ...] = ()) -> None:
        self.data = np.asarray(data)
        self.trainable = False
        self.grad: Array | None = None
        self.hook: Callable[[Array], Array] | None = None
        self.fresh = False
        self.edges = edges
        self.number = next(_numbers)

    @property
    def tracked(self) -> bool:
        """Whether gradients flow to or through it."""
        return self.trainable or bool(self.edges)

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        return self.data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the elements."""
        return self.data.dtype

    @property
    def size(self) -> int:
        """How many elements there are."""
        return self.data.size

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        return f"Tensor({self.data!r})"

    def item(self) -> Any:
        """The one element as a number of Python's."""
        return self.data.item()

    def detach(self) -> Tensor:
        """The values alone."""
        return Tensor(self.data)

    def __add__(self, other: Tensor | float) -> Tensor:
        if not isinstance(other, Tensor):
            return operation(_like(self.data + other, self), (self, lambda gradient: gradient))
        if other.shape != self.shape:
            raise ValueError(f"Tensors of the shapes {self.shape} and {other.shape} can't be added.")
        return operation(self.data + other.data, (self, lambda gradient: gradient), (other, lambda gradient: gradient))

    __radd__ = __add__

    @quiet
    def __mul__(self, factor: float) -> Tensor:
        return operation(_like(self.data * factor, self), (self, lambda gradient: gradient * factor))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Tensor:
        return self * (1 / divisor)

    def __getitem__(self, place: Any) -> Tensor:
        def put_back(gradient: Array) -> Array:
            whole = np.zeros_like(self.data)
            whole[place] = gradient
            return whole

        return operation(self.data[place], (self, put_back))

    def sum(self) -> Tensor:
        """The sum of all elements."""
        return operation(self.data.sum(), (self, lambda gradient: np.full_like(self.data, gradient)))

    @quiet
    def backward(self, factor: float = 1.0) -> None:
        """Adds the gradient of this tensor, times ``factor``, to every trainable tensor that it was computed from."""
        gradients = {self.number: np.full_like(self.data, factor)}
        for tensor in _from_last_to_first(self):
            gradient = gradients.pop(tensor.number)
            if tensor.trainable:
                own = gradient if tensor.hook is None else tensor.hook(gradient)
                tensor.grad = own if tensor.grad is None else tensor.grad + own
                tensor.fresh = True
            for source, share in tensor.edges:
                part = _like(share(gradient), source)
                gradients[source.number] = gradients[source.number] + part if source.number in gradients else part


class Parameter(Tensor):
    """A tensor that belongs to a model and is trained, unless someone freezes it."""

    def __init__(self, data: ArrayLike) -> None:
        super().__init__(data)
        self.trainable = True


def operation(result: ArrayLike, *edges: Edge) -> Tensor:
    """The tensor of a result, with the edges that gradients will take."""
    return Tensor(result, tuple(edge for edge in edges if edge[0].tracked) if _recording else ())


def _like(data: ArrayLike, tensor: Tensor) -> Array:
    """Data in the type of a tensor: a float of Python's must not make float64 of float32."""
    return np.asarray(data, tensor.dtype)


def _from_last_to_first(tensor: Tensor) -> list[Tensor]:
    """All that a tensor was computed from, results before their inputs."""
    found = {tensor.number: tensor}
    ahead = [tensor]
    while ahead:
        for source, _ in ahead.pop().edges:
            if source.number not in found:
                found[source.number] = source
                ahead.append(source)
    return [found[number] for number in sorted(found, reverse=True)]


def is_recording() -> bool:
    """Whether results remember how they were computed."""
    return _recording


@contextmanager
def no_gradients() -> Iterator[None]:
    """Computes without remembering how."""
    global _recording
    before, _recording = _recording, False
    try:
        yield
    finally:
        _recording = before

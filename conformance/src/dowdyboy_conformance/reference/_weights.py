"""Weights of batches: numbers of NumPy, that are never waited for but may be tensors to the trainer all the same."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from dowdyboy_core.backend import Weights

from . import _distributed
from .framework.tensor import Array, Tensor, quiet


class NumpyWeights(Weights):
    """Computes in float64."""

    def __init__(self, world_size: int) -> None:
        self._world_size = world_size

    @contextmanager
    def masked(self, parameters: Sequence[Any], factor: Any) -> Iterator[None]:
        def mask(gradient: Array) -> Array:
            return np.zeros_like(gradient) if _data(factor) == 0 else gradient

        for item in parameters:
            item.hook = mask
        try:
            yield
        finally:
            for item in parameters:
                item.hook = None

    def kept(self, weight: Any) -> Any:
        number = float(weight.item())
        return Tensor(np.float64(number if number >= 0 else math.nan))

    def total(self, numbers: Sequence[Any]) -> Any:
        own = math.fsum(float(_data(item)) for item in numbers)
        whole = sum(_distributed.gather(own)) if self._world_size > 1 else own
        return whole if all(isinstance(item, float) for item in numbers) else Tensor(np.float64(whole))

    @quiet
    def ratio(self, number: Any, divisor: Any, factor: float) -> Any:
        share = super().ratio(_data(number), _data(divisor), factor)
        return share if isinstance(number, float) and isinstance(divisor, float) else Tensor(np.float64(share))

    def power_of_two(self, number: Any, otherwise: Any) -> Any:
        power = super().power_of_two(float(_data(number)), _data(otherwise))
        return power if isinstance(number, float) else Tensor(np.float64(power))

    def times(self, loss: Any, factor: Any) -> Any:
        return loss * float(factor.item()) if factor.item() else _nothing(loss)


def _data(number: Any) -> Any:
    return number.data if isinstance(number, Tensor) else number


def _nothing(loss: Any) -> Any:
    """A zero that the loss has a part in, of which the gradient goes back to where it came from."""
    zero = loss * 0.0
    zero.data = np.zeros_like(zero.data)
    return zero

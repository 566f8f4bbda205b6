"""The little arithmetic that weights of batches need, with numbers that may be on a device and are not read there."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any


class Weights(ABC):
    """Computes with numbers, each of which is a float or, where reading one waits, a tensor that ``kept`` gave.

    What is computed of floats alone is a float; a backend brings what it takes for its tensors.
    """

    @abstractmethod
    def masked(self, parameters: Sequence[Any], factor: Any) -> AbstractContextManager[Any]:
        """What a backward pass runs in whose gradients are to be zero, also those that are NaN, if ``factor`` is 0.

        That is said of what the pass adds to the gradients of these parameters, before other processes see it.
        """

    def kept(self, weight: Any) -> Any:
        """A copy, in float64 and without a graph, of a tensor of one element on a device; NaN if it is below 0."""
        return weight

    def total(self, numbers: Sequence[Any]) -> Any:
        """The sum of all numbers of all processes, the same to the last bit in each of them."""
        return math.fsum(numbers)

    def ratio(self, number: Any, divisor: Any, factor: float) -> Any:
        """``number * factor / divisor``, and 0 where the divisor is 0."""
        return number * factor / divisor if divisor else 0.0

    def power_of_two(self, number: Any, otherwise: Any) -> Any:
        """The largest power of two up to ``number``; ``otherwise`` where that is no positive finite number."""
        return math.ldexp(0.5, math.frexp(number)[1]) if 0 < number < math.inf else otherwise

    def times(self, loss: Any, factor: Any) -> Any:
        """A loss times a tensor, in float32 at least, to be differentiated; 0 where ``factor`` is 0, also of NaN."""
        return loss * factor

"""Mutants of the weights of batches."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

from .mutant import Mutant, caught, change

_JOINED = "test_a_weighted_step_is_that_on_the_joined_batch"


@caught("L-19", _JOINED)
class WeightLeftOut(Mutant):
    """Has all batches count alike."""

    scenario = "weighted"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def split(given: Any) -> Any:
                loss, weight = original(given)
                return loss, None if weight is None else 1.0

            return split

        change(trainer._weighing, "split", make)


@caught("L-19", _JOINED, "test_a_factor_of_all_weights_changes_nothing")
class DividedTwice(Mutant):
    """Divides by the sum of the weights once more."""

    scenario = "weighted"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def ratio(number: Any, divisor: Any, factor: float) -> Any:
                return original(original(number, divisor, factor), divisor, 1.0)

            return ratio

        change(trainer._weighing._weights, "ratio", make)


@caught("W-29", _JOINED)
class WeightsOfOthersIgnored(Mutant):
    """Sums the weights of its own process."""

    scenario = "weighted"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda numbers: math.fsum(float(getattr(item, "data", item)) for item in numbers)

        change(trainer._weighing._weights, "total", make)


@caught("L-20", _JOINED, "test_a_window_without_weight_has_a_gradient_of_zero")
class ZeroWeightPoisons(Mutant):
    """Multiplies by a weight of 0, and leaves NaN what it is."""

    scenario = "weighted"

    def spoil(self, trainer: Any) -> None:
        change(trainer._weighing._weights, "masked", lambda original: lambda *given: nullcontext())


@caught("L-19", "test_a_weight_on_a_device_is_not_read")
class WeightsRead(Mutant):
    """Reads a weight in its step."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._weighing._weights, "kept", lambda original: lambda weight: trainer._backend.to_float(weight))


@caught("L-19", "test_losses_are_multiplied_by_about_the_same_before_backward")
class NoUnit(Mutant):
    """Multiplies the loss by the weight itself."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._weighing._weights, "power_of_two", lambda original: lambda *given: 1.0)


@caught("L-19", "test_a_resumed_run_measures_weights_by_the_same_unit")
class UnitForgotten(Mutant):
    """Begins with another unit when it is resumed."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._weighing, "state", lambda original: dict)


@caught("L-20", "test_a_window_without_weight_has_a_gradient_of_zero")
class LossWithoutWeightTold(Mutant):
    """Takes the NaN of a batch that doesn't count for a fault."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._weighing, "seen", lambda original: lambda loss: loss)


@caught("L-13", "test_a_loss_that_counts_is_looked_at")
class WeightedLossUnseen(Mutant):
    """Looks at no loss that has a weight."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._weighing, "seen", lambda original: lambda loss: 0.0)


@caught("L-19", "test_what_is_no_weight_is_refused")
class AnyWeightTaken(Mutant):
    """Takes weights below 0, and tuples of any length."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda given: (given[0], abs(float(given[1]))) if isinstance(given, tuple) else original(given)

        change(trainer._weighing, "split", make)


@caught("W-29", "test_all_processes_have_weights_or_none")
class WeightsNotCompared(Mutant):
    """Doesn't compare whether there are weights."""

    scenario = "some_only"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def agree(has_weight: bool) -> None:
                trainer._weighing._given = has_weight

            return agree

        change(trainer._weighing, "_agree", make)

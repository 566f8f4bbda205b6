"""Mutants of what happens while a run trains: steps, modes, records, the best value, schedulers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .mutant import Mutant, caught, change, nothing


@caught("N-1", "test_sixty_steps_follow_the_formulas")
@caught("N-2", "test_squared_error_follows_the_formulas")
class NoStep(Mutant):
    """Never updates a parameter."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "step", nothing)


@caught("L-2", "test_gradients_are_cleared_between_windows")
@caught("N-1", "test_sixty_steps_follow_the_formulas")
class NoZeroGrad(Mutant):
    """Never clears the gradients."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "zero_grad", nothing)


@caught("H-4", "test_modes_and_gradients_in_each_hook")
@caught("N-2", "test_dropout_is_off_in_validation")
class NeverEval(Mutant):
    """Leaves the models in training mode."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "set_training", lambda original: lambda model, training: original(model, True))


@caught("H-4", "test_modes_and_gradients_in_each_hook")
class NeverTrainAgain(Mutant):
    """Leaves the models in evaluation mode once they were validated."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda model, training: None if training and trainer.epoch > 1 else original(model, training)

        change(trainer._backend, "set_training", make)


@caught("H-4", "test_modes_and_gradients_in_each_hook")
class GradientsInVal(Mutant):
    """Validates with gradients on."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "forward_context", lambda original: lambda training: original(True))


@caught("R-1", "test_values_are_stacked")
@caught("R-6", "test_records_are_of_one_epoch_and_of_some_batches")
class RecordsReversed(Mutant):
    """Gives the records of an epoch in reverse."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "stack", lambda original: lambda values, dtype: original(list(values)[::-1], dtype))


@caught("R-4", "test_a_record_is_a_copy_without_a_graph")
class RecordsAlias(Mutant):
    """Keeps the recorded tensors themselves, with their graphs."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "keep_tensor", lambda original: lambda value: value)


@caught("R-6", "test_records_are_of_one_epoch_and_of_some_batches")
class RecordsStay(Mutant):
    """Doesn't clear the records after an epoch."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._records, "clear", nothing)


@caught("R-1", "test_arrays_that_lie_in_another_order_are_saved_as_they_are_meant")
class RecordsAsTheyLie(Mutant):
    """Takes the numbers of an array in the order in which they lie in memory."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def check(name: str, value: Any) -> Any:
                lies = np.ravel(value, order="K").reshape(value.shape) if isinstance(value, np.ndarray) else value
                return original(name, lies)

            return check

        change(trainer._records, "_check_array", make)


@caught("R-2", "test_values_are_stacked")
class RecordsNarrow(Mutant):
    """Keeps float64 records as float32."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda values, dtype: original(values, "float32" if dtype == "float64" else dtype)

        change(trainer._backend, "stack", make)


@caught("B-1", "test_the_value_is_the_mean_of_the_record")
class MeanInFloat32(Mutant):
    """Takes the mean of a record in float32."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda tensor: float(np.float32(original(tensor)))

        change(trainer._backend, "mean", make)


@caught("B-2", "test_the_best_epoch")
class LastOfEqualsIsBest(Mutant):
    """Compares with <=."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda value: original(value) or value == trainer._position.best

        change(trainer._saver, "_is_best", make)


@caught("B-3", "test_without_a_finite_value_there_is_no_best")
class NanIsBest(Mutant):
    """Takes NaN and inf for very large numbers, of which one may be the best."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda ep, value: original(ep, value if value is None or math.isfinite(value) else 3e38)

        change(trainer._saver, "note_value", make)


@caught("B-9", "test_a_resumed_fit_knows_the_best_so_far")
class BestForgotten(Mutant):
    """Doesn't take up the best value of a checkpoint."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def load(*args: Any, **named: Any) -> None:
                original(*args, **named)
                trainer._position.best = None

            return load

        change(trainer._saver.resumed, "put_in_place", make)


@caught("L-4", "test_a_clock_scheduler_steps_once_per_epoch")
class SchedulerTwice(Mutant):
    """Steps a scheduler as if there were two processes."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def step(scheduler: Any, value: Any) -> None:
                original(scheduler, value)
                original(scheduler, value)

            return step

        change(trainer._backend, "step_scheduler", make)


@caught("L-5", "test_a_plateau_scheduler_follows_the_value")
class PlateauGetsNan(Mutant):
    """Hands NaN on to a plateau scheduler."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def step(scheduler: Any, value: Any) -> None:
                original(scheduler, math.nan if value is not None and abs(value) > 1e38 else value)

            return step

        change(trainer._backend, "step_scheduler", make)


@caught("O-3", "test_clipping_divides_by_the_norm_plus_a_millionth")
@caught("N-4", "test_long_training_is_that_of_the_reference")
@caught("N-5", "test_a_loop_by_hand_ends_in_the_same_bits")
class ClipsTooMuch(Mutant):
    """Clips to a bound that is smaller by a thousandth."""

    scenario = "long_training"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda optimizer, max_norm: original(optimizer, max_norm * 0.999)

        change(trainer._backend, "clip_gradients", make)


@caught("G-8", "test_tensors_are_read_only_when_something_is_drawn")
class EveryLossRead(Mutant):
    """Reads the loss of each batch."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def backward(loss: Any, factor: float) -> None:
                trainer._backend.to_float(loss)
                original(loss, factor)

            return backward

        change(trainer._backend, "backward", make)


@caught("G-8", "test_tensors_are_read_only_when_something_is_drawn")
class StateReadAtOnce(Mutant):
    """Reads what set_bar_state is given when it is given."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def set_bar_state(values: Any) -> None:
                original({name: trainer._backend.to_float(value) for name, value in values.items()})

            return set_bar_state

        change(trainer, "set_bar_state", make)

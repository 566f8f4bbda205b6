"""Mutants of the order of a run, of its schedulers, of stepping by hand, and of records."""

from __future__ import annotations

import dataclasses
import itertools
from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

from dowdyboy_conformance._inside import inside
from dowdyboy_conformance.reference.framework.tensor import Tensor

from .mutant import Mutant, caught, change

if TYPE_CHECKING:
    from pytest import MonkeyPatch

_records = inside("_run.records")


@caught("L-3", "test_validation_keeps_its_interval")
class ValidatesAlways(Mutant):
    """Validates in every epoch, whatever the interval."""

    def spoil(self, trainer: Any) -> None:
        trainer.config = dataclasses.replace(trainer.config, val_interval=1)


@caught("L-3", "test_without_a_val_step_nothing_is_validated")
class ValidatesByTraining(Mutant):
    """Validates with train_step where there is no val_step."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda train, val=None, end=None: original(train, val or train, end)

        change(trainer, "fit", make)


@caught("L-5", "test_the_order_of_events_with_a_plateau_scheduler")
class PlateauAfterTheEnd(Mutant):
    """Steps a plateau scheduler after on_epoch_end."""

    def spoil(self, trainer: Any) -> None:
        waiting: list[Any] = []

        def make_step(original: Any) -> Any:
            def step(scheduler: Any, value: Any) -> None:
                if value is None:
                    original(scheduler, value)
                else:
                    waiting.append(lambda: original(scheduler, value))

            return step

        def make_save(original: Any) -> Any:
            def save(*given: Any) -> None:
                while waiting:
                    waiting.pop()()
                original(*given)

            return save

        change(trainer._backend, "step_scheduler", make_step)
        change(trainer._saver, "end_epoch", make_save)


@caught("L-8", "test_epoch_and_global_step_follow_the_run")
class SecondFitCountsOn(Mutant):
    """Counts the steps of a second fit on from those of the first."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def begin(*given: Any) -> None:
                before = trainer._position.train_step
                original(*given)
                trainer._position.train_step = before

            return begin

        change(trainer._saver, "begin", make)


@caught("L-9", "test_test_counts_from_zero_each_time_and_has_its_own_records")
class StepsOfTestsCountOn(Mutant):
    """Counts the steps of a test on from those of the evaluations before it."""

    def spoil(self, trainer: Any) -> None:
        counter = itertools.count()

        def make(original: Any) -> Any:
            def evaluate(step: Any, bat: Any, bat_idx: int, global_step: int, progress: Any) -> None:
                original(step, bat, bat_idx, next(counter), progress)

            return evaluate

        change(trainer, "_evaluate_batch", make)


# ---- schedulers and steps


@caught("L-4", "test_none_among_the_schedulers")
class AllOrNoSchedulers(Mutant):
    """Steps no scheduler where an optimizer has none."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda: None if None in trainer._parts.schedulers else original()

        change(trainer._schedules, "step_epoch", make)


@caught("L-5", "test_a_plateau_scheduler_follows_the_mean_of_the_record")
class LastOfTheRecord(Mutant):
    """Has the last value of a record decide, and not the mean."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "mean", lambda original: lambda tensor: float(tensor.data[-1]))


@caught("L-6", "test_auto_schedule_can_be_off")
class SchedulesAlways(Mutant):
    """Steps the schedulers although that is left to the script."""

    def spoil(self, trainer: Any) -> None:
        always = dataclasses.replace(trainer.config, auto_schedule=True)
        for part in (trainer._schedules, trainer._following):
            change(part, "_config", lambda original: always)


@caught("O-3", "test_each_optimizer_is_clipped_by_itself")
class ClippedTogether(Mutant):
    """Clips by the norm of the gradients of all optimizers together."""

    def spoil(self, trainer: Any) -> None:
        factors: list[float] = []

        def clip(optimizer: Any, max_norm: float) -> None:
            if optimizer is trainer._parts.optimizers[0]:
                gradients = [item.grad for other in trainer._parts.optimizers for item in other.parameters]
                norm = float(np.sqrt(sum(np.square(gradient).sum() for gradient in gradients)))
                factors[:] = [min(1.0, max_norm / (norm + 1e-6))]
            trainer._backend.scale_gradients(optimizer, factors[0], check=False)

        change(trainer._backend, "clip_gradients", lambda original: clip)


@caught("O-5", "test_two_models_with_two_optimizers")
class AllCleared(Mutant):
    """Clears the gradients of all optimizers where one is to be cleared."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda optimizer: [original(each) for each in trainer._parts.optimizers]

        change(trainer, "zero_grad", make)


@caught("O-6", "test_optimizer_and_scheduler_are_stepped_by_hand")
class NoSchedulerAlone(Mutant):
    """Steps a scheduler only together with an optimizer."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def step(optimizer: Any = None, lr_scheduler: Any = None) -> None:
                if optimizer is not None:
                    original(optimizer, lr_scheduler)

            return step

        change(trainer, "step", make)


@caught("O-8", "test_an_overflow_skips_one_optimizer_and_halves_the_scale")
@caught("W-15", "test_an_overflow_is_one_of_all_processes_and_of_one_optimizer")
class OverflowShared(Mutant):
    """Has every optimizer skip its step when one overflows."""

    scenario = "overflow"

    def spoil(self, trainer: Any) -> None:
        overflowed: list[int] = []

        def make(original: Any) -> Any:
            def scale(optimizer: Any, factor: float, *, check: bool) -> bool:
                finite: bool = original(optimizer, factor, check=check)
                if not finite:
                    overflowed.append(trainer.global_step)
                return finite and trainer.global_step not in overflowed

            return scale

        change(trainer._backend, "scale_gradients", make)


# ---- records


@caught("R-1", "test_tensors_are_stacked")
class OneElementIsANumber(Mutant):
    """Takes a tensor with an axis of one element for a number."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def stack(values: Any, dtype: str) -> Any:
                stacked = original(values, dtype)
                return Tensor(stacked.data[:, 0]) if stacked.shape[1:] == (1,) else stacked

            return stack

        change(trainer._backend, "stack", make)


@caught("R-3", "test_tensors_and_numbers_mix")
class FirstTypeStays(Mutant):
    """Keeps all values of a name in the type of the first."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            def add(self: Any, dtype: str, value: Any) -> None:
                if isinstance(self.values, array):
                    self.values = self.values.tolist()
                original(self, self.dtype, value)

            return add

        change(_records._Column, "add", make, patch)

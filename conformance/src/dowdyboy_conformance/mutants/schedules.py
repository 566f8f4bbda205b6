"""Mutants of schedules that go by optimizer steps, and of the hooks around steps and epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dowdyboy_conformance._inside import inside

from .mutant import Mutant, caught, change, nothing

if TYPE_CHECKING:
    from pytest import MonkeyPatch

_config = inside("_config")


@caught("O-11", "test_schedulers_step_with_their_optimizers")
class StepsByEpochsToo(Mutant):
    """Steps schedulers that go by steps at the end of an epoch as well."""

    def spoil(self, trainer: Any) -> None:
        schedules = trainer._schedules

        def make(original: Any) -> Any:
            def step() -> None:
                original()
                schedules.after([True] * len(trainer._parts.optimizers))

            return step

        change(schedules, "step_epoch", make)


@caught("O-11", "test_a_skipped_step_is_none_of_the_schedule")
class SkippedStepsCount(Mutant):
    """Steps the schedule of an optimizer that skipped its step."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._schedules, "after", lambda original: lambda stepped: original([True] * len(stepped)))


@caught("O-11", "test_a_schedule_goes_on_within_an_epoch")
class ScheduleBeginsAnew(Mutant):
    """Doesn't take up the state of a scheduler."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "load_scheduler_state", nothing)


@caught("O-11", "test_each_optimizer_has_a_schedule_of_its_own_kind")
class OneWayForAll(Mutant):
    """Takes the first word of a list for all schedulers."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def begin() -> None:
                original()
                trainer._schedules._by_step = trainer._schedules._of("step") + trainer._schedules._of("epoch")

            return begin

        change(trainer._schedules, "begin_epoch", make)


@caught("O-11", "test_steps_by_hand_take_the_schedule_along")
class ByHandWithoutSchedule(Mutant):
    """Leaves the schedule where it is when a hook steps."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._schedules, "after_one", nothing)


@caught("O-11", "test_a_schedule_goes_on_as_it_was")
class AnyWayGoesOn(Mutant):
    """Takes up a schedule that went by something else."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(inside("_run.resumed"), "check_schedules", nothing, patch)


@caught("O-12", "test_how_many_steps_a_schedule_gets")
class WindowsUncounted(Mutant):
    """Counts batches where there are windows."""

    def spoil(self, trainer: Any) -> None:
        def steps() -> int | None:
            count = trainer._parts.loaders["train"].count()
            return None if count is None else int(count) * int(trainer.config.epoch)

        change(trainer._schedules, "steps", lambda original: steps)


@caught("O-12", "test_a_schedule_of_another_length_is_told")
class LengthsUntold(Mutant):
    """Says nothing about a schedule of another length."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._schedules, "tell_lengths", nothing)


@caught("H-8", "test_hooks_in_a_resumed_run")
class BeginsAgain(Mutant):
    """Calls on_epoch_begin again where a run goes on within an epoch."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def begin_epoch(*given: Any) -> None:
                trainer._replay._done = 0
                original(*given)

            return begin_epoch

        change(trainer._replay, "begin_epoch", make)


@caught("H-8", "test_hooks_in_a_resumed_run")
class BeginsWithOtherNumbers(Mutant):
    """Puts the random streams of a resumed run in place after on_epoch_begin."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def go_on() -> None:
                if trainer._interlude.phase != "between" or trainer._schedules._by_step:
                    original()

            return go_on

        def make_begin(original: Any) -> Any:
            def begin() -> None:
                original()
                type(trainer._saver.resumed).continue_streams(trainer._saver.resumed)

            return begin

        change(trainer._saver.resumed, "continue_streams", make)
        change(trainer._schedules, "begin_epoch", make_begin)


@caught("H-9", "test_the_hooks_around_epochs_and_steps")
class StepEndsBeforeTheSchedule(Mutant):
    """Has on_step_end come before the schedule has stepped."""

    def spoil(self, trainer: Any) -> None:
        waiting: list[Any] = []

        def make(original: Any) -> Any:
            return lambda stepped: waiting.append(lambda: original(stepped))

        def make_within(original: Any) -> Any:
            def within(*given: Any) -> None:
                while waiting:
                    waiting.pop()()
                original(*given)

            return within

        change(trainer._schedules, "after", make)
        change(trainer._saver, "within_epoch", make_within)


@caught("H-9", "test_the_hooks_around_epochs_and_steps")
class EveryBatchIsAStep(Mutant):
    """Calls on_step_end within windows, too."""

    def spoil(self, trainer: Any) -> None:
        hooks: list[Any] = []

        def make(original: Any) -> Any:
            def train(ep: int, train_step: Any, on_step_end: Any) -> None:
                hooks[:] = [on_step_end]
                original(ep, train_step, None)

            return train

        def make_batch(original: Any) -> Any:
            def batch(*given: Any) -> Any:
                loss = original(*given)
                trainer._position.train_step += 1
                for hook in hooks:
                    hook(trainer, trainer.global_step - 1)
                trainer._position.train_step -= 1
                return loss

            return batch

        change(trainer, "_train", make)
        change(trainer, "_train_batch", make_batch)


@caught("H-8", "test_hooks_that_can_not_be_called")
@caught("H-9", "test_hooks_that_can_not_be_called")
class OldHooksOnly(Mutant):
    """Takes no notice of the hooks that are given by keyword."""

    def spoil(self, trainer: Any) -> None:
        change(trainer, "fit", lambda original: lambda train, val=None, end=None, **hooks: original(train, val, end))


@caught("O-11", "test_what_schedule_by_can_not_be")
class AnyWay(Mutant):
    """Takes anything for schedule_by."""

    def alter(self, patch: MonkeyPatch) -> None:
        patch.setitem(_config._CHECKS, "schedule_by", _config._anything)

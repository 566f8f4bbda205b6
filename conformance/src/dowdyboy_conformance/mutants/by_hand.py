"""Mutants of what ends a fit in time, and of optimizing by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dowdyboy_conformance._inside import inside

from .mutant import Mutant, caught, change, nothing

if TYPE_CHECKING:
    from pytest import MonkeyPatch

_signals = inside("backend.signals")
_closures = inside("_run.closures")
_config = inside("_config")


@caught("L-18", "test_a_run_is_saved_before_its_time_is_up_and_goes_on")
class EndsTooLate(Mutant):
    """Ends a fit when its time has passed."""

    def spoil(self, trainer: Any) -> None:
        deadline = trainer._stopping._deadline

        def late() -> bool:
            return deadline._ends is not None and deadline._clock() > deadline._ends

        change(deadline, "is_over", lambda original: late)


@caught("L-18", "test_a_run_is_saved_before_its_time_is_up_and_goes_on")
class LooksFinished(Mutant):
    """Ends a fit that is not finished with the status of one that is."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_signals, "status_of", lambda original: lambda signum: 0, patch)


@caught("L-18", "test_a_fit_that_is_over_in_time_ends_as_ever")
class NeverFinished(Mutant):
    """Ends a fit that has come to its end in time as one that has not."""

    def spoil(self, trainer: Any) -> None:
        stopping = trainer._stopping

        def make(original: Any) -> Any:
            return lambda: _signals.TIME_IS_UP if stopping._deadline.is_over() else original()

        change(stopping, "at_end", make)


@caught("L-18", "test_a_fit_that_is_over_in_time_ends_as_ever")
class OneDeadlineForAllFits(Mutant):
    """Counts the time from the first fit on."""

    def spoil(self, trainer: Any) -> None:
        deadline = trainer._stopping._deadline

        def make(original: Any) -> Any:
            return lambda: original() if deadline._ends is None else None

        change(deadline, "begin", make)


@caught("L-18", "test_without_checkpoints_the_end_saves_none")
class UnsavedUntold(Mutant):
    """Says that a run is saved which isn't."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._saver, "save_last", lambda original: lambda ep, **changed: True)


@caught("L-18", "test_the_clock_of_the_first_process_decides_for_all")
class AnyClockEnds(Mutant):
    """Ends a fit by the clock of any process."""

    scenario = "deadline"

    def spoil(self, trainer: Any) -> None:
        if trainer.config.stop_after is not None:
            change(trainer._stopping._deadline, "_seconds", lambda original: 45)


@caught("O-16", "test_the_averaged_gradient_is_clamped")
class ClampsFromAboveAlone(Mutant):
    """Leaves gradients below the bound's negative as they are."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def clip(optimizer: Any, bound: float) -> None:
                for parameter in optimizer.parameters:
                    if parameter.grad is not None:
                        parameter.grad = parameter.grad.clip(max=bound)

            return clip

        change(trainer._backend, "clip_gradient_values", make)


@caught("O-16", "test_there_is_one_way_to_clip")
class TwoWaysToClip(Mutant):
    """Takes both ways to clip, and says nothing."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_config.TrainerConfig, "__post_init__", nothing, patch)


@caught("O-17", "test_an_optimizer_steps_with_a_closure")
class ClosuresUnclipped(Mutant):
    """Clips no gradient that is computed by a closure."""

    def spoil(self, trainer: Any) -> None:
        backend = trainer._backend

        def make(original: Any) -> Any:
            def step_with(optimizer: Any, closure: Any) -> None:
                for name in ("clip_gradients", "clip_gradient_values"):
                    change(backend, name, nothing)
                original(optimizer, closure)

            return step_with

        change(backend, "step_with", make)


@caught("O-17", "test_an_optimizer_steps_with_a_closure")
class ClosureStepsUncounted(Mutant):
    """Doesn't count a step with a closure as a step."""

    def spoil(self, trainer: Any) -> None:
        stepper = trainer._stepper

        def make(original: Any) -> Any:
            def step_with(optimizer: Any, closure: Any) -> Any:
                before = stepper.steps
                done = original(optimizer, closure)
                stepper.steps = before
                return done

            return step_with

        change(stepper, "step_with", make)


@caught("O-17", "test_a_closure_is_refused_where_it_cannot_be_had")
class ClosuresForAll(Mutant):
    """Leaves a closure aside that an optimizer doesn't take."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            def stepping(config: Any, backend: Any, stepper: Any, optimizer: Any, closure: Any) -> Any:
                taken = optimizer is None or _closures._refuses(type(optimizer), 1) is None
                return original(config, backend, stepper, optimizer, closure if taken else None)

            return stepping

        change(inside("trainer"), "stepping_by_hand", make, patch)


@caught("O-18", "test_gradients_are_unscaled_once")
class UnscalesTwice(Mutant):
    """Forgets that gradients are unscaled already."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._stepper._unscaled, "note", nothing)


@caught("O-18", "test_an_overflow_that_is_unscaled_skips_the_step")
class OverflowsForgotten(Mutant):
    """Forgets that gradients had overflowed when they were unscaled."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda optimizer, finite: original(optimizer, finite=True)

        change(trainer._stepper._unscaled, "note", make)


@caught("O-18", "test_scaled_gradients_are_not_added_to_unscaled_ones")
class MixesGradients(Mutant):
    """Adds scaled gradients to unscaled ones, and says nothing."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._stepper._unscaled, "note_backward", nothing)

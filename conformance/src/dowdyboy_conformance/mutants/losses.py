"""Mutants of losses that are not finite, and of passes without a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dowdyboy_conformance._inside import inside

from .mutant import Mutant, caught, change, nothing

if TYPE_CHECKING:
    from pytest import MonkeyPatch

_trainer = inside("trainer")


@caught("L-13", "test_a_loss_that_is_not_finite_is_told_once")
class LossesUnseen(Mutant):
    """Never looks at a loss."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._run.losses, "note", nothing)


@caught("L-13", "test_no_step_waits_for_the_device")
class LossesReadAtOnce(Mutant):
    """Reads each loss in its step, whatever it waits for."""

    def spoil(self, trainer: Any) -> None:
        losses = trainer._run.losses
        change(losses, "note", lambda original: lambda *given: (original(*given), losses.check()))


@caught("L-13", "test_a_run_that_stops_for_its_loss_keeps_its_checkpoints")
class StopsTooLate(Mutant):
    """Ends a run for its loss where the epoch ends, and saves until then."""

    def spoil(self, trainer: Any) -> None:
        losses = trainer._run.losses
        kept: list[Any] = []

        def later(original: Any) -> Any:
            return lambda *given: kept.append((trainer.global_step, given))

        def end(original: Any) -> Any:
            def end_epoch(*, last: bool) -> None:
                for step, (loss, closing) in kept:
                    losses._position.train_step, now = step, losses._position.train_step
                    type(losses).note(losses, loss, closing)
                    losses._position.train_step = now
                kept.clear()
                original(last=last)

            return end_epoch

        change(losses, "note", later)
        change(losses, "end_epoch", end)
        change(losses, "check_weights", nothing)


@caught("L-13", "test_weights_that_are_not_finite_are_not_saved")
class SavesAnyWeights(Mutant):
    """Saves weights that are not finite, though the run is to stop for such."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._run.losses, "check_weights", nothing)


@caught("L-13", "test_losses_may_be_ignored")
class NeverIgnores(Mutant):
    """Tells of losses that are to be ignored."""

    def spoil(self, trainer: Any) -> None:
        if trainer.config.nonfinite == "ignore":
            change(trainer._run.losses, "_mode", lambda mode: "warn")


@caught("L-13", "test_a_pass_without_a_batch_is_an_error")
class NoBatchesAreFine(Mutant):
    """Takes an epoch without a batch for one like others."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_trainer, "check_not_empty", nothing, patch)


@caught("P-5", "test_steps_that_fp16_skips_are_in_order")
class ToldOfSkippedSteps(Mutant):
    """Tells of the loss of a step that was skipped."""

    def spoil(self, trainer: Any) -> None:
        scaler = trainer._stepper.scaler

        def make(original: Any) -> Any:
            def update() -> None:
                original()
                scaler.skipped = False

            return update

        change(scaler, "update", make)


@caught("P-5", "test_fp16_without_a_step_is_told")
class SkipsInSilence(Mutant):
    """Doesn't look at the end of an epoch whether there was a step."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._run.losses, "end_epoch", lambda original: lambda *, last: None)

"""Mutants of epochs that are so many steps."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from dowdyboy_conformance._inside import inside

from .mutant import Mutant, caught, change, change_loaders, nothing

if TYPE_CHECKING:
    from pytest import MonkeyPatch

_passes = inside("_run.passes")
_position = inside("_run.position")
_resumed = inside("_run.resumed")
_epochs = inside("_run.epochs")


@caught(
    "L-16",
    "test_an_epoch_is_so_many_steps",
    "test_lists_and_streams_go_on",
    "test_a_period_that_is_cut_short_ends_where_it_is",
)
class EachEpochStartsOver(Mutant):
    """Begins each epoch with the start of a pass."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_position.Position, "place", lambda original: lambda self: (self.epoch + 1, 0), patch)
        change(_passes.Passes, "epoch", _afresh, patch)


def _afresh(original: Any) -> Any:
    def epoch(self: Any, ep: int, start: int = 0) -> Any:
        self.close()
        return original(self, ep, start)

    return epoch


@caught("L-16", "test_it_is_resumed_bitwise")
class PlaceForgotten(Mutant):
    """Resumes with the first pass, wherever the run was."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            return lambda self, places, rank, world_size: original(self, [[1, 0]], rank, world_size)

        change(_position.Position, "take_place", make, patch)


@caught("L-16", "test_another_number_of_steps_is_refused")
class OtherStepsTaken(Mutant):
    """Goes on from a checkpoint of another steps_per_epoch."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_resumed, "check_steps", nothing, patch)


@caught("L-16", "test_schedules_count_the_steps_of_a_period")
class SchedulesCountPasses(Mutant):
    """Takes a pass for an epoch where it counts what a scheduler will get."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_passes.Passes, "count", lambda original: lambda self: self._loader.count(), patch)


@caught("L-17", "test_the_end_of_a_period_closes_the_window")
class WindowsGoOn(Mutant):
    """Reads on beyond the end of an epoch, which then closes no window."""

    def alter(self, patch: MonkeyPatch) -> None:
        trainer = inside("trainer")
        change(trainer, "windows", _unclosed, patch)


def _unclosed(original: Any) -> Any:
    return lambda batches, size: ((bat, closing if closing == size else 0) for bat, closing in original(batches, size))


@caught("D-19", "test_lists_and_streams_go_on")
class FirstPassForEver(Mutant):
    """Reads the first pass again and again."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            return lambda self, number, place, *, compare: original(self, 1, place, compare=compare)

        change(_epochs.Epochs, "one_pass", make, patch)


@caught("D-20", "test_an_endless_sampler_is_read_lazily")
class SamplersDrawnAtOnce(Mutant):
    """Asks a sampler for everything before the first batch, or much of it."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            def asked(start: Any, streams: Any, seed: int) -> Any:
                items = original(start, streams, seed)
                return chain([next(items) for _ in range(1000)], items)

            return asked

        change(_epochs, "asked_lazily", make, patch)


@caught("W-28", "test_passes_are_dealt_out_as_one_sequence")
class ABatchLostBetweenPasses(Mutant):
    """Begins each pass but the first one batch later."""

    scenario = "passes"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda number, batch, *, compare=False: original(number, batch + (not compare), compare=compare)

        change_loaders(trainer, lambda loader: change(loader, "_open", make), "train")


class _Some(int):
    """A number that doesn't look like none at 0."""

    def __bool__(self) -> bool:
        return True


@caught("D-20", "test_an_empty_pass_is_an_error")
class EmptyPassesPassedOver(Mutant):
    """Takes a pass without a batch for one."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            def counting(self: Any, batches: Any, before: int = 0) -> Any:
                yield from original(self, batches, before)
                self.total = _Some(self.total)

            return counting

        change(_passes.Counted, "counting", make, patch)


@caught("A-4", "test_the_loaders_can_be_read")
class LoadersKeptSecret(Mutant):
    """Doesn't give the loader of the training."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(inside("trainer").Trainer, "train_dataloader", lambda original: property(lambda self: None), patch)

"""Mutants of fits that end before their last epoch, and of the best value."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from dowdyboy_conformance._inside import inside

from .mutant import Mutant, caught, change, nothing

if TYPE_CHECKING:
    from pytest import MonkeyPatch

_config = inside("_config")


@caught("L-14", "test_a_fit_ends_in_order")
class CutsNoEpoch(Mutant):
    """Trains an epoch to its end although it is to be the last."""

    def spoil(self, trainer: Any) -> None:
        stopping = trainer._stopping

        def request() -> None:
            stopping._requested = True

        def make(original: Any) -> Any:
            return lambda: original() or stopping._requested

        change(stopping, "request", lambda original: request)
        change(stopping, "ends_after_epoch", make)


@caught("L-14", "test_a_fit_ends_in_order")
class EndsWithoutValidation(Mutant):
    """Leaves validation out where an epoch was cut short."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda ep, step: None if trainer._stopping.ends else original(ep, step)

        change(trainer, "_validate", make)


@caught("L-14", "test_a_stop_is_of_one_fit")
class StopsForGood(Mutant):
    """Ends the next fit, too, where one was ended."""

    def spoil(self, trainer: Any) -> None:
        stopping, ended = trainer._stopping, list[bool]()

        def make(original: Any) -> Any:
            def ends() -> bool:
                ended.append(bool(original()) or any(ended))
                return ended[-1]

            return ends

        change(stopping, "ends_after_epoch", make)


@caught("L-15", "test_a_run_goes_on_after_a_stop")
class CutEpochsGoOn(Mutant):
    """Counts an epoch that was cut short as one that is not over."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def end(ep: int, value: float | None) -> None:
                trainer._position.epoch -= trainer._stopping.ends
                original(ep, value)

            return end

        change(trainer._saver, "end_epoch", make)


@caught("B-11", "test_a_fit_stops_early")
class EqualIsBetter(Mutant):
    """Takes a value that is as good as the best for a better one."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda value: original(value) or value == trainer._position.to_beat

        change(trainer._ending, "_is_better", make)


@caught("B-11", "test_a_fit_stops_early")
class AnyGainCounts(Mutant):
    """Doesn't look at early_stop_delta."""

    def spoil(self, trainer: Any) -> None:
        plain = dataclasses.replace(trainer.config, early_stop_delta=0.0)
        change(trainer._ending, "_config", lambda original: plain)


@caught("B-11", "test_a_fit_stops_early")
class EpochsWithoutAValueCount(Mutant):
    """Counts the epochs that have no value, too."""

    def spoil(self, trainer: Any) -> None:
        change(
            trainer._ending, "note", lambda original: lambda value: original(float("nan") if value is None else value)
        )


@caught("B-11", "test_the_patience_survives_a_resume")
class PatienceForgotten(Mutant):
    """Begins to count anew in each run."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def begin(*given: Any) -> None:
                original(*given)
                trainer._position.since_better = 0

            return begin

        change(trainer._saver, "begin", make)


@caught("B-12", "test_the_best_so_far")
class BestTooLate(Mutant):
    """Knows the best value of an epoch only after on_epoch_end."""

    def spoil(self, trainer: Any) -> None:
        note = trainer._saver.note_value

        def make(original: Any) -> Any:
            def end(ep: int, value: float | None) -> None:
                note(ep, value)
                original(ep, value)

            return end

        change(trainer._saver, "end_epoch", make)
        change(trainer._saver, "note_value", nothing)


@caught("W-27", "test_all_processes_end_where_one_asks")
class OthersDecide(Mutant):
    """Hears of no stop that is asked for in one of several processes."""

    scenario = "ending"

    def spoil(self, trainer: Any) -> None:
        stopping = trainer._stopping
        if trainer.world_size > 1:
            change(stopping, "request", nothing)


@caught("B-11", "test_what_early_stop_can_not_be")
class AnyDelta(Mutant):
    """Takes anything for early_stop_delta."""

    def alter(self, patch: MonkeyPatch) -> None:
        patch.setitem(_config._CHECKS, "early_stop_delta", _config._anything)

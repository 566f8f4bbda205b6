"""Mutants of what is the user's own in a checkpoint, and of what is told at a resume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dowdyboy_conformance._inside import inside

from .mutant import Mutant, caught, change, nothing

if TYPE_CHECKING:
    from pytest import MonkeyPatch


@caught("C-28", "test_state_of_the_users_own_is_kept_within_a_validation")
class OwnStateForgotten(Mutant):
    """Saves the states of the user's objects, and doesn't put them in place."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(inside("_run.own_state"), "load", nothing, patch)


@caught("C-28", "test_a_state_on_one_side_only_is_refused")
class AnyComponents(Mutant):
    """Takes up a checkpoint of other components."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(inside("_run.own_state"), "check", nothing, patch)


@caught("C-29", "test_what_is_trained_comes_back_and_is_told_by_name")
class FlagsForgotten(Mutant):
    """Trains what the script says after a resume."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(inside("_run.frozen"), "restore", nothing, patch)


@caught("B-14", "test_another_value_starts_with_no_best")
class AnyBest(Mutant):
    """Compares with the best of another record."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(inside("_run.saver"), "follows_another", nothing, patch)


@caught("C-30", "test_another_window_is_told_and_begins_afresh")
class OthersUntold(Mutant):
    """Doesn't say that a place means something else."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(inside("_run.saver"), "position_means_another", nothing, patch)


@caught("C-30", "test_another_window_is_told_and_begins_afresh")
class WindowsByTheEpoch(Mutant):
    """Counts windows from the beginning of the epoch, also where a run goes on."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            def windows(batches: Any, size: int) -> Any:
                for place, (batch, closing) in enumerate(original(batches, size)):
                    yield batch, closing if size == 1 else 2 * (place % 2 == 0)

            return windows

        change(inside("trainer"), "windows", make, patch)

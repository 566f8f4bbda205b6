"""Mutants of how many checkpoints are kept, of those that a hook asks for, and of what is saved where one fails."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from dowdyboy_conformance._inside import inside

from .mutant import Mutant, caught, change, nothing

if TYPE_CHECKING:
    from pytest import MonkeyPatch

_checkpoints = inside("_run.checkpoints")


@caught("C-27", "test_the_newest_epochs_are_kept")
class DamagedOnesCount(Mutant):
    """Counts a damaged checkpoint as one that is kept."""

    def alter(self, patch: MonkeyPatch) -> None:
        patch.setattr(_checkpoints, "_has_all", lambda path: True)


@caught("C-27", "test_what_a_killed_run_kept_too_many_of_goes")
class TooManyStay(Mutant):
    """Keeps one epoch more than it should."""

    def spoil(self, trainer: Any) -> None:
        keep = trainer._saver.checkpoints._keep
        change(trainer._saver.checkpoints, "_keep", lambda original: None if keep is None else keep + 1)


@caught("C-27", "test_a_hook_has_the_run_saved_and_resumed")
class SavedAtTheEndOfTheEpoch(Mutant):
    """Saves what a training batch asks for at the end of the epoch only."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._saver.requests, "due", lambda original: lambda: False)


@caught("C-27", "test_what_was_asked_for_stays_and_is_passed_over")
class LabelledOnesGo(Mutant):
    """Keeps the newest one of a label alone."""

    def spoil(self, trainer: Any) -> None:
        folder = trainer._saver.checkpoints

        def make(original: Any) -> Any:
            def save(kind: str, number: int, content: Any) -> Any:
                for path in folder.path.glob(f"{kind}_*") if kind.startswith("chk_") else ():
                    folder._remove(path)
                return original(kind, number, content)

            return save

        change(folder, "save", make)


@caught("C-27", "test_what_is_asked_for_in_validation_is_saved_where_a_signal_stops_the_run")
class ForgottenAtASignal(Mutant):
    """Saves nothing that was asked for where a signal stops the run."""

    def spoil(self, trainer: Any) -> None:
        saver = trainer._saver

        def make(original: Any) -> Any:
            def save_last(*given: Any, **named: Any) -> Any:
                saver.requests.forget()
                return original(*given, **named)

            return save_last

        change(saver, "save_last", make)


@caught("C-27", "test_outside_of_fit_it_is_saved_at_once")
class SavedLater(Mutant):
    """Waits for the next fit where none is under way."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._saver, "save_now", nothing)


@caught("C-27", "test_one_process_or_all_may_ask")
class FirstProcessAlone(Mutant):
    """Hears of what the first process asks for, and of no other's wishes."""

    scenario = "asking"

    def spoil(self, trainer: Any) -> None:
        if trainer.rank:
            change(trainer._saver.requests, "add", lambda original: lambda label: True)


@caught("H-7", "test_what_was_trained_is_saved_where_a_later_hook_fails")
class EpochLost(Mutant):
    """Saves nothing where the end of an epoch fails."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._rescue, "ending", lambda original: lambda *given: nullcontext())


@caught("H-7", "test_what_was_trained_is_saved_where_a_later_hook_fails")
class ValidatedByHalves(Mutant):
    """Saves a validation that fails as it is, with the records of what it has come to."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._records, "cut_back", nothing)


@caught("H-7", "test_where_nothing_is_saved_a_failing_hook_saves_nothing")
class TrainingLost(Mutant):
    """Saves nothing where validation fails."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._rescue, "validation", lambda original: lambda *given: nullcontext())

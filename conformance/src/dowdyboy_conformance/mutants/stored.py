"""Mutants of what can be stored, when that is tried, and what is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dowdyboy_conformance._inside import inside

from .mutant import Mutant, caught, change, nothing

if TYPE_CHECKING:
    from pytest import MonkeyPatch


@caught("C-35", "test_what_can_not_be_stored_is_refused_before_the_first_batch")
class NoTrial(Mutant):
    """Tries the first save only after the first step."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._saver.trial, "before_batches", nothing)


@caught("C-35", "test_what_comes_with_the_first_step_is_refused_after_it")
class OneTrial(Mutant):
    """Tries the first save before the first batch alone."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._saver.trial, "after_step", nothing)


@caught("C-35", "test_the_trial_is_made_twice_and_copies_nothing")
class EndlessTrial(Mutant):
    """Tries the save after every step."""

    def spoil(self, trainer: Any) -> None:
        trial = trainer._saver.trial

        def make(original: Any) -> Any:
            def after_step() -> None:
                trial._after_first = True
                original()

            return after_step

        change(trial, "after_step", make)


@caught("C-28", "test_state_of_the_users_own_is_each_processes_own")
class StateOfTheFirst(Mutant):
    """Keeps of the users' objects what those of the first process have."""

    scenario = "own_state"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def gather(value: Any) -> Any:
                found = original(value)
                own = isinstance(value, dict) and any(str(name).startswith("component_") for name in value)
                return [found[0]] * len(found) if own else found

            return gather

        change(trainer._backend, "gather", make)


@caught("C-36", "test_complex_tensors_and_bytes_come_back_as_what_they_were")
class HalfComplex(Mutant):
    """Takes complex numbers for real ones with an axis more."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            return lambda tag, content: content[1] if tag == "$complex" else original(tag, content)

        change(inside("backend.trees"), "untagged", make, patch)


@caught("C-37", "test_what_was_never_changed_is_left_out")
class AllIsSaved(Mutant):
    """Saves all weights, whatever the setting."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._run.untrained, "leave_out", nothing)


@caught("C-37", "test_what_was_never_changed_is_left_out")
class AnotherBeginning(Mutant):
    """Forgets at a resume what the run began with."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._run.untrained, "take_up", nothing)


@caught("C-37", "test_a_run_that_does_not_know_its_beginning_saves_all")
class BeginsWhereItResumes(Mutant):
    """Takes what a resumed run begins with for what the saved run began with, where the checkpoint doesn't know."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def take_up(snapshot: Any, folder: Any) -> None:
                if "untrained" in snapshot.trees:
                    original(snapshot, folder)

            return take_up

        change(trainer._run.untrained, "take_up", make)


class _Any:
    """Differs from nothing."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


@caught("C-37", "test_another_beginning_is_refused_by_name")
class AnyBeginning(Mutant):
    """Takes what is left out from the models as they are."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            return lambda arrays: dict.fromkeys(original(arrays), _Any())

        change(inside("backend.left_out"), "digests_of", make, patch)

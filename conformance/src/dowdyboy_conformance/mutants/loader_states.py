"""Mutants of loaders that have a state of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dowdyboy_conformance._inside import inside

from .mutant import Mutant, caught, change, nothing

if TYPE_CHECKING:
    from pytest import MonkeyPatch

_loaders, _trainer = inside("backend.loaders"), inside("trainer")


@caught(
    "D-21",
    "test_a_loader_goes_on_from_its_own_state",
    "test_each_process_goes_on_from_its_own_state",
    "test_a_state_that_a_loader_refuses_is_an_error",
)
class LoaderRunOn(Mutant):
    """Reads again what was read before."""

    scenario = "own_states"

    def spoil(self, trainer: Any) -> None:
        change(trainer._run.loader_states, "capture", nothing)


@caught("D-21", "test_a_batch_that_opens_a_window_is_not_ahead_of_the_state")
class StateIsAhead(Mutant):
    """Has the first batch of the next window read when a run is saved."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            def windows(batches: Any, size: int) -> Iterator[Any]:
                ahead = original(batches, size)
                held = [next(ahead)]
                for item in ahead:
                    yield held.pop()
                    held.append(item)
                yield from held

            return windows

        change(_trainer, "windows", make, patch)


@caught("D-21", "test_a_state_that_cannot_be_stored_is_told_and_the_loader_run_on")
class StateLostUntold(Mutant):
    """Says nothing of a state that can't be stored."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._run.loader_states, "_warn", nothing)


@caught("D-21", "test_a_state_that_a_loader_refuses_is_an_error")
class RefusalSwallowed(Mutant):
    """Begins anew where a loader refuses its state."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_loaders, "put_in_place", nothing, patch)


@caught("D-21", "test_a_state_is_stored_within_the_data_alone")
class OneMoreCounted(Mutant):
    """Counts a batch that was not given."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def capture() -> Any:
                found = original()
                return found and {**found, "number": found["number"] + 1}

            return capture

        change(trainer._run.loader_states, "capture", make)

"""Mutants of how tied weights are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dowdyboy_conformance._inside import inside

from .mutant import Mutant, caught, change

if TYPE_CHECKING:
    from pytest import MonkeyPatch


@caught("C-33", "test_tied_weights_are_stored_once_and_resumed")
class EachNameStored(Mutant):
    """Stores what is tied under each of its paths."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(inside("_disk.files"), "stored_once", lambda original: lambda weights: (dict(weights), {}), patch)


@caught("C-33", "test_weights_are_taken_up_under_each_path_however_they_were_stored")
class OneNameLoaded(Mutant):
    """Leaves what is tied under the path alone under which it is stored."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            return lambda file, arrays, noted: arrays

        change(inside("_disk.files"), "under_each_name", make, patch)


@caught("C-33", "test_a_note_that_does_not_fit_is_refused")
class AnyNote(Mutant):
    """Takes a note of names as it is."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            def under_each_name(file: str, arrays: Any, noted: Any) -> Any:
                others = noted.get(file, {}) if isinstance(noted, dict) else {}
                pairs = others.items() if isinstance(others, dict) else ()
                return arrays | {name: arrays[at] for name, at in pairs if at in arrays}

            return under_each_name

        change(inside("_disk.files"), "under_each_name", make, patch)

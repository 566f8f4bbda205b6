"""Mutants that don't leave alone what isn't theirs: files, points that were drawn, and other runs."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from dowdyboy_conformance._inside import inside
from dowdyboy_conformance.reference._tracker import JsonLinesTracker

from .mutant import Mutant, caught, change, nothing

if TYPE_CHECKING:
    from pytest import MonkeyPatch

_curves = inside("_run.curves")
_points = inside("_run.point_file")


@caught("G-12", "test_the_users_files_beside_the_curves_are_left_alone")
@caught("G-5", "test_what_a_viewer_has_read_of_a_killed_run_is_not_drawn_again")
class FolderCleared(Mutant):
    """Removes the folder of the viewer's files to draw all of them anew, as a resumed run once did."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def cut_back(size: int) -> None:
                shutil.rmtree((trainer._run.out_dir / "log"), ignore_errors=True)
                original(size)

            return cut_back

        change(trainer._metrics, "cut_back", make)


@caught("G-12", "test_the_users_files_beside_the_curves_are_left_alone")
class LinkNotFollowed(Mutant):
    """Makes a folder where there is a link."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            def write(self: Any, points: Any) -> None:
                folder = self._path.parent
                if folder.is_symlink():
                    folder.unlink()
                original(self, points)

            return write

        change(JsonLinesTracker, "write", make, patch)


@caught("G-5", "test_what_a_viewer_has_read_of_a_killed_run_is_not_drawn_again")
class DrawnTwice(Mutant):
    """Draws what a killed run had drawn behind its checkpoint once more."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda points, *, again: original(points, again=False)

        change(trainer._metrics._curves, "catch_up", make)


@caught("G-5", "test_what_a_killed_run_has_not_drawn_is_made_up_for")
class NotMadeUpFor(Mutant):
    """Goes on behind what the viewer has, whatever it lacks."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._metrics._curves, "catch_up", nothing)


@caught("G-5", "test_a_run_that_differs_begins_its_curves_anew_and_says_so")
class DifferentRunsMixed(Mutant):
    """Leaves what another run has drawn where it is."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(JsonLinesTracker, "take_back", nothing, patch)


@caught("G-5", "test_a_run_that_differs_begins_its_curves_anew_and_says_so")
class LongerRunStays(Mutant):
    """Leaves what a longer run has drawn beyond the end of this one."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_curves.Curves, "settle", nothing, patch)


@caught("G-9", "test_what_is_logged_before_a_fit_that_may_go_on_is_there_once")
class DroppedBeforeFit(Mutant):
    """Drops what is logged before fit where a run that was killed has left no checkpoint."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._metrics, "_waits", lambda original: False)


@caught("G-11", "test_points_that_are_drawn_anew_keep_their_times")
class TimesForgotten(Mutant):
    """Draws points anew with the time at which that is done."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_points, "_time", nothing, patch)


@caught(
    "C-25",
    "test_a_run_in_a_folder_that_is_in_use_is_refused_before_it_touches_anything",
    "test_trainers_of_one_process_use_a_folder_one_after_the_other",
)
class NoLock(Mutant):
    """Begins a run wherever it is told to."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._run.lock, "take", lambda original: lambda: "")


@caught("C-25", "test_a_run_in_a_folder_that_is_in_use_is_refused_before_it_touches_anything")
class TidiedFirst(Mutant):
    """Clears away what is half-written before it looks whether somebody is writing it."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def take() -> Any:
                trainer._saver.checkpoints.tidy()
                return original()

            return take

        change(trainer._run.lock, "take", make)


@caught("C-25", "test_trainers_of_one_process_use_a_folder_one_after_the_other")
class LockedForEver(Mutant):
    """Doesn't give a folder free at the end of a fit."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._run.lock, "release", nothing)


@caught("C-25", "test_all_processes_learn_that_a_folder_is_in_use")
class NoLockInOneOfSeveral(Mutant):
    """Has the first of several processes begin wherever it is told to."""

    scenario = "in_use"

    def spoil(self, trainer: Any) -> None:
        change(trainer._run.lock, "take", lambda original: lambda: "")

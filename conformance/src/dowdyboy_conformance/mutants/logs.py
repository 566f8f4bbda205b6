"""Mutants of what is written down and shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dowdyboy_conformance._inside import inside
from dowdyboy_conformance.reference._tracker import JsonLinesTracker

from .mutant import Mutant, caught, change

if TYPE_CHECKING:
    from pytest import MonkeyPatch

_points = inside("_run.point_file")
_progress = inside("_run.progress")


@caught("G-2", "test_metrics_are_lines_of_json")
class NanAsItIs(Mutant):
    """Writes NaN and inf as Python does, which is no JSON."""

    def alter(self, patch: MonkeyPatch) -> None:
        def line(point: Any, epoch: int) -> str:
            return json.dumps({"step": point.step, "epoch": epoch, "values": dict(point.values)})

        change(_points, "_line", lambda original: line, patch)


@caught("G-3", "test_the_viewers_own_reader_finds_the_curves")
class DrawnOneLater(Mutant):
    """Draws each point one step too late."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            return lambda self, points: original(self, [point._replace(step=point.step + 1) for point in points])

        change(JsonLinesTracker, "write", make, patch)


@caught("G-13", "test_what_comes_later_is_drawn_behind_what_is_there")
class CurvesBegunAnew(Mutant):
    """Drops what is there when a run begins anew."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._metrics, "go_on", lambda original: lambda: trainer._metrics.cut_back(0))


@caught("G-3", "test_fit_and_test_write_on_in_the_same_curves")
class CurvesBegunAnewEachTime(Mutant):
    """Begins the viewer's files anew after each fit and test."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            def write(self: Any, points: Any) -> None:
                if getattr(self, "closed", False):
                    self._path.unlink()
                self.closed = False
                original(self, points)

            return write

        change(JsonLinesTracker, "write", make, patch)
        change(JsonLinesTracker, "close", lambda original: lambda self: setattr(self, "closed", True), patch)


@caught("G-3", "test_without_a_viewer_there_is_no_folder")
class ViewersFolderMade(Mutant):
    """Makes the viewer's folder although there is to be no viewer."""

    def spoil(self, trainer: Any) -> None:
        (trainer._run.out_dir / "log").mkdir()


@caught("G-7", "test_the_progress_shows_the_loss_and_the_state")
class StateStays(Mutant):
    """Shows what training had shown in validation, too."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def progress(*given: Any) -> Any:
                state = dict(trainer._display.state)
                shown = original(*given)
                trainer._display.state.update(state)
                return shown

            return progress

        change(trainer._display, "begin", make)


@caught("G-7", "test_no_progress_is_shown_where_it_is_off")
class ShownAllTheSame(Mutant):
    """Shows the progress although that is turned off."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            return lambda *given, **named: original(*given, **{**named, "shown": True})

        change(_progress, "show_progress", make, patch)


@caught("H-5", "test_val_step_may_return_anything")
class NothingShown(Mutant):
    """Doesn't show what val_step and test_step give."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def evaluate(*given: Any) -> None:
                original(*given)
                trainer._display.loss = None

            return evaluate

        change(trainer, "_evaluate_batch", make)

"""Curves: lines of metrics.jsonl, points in a viewer, and cutting both back."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dowdyboy_core import Point
from dowdyboy_core._run import metrics as _metrics
from dowdyboy_core._run.metrics import FLUSH_INTERVAL, MetricLog
from dowdyboy_core._run.values import as_number
from dowdyboy_core.backend.points import Drawn


class Viewer:
    """Keeps what it is given, and what those had that were made before it since ``made`` was emptied."""

    made: list[Viewer]

    def __init__(self) -> None:
        self.points: list[tuple[dict[str, float], int]] = list(Viewer.made[-1].points) if Viewer.made else []
        self.times: list[float] = []
        self.closed = False
        self.batches = 0
        self.taken_back: list[int] = []
        Viewer.made.append(self)

    def write(self, points: Sequence[Point]) -> None:
        self.batches += 1
        self.points += [(dict(point.values), point.step) for point in points]
        self.times += [point.time for point in points]

    def form(self, point: Point) -> list[Drawn]:
        return [Drawn(name, point.step, value) for name, value in point.values.items()]

    def mend(self) -> None:
        pass

    def held(self) -> Iterator[Drawn]:
        for values, step in list(self.points):
            for name, value in values.items():
                yield Drawn(name, step, value)

    def take_back(self, count: int) -> None:
        """Of points that have one value each."""
        self.taken_back.append(count)
        del self.points[count:]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def metrics(tmp_path: Path) -> Iterator[MetricLog]:
    Viewer.made = []
    made = MetricLog(tmp_path / "metrics.jsonl", tmp_path / "log", Viewer, pytest.fail)
    yield made
    made.close()


def test_a_line_is_strict_json(metrics: MetricLog, tmp_path: Path) -> None:
    metrics.write({"loss": 0.25, "损失": float("nan"), "x": float("-inf")}, 3, 1)
    metrics.close()
    line = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8")
    strict = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert strict == {"step": 3, "epoch": 1, "values": {"loss": 0.25, "损失": "nan", "x": "-inf"}}
    assert Viewer.made[0].closed


def test_nothing_is_opened_before_the_first_point(metrics: MetricLog, tmp_path: Path) -> None:
    assert metrics.size() == 0
    metrics.close()
    assert not list(tmp_path.iterdir()) and not Viewer.made


def losses_in(folder: Path) -> list[Any]:
    return [json.loads(line)["values"]["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def go_back(metrics: MetricLog, *later: float) -> Viewer:
    """Writes two points, goes back behind the first of them, and gives the viewer that has these two."""
    metrics.write({"loss": float("nan")}, 0, 1)
    size = metrics.size()
    metrics.write({"loss": 2.0}, 1, 1)
    metrics.write({"loss": 4.0}, 2, 1)
    metrics.close()
    metrics.cut_back(size)
    for step, value in enumerate(later, start=1):
        metrics.write({"loss": value}, step, 1)
    metrics.close()
    [viewer] = Viewer.made
    return viewer


def test_what_the_viewer_has_is_not_drawn_again(metrics: MetricLog, tmp_path: Path) -> None:
    viewer = go_back(metrics, 2.0, 4.0, 8.0)
    assert losses_in(tmp_path) == ["nan", 2.0, 4.0, 8.0]
    assert [step for _, step in viewer.points] == [0, 1, 2, 3] and viewer.taken_back == []


@pytest.mark.parametrize(
    ("later", "kept", "said"),
    [
        ((2.0, 5.0, 8.0), 2, "'loss' at step 2 is 5 and was 4"),
        ((2.0,), 2, "it has ended, and 'loss' went on to step 2"),
    ],
)
def test_a_run_that_differs_is_told_and_begins_anew(
    tmp_path: Path, later: tuple[float, ...], kept: int, said: str
) -> None:
    Viewer.made, told = [], []
    metrics = MetricLog(tmp_path / "metrics.jsonl", tmp_path / "log", Viewer, told.append)
    viewer = go_back(metrics, *later)
    metrics.settle()
    assert viewer.taken_back == [kept] and [step for _, step in viewer.points] == list(range(len(later) + 1))
    assert told == [
        f"This run differs from the one whose curves are in {str(tmp_path / 'log')!r}: {said}. From there on they are "
        "drawn anew, in a file of their own. A viewer that is open may show both until it is started again."
    ]


def test_what_comes_after_a_fit_is_not_of_another_run(metrics: MetricLog, tmp_path: Path) -> None:
    metrics.write({"loss": 0.5}, 0, 1)
    size = metrics.size()
    metrics.write({"test": 0.25}, 0, 1)
    metrics.close()
    metrics.cut_back(size)
    metrics.settle()
    metrics.write({"test": 0.25}, 0, 1)
    metrics.write({"test": 0.125}, 1, 1)
    metrics.close()
    [viewer] = Viewer.made
    assert viewer.points == [({"loss": 0.5}, 0), ({"test": 0.25}, 0), ({"test": 0.125}, 1)]


def test_a_run_that_begins_anew_draws_behind_what_is_there_and_what_was_missing(tmp_path: Path) -> None:
    Viewer.made = []
    (tmp_path / "metrics.jsonl").write_bytes(points(0.5, 0.25))
    for _ in range(2):
        metrics = MetricLog(tmp_path / "metrics.jsonl", tmp_path / "log", Viewer, pytest.fail)
        metrics.go_on()
        metrics.write({"loss": 8.0}, 0, 1)
        metrics.close()
    assert [values["loss"] for values, _ in Viewer.made[-1].points] == [0.5, 0.25, 8.0, 8.0]


def test_what_another_has_put_in_between_is_left_to_a_run_that_begins_anew(tmp_path: Path) -> None:
    Viewer.made = []
    (tmp_path / "metrics.jsonl").write_bytes(points(0.5, 0.25, 0.125))
    Viewer().points = [({"loss": 0.5}, 0), ({"strange": 1.0}, 0)]
    metrics = MetricLog(tmp_path / "metrics.jsonl", tmp_path / "log", Viewer, pytest.fail)
    metrics.go_on()
    metrics.write({"loss": 8.0}, 0, 1)
    metrics.close()
    assert Viewer.made[-1].points == [({"loss": 0.5}, 0), ({"strange": 1.0}, 0), ({"loss": 8.0}, 0)]


def test_of_a_point_that_a_kill_has_halved_the_rest_is_drawn(tmp_path: Path) -> None:
    Viewer.made = []
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "epoch": 1, "values": {"a": 1.0, "b": 2.0, "c": 3.0}}\n')
    Viewer().points = [({"a": 1.0, "b": 2.0}, 0)]
    metrics = MetricLog(tmp_path / "metrics.jsonl", tmp_path / "log", Viewer, pytest.fail)
    metrics.cut_back(metrics.size())
    metrics.close()
    assert Viewer.made[-1].points == [({"a": 1.0, "b": 2.0}, 0), ({"c": 3.0}, 0)]


@pytest.mark.parametrize("ended", [False, True], ids=["no checkpoint yet", "a checkpoint"])
def test_what_is_logged_before_a_fit_that_goes_on_is_there_once(tmp_path: Path, ended: bool) -> None:
    Viewer.made, size = [], 0
    for _ in range(3):
        metrics = MetricLog(tmp_path / "metrics.jsonl", tmp_path / "log", Viewer, pytest.fail, waits=True)
        metrics.write({"lr": 0.5}, 0, 0)
        assert metrics._timer is None
        metrics.cut_back(size)
        if not size:
            metrics.write({"loss": 1.0}, 0, 1)
            size = metrics.size() if ended else 0
        metrics.write({"loss": 2.0}, 1, 1)
        metrics.close()
        assert [json.loads(line)["values"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
            {"lr": 0.5},
            {"loss": 1.0},
            {"loss": 2.0},
        ]
        assert [values for values, _ in Viewer.made[-1].points] == [{"lr": 0.5}, {"loss": 1.0}, {"loss": 2.0}]


def test_what_waits_for_a_fit_that_never_comes_is_written_at_the_end(tmp_path: Path) -> None:
    Viewer.made = []
    metrics = MetricLog(tmp_path / "metrics.jsonl", tmp_path / "log", Viewer, pytest.fail, waits=True)
    metrics.write({"loss": 0.5}, 0, 1)
    assert Viewer.made == []
    metrics.close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == points(0.5) and len(Viewer.made[0].points) == 1


class PlainViewer:
    """A viewer that can't tell what it has."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def write(self, points: Sequence[Point]) -> None:
        self.steps += [point.step for point in points]

    def close(self) -> None:
        pass


def test_a_viewer_that_takes_nothing_back_is_told_of_each_new_point(tmp_path: Path) -> None:
    viewer = PlainViewer()
    (tmp_path / "metrics.jsonl").write_bytes(points(0.5, 0.25))
    metrics = MetricLog(tmp_path / "metrics.jsonl", tmp_path / "log", lambda: viewer, pytest.fail)
    metrics.cut_back(len(points(0.5)))
    metrics.write({"loss": 0.25}, 1, 1)
    metrics.close()
    assert viewer.steps == [1]


def points(*losses: float) -> bytes:
    return b"".join(b'{"step": %d, "epoch": 1, "values": {"loss": %r}}\n' % (n, loss) for n, loss in enumerate(losses))


def test_half_a_line_of_a_killed_run_goes(metrics: MetricLog, tmp_path: Path) -> None:
    whole = points(0.5, 0.25)
    (tmp_path / "metrics.jsonl").write_bytes(whole + points(0.125)[:20])
    metrics.write({"loss": 1.0}, 2, 1)
    metrics.close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole + b'{"step": 2, "epoch": 1, "values": {"loss": 1.0}}\n'


@pytest.mark.parametrize(
    "damage", [b"{}\n", b'{"step": 1, "values": {"loss": "x"}}\n', b"\xff\n", b"[" * 100_000 + b"\n"]
)
def test_a_damaged_line_is_told_and_passed_over(tmp_path: Path, damage: bytes) -> None:
    Viewer.made, said = [], []
    made = MetricLog(tmp_path / "metrics.jsonl", tmp_path / "log", Viewer, said.append)
    content = points(0.5) + damage + points(0.25)
    (tmp_path / "metrics.jsonl").write_bytes(content)
    made.cut_back(len(content))
    assert Viewer.made[-1].points == [({"loss": 0.5}, 0), ({"loss": 0.25}, 0)]
    [text] = said
    assert "is damaged: 1 lines, the first of them line 2, can't be read" in text
    made.close()


def test_lines_that_are_lost_are_told(tmp_path: Path) -> None:
    Viewer.made, said = [], []
    made = MetricLog(tmp_path / "metrics.jsonl", tmp_path / "log", Viewer, said.append)
    (tmp_path / "metrics.jsonl").write_bytes(points(0.5))
    made.cut_back(1000)
    (tmp_path / "metrics.jsonl").unlink()
    made.cut_back(1000)
    assert ["49 bytes, and had 1000" in said[0], "0 bytes, and had 1000" in said[1], len(said)] == [True, True, 2]
    made.close()


def test_points_are_written_together_and_within_about_a_second(metrics: MetricLog, tmp_path: Path) -> None:
    path, began = tmp_path / "metrics.jsonl", time.monotonic()
    for step in range(200):
        metrics.write({"loss": 1.0}, step, 1)
    while not (path.exists() and path.read_bytes().count(b"\n") == 200):
        assert time.monotonic() - began < 30
        time.sleep(0.05)
    while len(Viewer.made[0].points) < 200:
        assert time.monotonic() - began < 30
        time.sleep(0.05)
    assert Viewer.made[0].batches <= 2
    metrics.write({"loss": 1.0}, 200, 1)  # for which another timer must have been set
    while path.read_bytes().count(b"\n") < 201:
        assert time.monotonic() - began < 60
        time.sleep(0.05)


KILLED = """
import os, pathlib, signal, sys, time
from dowdyboy_core._run.metrics import MetricLog
log = MetricLog(pathlib.Path(sys.argv[1]), pathlib.Path("nowhere"), lambda: None, print)
began = time.monotonic()
while (passed := time.monotonic() - began) < 3.0:
    log.write({"passed": passed}, 0, 1)
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_loses_about_a_second_of_points(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    newest = max(json.loads(line)["values"]["passed"] for line in path.read_text().splitlines())
    assert newest > 3.0 - 2 * FLUSH_INTERVAL  # one for the timer, and one for a machine that is busy


def test_a_value_is_read_when_it_is_written_and_not_before(tmp_path: Path) -> None:
    read: list[Any] = []

    def to_float(value: Any) -> float:
        read.append(value)
        return 0.5

    made = MetricLog(tmp_path / "metrics.jsonl", tmp_path / "log", lambda: None, pytest.fail, to_float)
    made.write({"loss": "a tensor"}, 0, 1)
    assert read == []
    made.close()
    assert read == ["a tensor"]
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["values"] == {"loss": 0.5}


class Broken(Viewer):
    def write(self, points: Sequence[Point]) -> None:
        raise ValueError("no such curve")


def test_a_viewer_that_fails_ends_its_curves_and_not_the_run(tmp_path: Path) -> None:
    Viewer.made, said = [], []
    made = MetricLog(tmp_path / "metrics.jsonl", tmp_path / "log", Broken, said.append)
    made.write({"loss": 0.5}, 0, 1)
    made.size()
    made.write({"loss": 0.25}, 1, 1)
    made.close()
    [text] = said
    assert "can't be written: no such curve. Its curves stop here" in text
    assert (tmp_path / "metrics.jsonl").read_bytes() == points(0.5, 0.25)


@pytest.mark.parametrize(
    ("value", "number"),
    [(True, 1.0), (2, 2.0), (np.float32(0.5), 0.5), (np.array([3]), 3.0), ("1", None), (None, None), ([1.0], None)],
    ids=repr,
)
def test_what_counts_as_a_number(value: Any, number: float | None) -> None:
    assert as_number(value, lambda item: float(item.item())) == number


class Timers:
    """Stands for ``threading``, whose timers go off when they are told to."""

    Lock = staticmethod(threading.Lock)

    def __init__(self) -> None:
        self.made: list[Any] = []

    def Timer(self, seconds: float, function: Any) -> Any:
        timer = SimpleNamespace(seconds=seconds, go_off=function, daemon=False, state="made")
        timer.start = lambda: setattr(timer, "state", "started")
        timer.cancel = lambda: setattr(timer, "state", "cancelled")
        self.made.append(timer)
        return timer


def test_one_timer_at_a_time_writes_what_has_waited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timers = Timers()
    monkeypatch.setattr(_metrics, "threading", timers)
    log = MetricLog(tmp_path / "metrics.jsonl", tmp_path / "log", lambda: None, pytest.fail)
    for count in (1, 2):
        log.write({"loss": 0.5}, 0, 1)
        log.write({"loss": 0.25}, 1, 1)
        assert len(timers.made) == count
        timer = timers.made[-1]
        assert (timer.seconds, timer.daemon, timer.state) == (FLUSH_INTERVAL, True, "started")
        timer.go_off()
        assert (tmp_path / "metrics.jsonl").read_bytes() == points(0.5, 0.25) * count
    log.write({"loss": 0.5}, 0, 1)
    log.close()
    assert [timer.state for timer in timers.made] == ["cancelled"] * 3


@pytest.mark.parametrize(
    ("left", "times"),
    [
        (lambda path: None, [100.0, 200.0, 400.0]),
        (lambda path: path.unlink(), [300.0, 300.0, 400.0]),
        (lambda path: path.write_bytes(path.read_bytes()[:-10]), [100.0, 300.0, 400.0]),
        (lambda path: path.write_bytes(path.read_bytes() + b"0000000250.000000\n00"), [100.0, 200.0, 400.0]),
        (lambda path: path.write_bytes(b"x" * 36), [300.0, 300.0, 400.0]),
    ],
    ids=["whole", "of an old run", "half", "too many", "damaged"],
)
def test_points_that_are_drawn_anew_have_the_time_at_which_they_were_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: Callable[[Path], Any], times: list[float]
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    for seconds in (100.0, 200.0, 300.0):
        Viewer.made = []  # so that the viewer has nothing
        log = MetricLog(tmp_path / "metrics.jsonl", tmp_path / "log", Viewer, pytest.fail)
        now[0] = seconds
        if seconds == 300.0:
            left(tmp_path / "metrics.times")
            log.cut_back(log.size())
            now[0] = 400.0
        log.write({"loss": 0.5}, 0, 1)
        log.close()
    assert Viewer.made[-1].times == times
    lines = (tmp_path / "metrics.times").read_bytes()
    assert len(lines) == 3 * 18 and lines.endswith(b"0000000400.000000\n") and b"\0" not in lines


def test_without_a_viewer_no_times_are_kept(tmp_path: Path) -> None:
    log = MetricLog(tmp_path / "metrics.jsonl", tmp_path / "log", None, pytest.fail)
    log.write({"loss": 0.5}, 0, 1)
    log.close()
    log.cut_back(0)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def warned_of(tmp_path: Path, open_tracker: Any, use: Callable[[MetricLog], Any]) -> list[str]:
    """What a log says when it is used, with the path of its folder as ``.``."""
    said: list[str] = []
    log = MetricLog(tmp_path / "metrics.jsonl", tmp_path / "log", open_tracker, said.append)
    use(log)
    log.close()
    return [text.replace(str(tmp_path), ".") for text in said]


def test_what_goes_wrong_with_the_viewer_is_told_with_its_folder_and_the_error(tmp_path: Path) -> None:
    def refuse(*_: Any) -> Any:
        raise OSError("it is full")

    closing = SimpleNamespace(write=lambda points: None, close=refuse)
    writing = SimpleNamespace(write=refuse, close=pytest.fail)
    said = (
        "The viewer's files in './log' can't be written: it is full. Its curves stop here; metrics.jsonl has them, and "
        "a resumed run draws them anew."
    )
    for open_tracker in (refuse, lambda: closing, lambda: writing):
        assert warned_of(tmp_path, open_tracker, lambda log: log.write({"loss": 0.5}, 0, 1)) == [said]


def test_what_goes_wrong_with_the_file_is_told_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.mkdir()
    [refused] = warned_of(tmp_path, lambda: None, lambda log: log.write({"loss": 0.5}, 0, 1))
    assert refused.startswith("'./metrics.jsonl' can't be written: ")
    (path / "file").touch()  # so that the folder has some size everywhere
    [not_cut] = warned_of(tmp_path, lambda: None, lambda log: log.cut_back(0))
    assert not_cut.startswith("'./metrics.jsonl' can't be brought back to where the run goes on: ")
    (path / "file").unlink()
    path.rmdir()
    content = points(0.5) + b"{}\n[]\n"
    path.write_bytes(content)
    Viewer.made = []
    assert warned_of(tmp_path, Viewer, lambda log: log.cut_back(len(content) + 1)) == [
        f"'./metrics.jsonl' has {len(content)} bytes, and had {len(content) + 1} when the checkpoint was saved: some "
        "of its lines are lost.",
        "'./metrics.jsonl' is damaged: 2 lines, the first of them line 2, can't be read and are not drawn.",
    ]


def test_a_run_that_begins_anew_cuts_all_and_without_a_file_does_nothing(metrics: MetricLog, tmp_path: Path) -> None:
    metrics.cut_back(0)
    assert Viewer.made == []
    (tmp_path / "metrics.jsonl").write_bytes(points(0.5))
    metrics.cut_back(0)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""
    assert len(Viewer.made) == 1


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (SimpleNamespace(ndim=0), 7.0),
        (SimpleNamespace(size=1), 7.0),
        (SimpleNamespace(numel=lambda: 1), 7.0),
        (SimpleNamespace(ndim=1, size=2), None),
        (SimpleNamespace(ndim=1), None),
        (SimpleNamespace(), None),
    ],
    ids=["no axes", "one element", "of torch", "two elements", "one axis", "nothing"],
)
def test_a_tensor_is_known_by_what_it_has(value: Any, number: float | None) -> None:
    assert as_number(value, lambda item: 7.0) == number


@pytest.mark.parametrize("error", [TypeError, ValueError, RuntimeError])
def test_a_tensor_that_is_no_number_is_none(error: type[Exception]) -> None:
    def refuse(value: Any) -> float:
        raise error("it has two elements")

    assert as_number(SimpleNamespace(numel=lambda: 2), refuse) is None

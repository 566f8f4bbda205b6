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

from dowdyboy_core import Point, _metrics
from dowdyboy_core._metrics import FLUSH_INTERVAL, MetricLog, as_number


class Viewer:
    """Keeps what it is given."""

    made: list[Viewer]

    def __init__(self) -> None:
        self.points: list[tuple[dict[str, float], int]] = []
        self.closed = False
        self.batches = 0
        Viewer.made.append(self)

    def write(self, points: Sequence[Point]) -> None:
        self.batches += 1
        self.points += [(dict(point.values), point.step) for point in points]

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


def test_what_came_later_is_cut_and_drawn_anew(metrics: MetricLog, tmp_path: Path) -> None:
    metrics.write({"loss": float("inf")}, 0, 1)
    size = metrics.size()
    metrics.write({"loss": 2.0}, 1, 1)
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "events").write_text("old")
    metrics.cut_back(size)
    metrics.write({"loss": 3.0}, 1, 1)
    metrics.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["values"]["loss"] for line in lines] == ["inf", 3.0]
    assert not (tmp_path / "log").exists()
    assert Viewer.made[-1].points == [({"loss": float("inf")}, 0), ({"loss": 3.0}, 1)]


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
from dowdyboy_core._metrics import MetricLog
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


def test_points_have_the_time_at_which_they_were_logged_or_drawn_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[float] = []
    viewer = SimpleNamespace(write=lambda drawn: times.extend(point.time for point in drawn), close=lambda: None)
    now = [100.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    log = MetricLog(tmp_path / "metrics.jsonl", tmp_path / "log", lambda: viewer, pytest.fail)
    for seconds in (100.0, 200.0):
        now[0] = seconds
        log.write({"loss": 0.5}, 0, 1)
    now[0] = 300.0
    log.cut_back(log.size())
    log.close()
    assert times == [100.0, 200.0, 300.0, 300.0]


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
    viewer = SimpleNamespace(write=lambda points: None, close=lambda: None)
    assert warned_of(tmp_path, lambda: viewer, lambda log: log.cut_back(len(content) + 1)) == [
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

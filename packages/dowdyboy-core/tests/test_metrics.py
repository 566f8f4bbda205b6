"""Curves: lines of metrics.jsonl, points in a viewer, and cutting both back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_core._metrics import MetricLog, as_number


class Viewer:
    """Keeps what it is given."""

    made: list[Viewer]

    def __init__(self) -> None:
        self.points: list[tuple[dict[str, float], int]] = []
        self.closed = False
        Viewer.made.append(self)

    def write(self, values: Mapping[str, float], step: int) -> None:
        self.points.append((dict(values), step))

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


def test_lines_reach_the_disk_within_a_second(metrics: MetricLog, tmp_path: Path) -> None:
    metrics.write({"loss": 1.0}, 0, 1)  # the first one at once: nothing was flushed for longer than a second
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("value", "number"),
    [(True, 1.0), (2, 2.0), (np.float32(0.5), 0.5), (np.array([3]), 3.0), ("1", None), (None, None), ([1.0], None)],
    ids=repr,
)
def test_what_counts_as_a_number(value: Any, number: float | None) -> None:
    assert as_number(value, lambda item: float(item.item())) == number

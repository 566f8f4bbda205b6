"""How long a fit may take."""

from __future__ import annotations

import pytest

from dowdyboy_core._durations import seconds_of
from dowdyboy_core._run.deadline import Deadline


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7h30m", 27000), ("90m", 5400), ("45s", 45), ("1h", 3600), ("1h2m3s", 3723), ("100h0m1s", 360001), (None, None)],
)
def test_a_time_is_read(text: str | None, seconds: int | None) -> None:
    assert seconds_of("stop_after", text) == seconds


class Clock:
    now = 5.0

    def __call__(self) -> float:
        return self.now


def test_the_last_place_in_time_is_where_it_is_over() -> None:
    clock = Clock()
    deadline = Deadline(100, clock)
    assert not deadline.is_over(), "no fit has begun"
    deadline.begin()
    for _ in range(2):
        clock.now += 30  # of something else, which is no measure
        deadline.begin_phase()
        for _ in range(2):
            clock.now += 2
            assert not deadline.is_over()
    found = []
    for _ in range(4):
        clock.now += 10
        found.append(deadline.is_over())
    assert found == [False, False, True, True], "at 98 seconds, since 108 would be too late"


def test_without_one_a_fit_takes_as_long_as_it_likes() -> None:
    clock = Clock()
    deadline = Deadline(None, clock)
    deadline.begin()
    clock.now = 1e9
    assert not deadline.is_over()

"""Several processes ask one another whether to stop about twice a second, however long their batches take."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dowdyboy_core import _stopping
from dowdyboy_core._stopping import PERIOD, Stopping


class Job:
    """Two processes in step, on a clock of their own.

    Attributes:
        asked: the times at which they asked one another.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.asked: list[float] = []
        monkeypatch.setattr(_stopping.time, "monotonic", lambda: self.now)
        self.stopping = Stopping(self._largest, 0, 2)

    def _largest(self, numbers: Sequence[int]) -> Sequence[int]:
        self.asked.append(self.now)
        return numbers

    def run(self, batches: int, seconds: float, phase: str = "train") -> None:
        """Runs batches of so many seconds each."""
        self.stopping.begin(phase)
        for _ in range(batches):
            self.now += seconds
            assert self.stopping.after_batch(phase) is None


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Job:
    return Job(monkeypatch)


@pytest.mark.parametrize("seconds", [1e-4, 1e-2, 0.4, 0.6, 30.0])
def test_they_ask_about_every_half_a_second_or_after_every_batch(job: Job, seconds: float) -> None:
    job.run(100_000 if seconds < 1e-3 else 5_000, seconds)
    steady = [later - before for before, later in zip(job.asked[14:], job.asked[15:], strict=False)]
    assert len(steady) >= 5
    assert min(steady) > max(seconds, PERIOD / 2) - 1e-6
    assert max(steady) < max(seconds, PERIOD) + 1e-6


def test_a_long_run_after_many_short_ones_is_asked_in_time(job: Job) -> None:
    for _ in range(200):
        job.run(10, 1e-3)
        job.stopping.at_end()
    job.asked.clear()
    began = job.now
    job.run(5_000, 1e-3)
    assert job.asked[0] - began <= 2 * PERIOD
    assert max(later - before for before, later in zip(job.asked, job.asked[1:], strict=False)) <= 2 * PERIOD


def test_what_lies_between_two_phases_is_no_time_of_batches(job: Job) -> None:
    job.run(5_000, 1e-3, "val")
    for _ in range(5):
        job.now += 60  # of training
        job.asked.clear()
        job.run(5_000, 1e-3, "val")
        assert len(job.asked) <= 12, "5 seconds"

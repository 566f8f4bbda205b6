"""Signals that stop a run, and how several processes ask one another for them about twice a second."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from dowdyboy_core._run.stopping import PERIOD, Stopping
from dowdyboy_core.backend import signals as _signals

SIGNALS = [signal.SIGTERM, signal.SIGINT]


class Job:
    """Two processes in step, on a clock of their own.

    Attributes:
        asked: the times at which they asked one another.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.asked: list[float] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
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


class Others:
    """The other processes of a job, by the numbers that they give to one question after another.

    Attributes:
        heard: the numbers that this process gave to each, without the last.
        ends: the last, which says whether the fit is to end.
    """

    def __init__(self, *answers: tuple[int, ...]) -> None:
        self.answers = list(answers)
        self.heard: list[tuple[int, ...]] = []
        self.ends: list[list[int]] = []

    def largest(self, numbers: Sequence[int]) -> list[int]:
        numbers = list(map(int, numbers))
        self.heard.append(tuple(numbers[:3]))
        self.ends.append(numbers[3:])
        answers = [*self.answers.pop(0), 0][:4]
        answers = [*answers, *[0] * (len(numbers) - len(answers))]  # whether to save, of which nobody asks here
        return [max(pair) for pair in zip(numbers, answers, strict=True)]


NOTHING_YET = (0, -1, 1)
"""The answer of a process that got no signal, wants to be asked after its next batch, and goes on."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which stands still; its one item can be changed."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_signal_that_another_process_got_is_told_after_the_same_batch(clock: list[float]) -> None:
    others = Others(NOTHING_YET, (signal.SIGTERM, -1, 1))
    stopping = Stopping(others.largest, 0, 2)
    stopping.begin("val")
    stopping.begin("train")
    assert stopping.after_batch("train") is None
    assert stopping.after_batch("train") == signal.SIGTERM
    assert others.heard == [(0, -2, 1), (0, -2, 1)]
    assert stopping.received is None, "it came to another process"


def test_one_question_a_batch_whoever_asks_it_first(clock: list[float]) -> None:
    others = Others(NOTHING_YET, (signal.SIGINT, -1, 1), NOTHING_YET)
    stopping = Stopping(others.largest, 1, 2)
    for expected in (None, signal.SIGINT, None):
        stopping.ask("train")
        stopping.ask("train")
        assert stopping.after_batch("train") == expected
    assert len(others.heard) == 3


def test_the_process_that_wants_to_be_asked_soonest_decides_for_all(clock: list[float]) -> None:
    others = Others((0, -8, 1), (0, -2, 1), (0, -8, 1))
    stopping = Stopping(others.largest, 0, 2)
    asked_at = []
    for batch in range(1, 6):
        before = len(others.heard)
        stopping.after_batch("train")
        asked_at += [batch] * (len(others.heard) - before)
    assert asked_at == [1, 3, 5]
    assert others.heard == [(0, -2, 1), (0, -4, 1), (0, -4, 1)]


def test_the_interval_of_a_process_at_most_doubles_and_is_never_nothing(clock: list[float]) -> None:
    others = Others(*[(0, -1000, 1)] * 4)
    stopping = Stopping(others.largest, 0, 2)
    for seconds, batches in [(0.0, 1), (0.0, 2), (3.0, 4), (0.0, 1)]:
        stopping.begin("train")
        for _ in range(batches):
            clock[0] += seconds
            stopping.after_batch("train")
    assert [wanted for _, wanted, _ in others.heard] == [-2, -4, -1, -2]


def test_training_and_validation_have_intervals_of_their_own(clock: list[float]) -> None:
    others = Others(*[(0, -4, 1)] * 3)
    stopping = Stopping(others.largest, 0, 2)
    stopping.after_batch("train")
    assert len(others.heard) == 1
    stopping.after_batch("val")
    assert len(others.heard) == 2
    stopping.after_batch("val")
    assert len(others.heard) == 2
    stopping.after_batch("val")
    assert len(others.heard) == 3


def test_at_the_end_of_the_work_every_process_learns_of_a_signal(clock: list[float]) -> None:
    others = Others((signal.SIGINT, -1, 0), (0, -1, 0))
    stopping = Stopping(others.largest, 0, 2)
    assert stopping.at_end() == signal.SIGINT
    assert stopping.at_end() is None
    assert others.heard == [(0, -1, 0), (0, -1, 0)]


def test_a_process_that_has_no_more_batches_answers_until_all_are_done(clock: list[float]) -> None:
    others = Others(NOTHING_YET, NOTHING_YET, (0, -1, 0))
    assert Stopping(others.largest, 0, 2).after_all("val") is None
    assert others.heard == [(0, -1, 0)] * 3


def test_a_process_that_has_no_more_batches_is_told_of_a_signal_at_once(clock: list[float]) -> None:
    others = Others(NOTHING_YET, (signal.SIGTERM, -1, 1))
    assert Stopping(others.largest, 0, 2).after_all("val") == signal.SIGTERM
    assert len(others.heard) == 2


@pytest.fixture
def usual_handlers() -> Iterator[None]:
    """Has signals handled as in a script in a terminal: a shell has what it starts in the background ignore SIGINT."""
    usual: dict[int, Any] = dict.fromkeys(_signals.SIGNALS, signal.SIG_DFL)
    usual[signal.SIGINT] = signal.default_int_handler
    before = {signum: signal.signal(signum, handler) for signum, handler in usual.items()}
    yield
    for signum, handler in before.items():
        signal.signal(signum, signal.SIG_DFL if handler is None else handler)


@pytest.fixture
def ended_by(monkeypatch: pytest.MonkeyPatch, usual_handlers: None) -> list[tuple[int, Any]]:
    """The signals that the process would have ended by, and how they would have been handled."""
    ended: list[tuple[int, Any]] = []
    monkeypatch.setattr(signal, "raise_signal", lambda signum: ended.append((signum, signal.getsignal(signum))))
    return ended


send = signal.raise_signal
"""Sends this process a signal, which it has handled when this returns; kept, since ``ended_by`` replaces it."""


def nobody(numbers: Sequence[int]) -> Sequence[int]:
    raise AssertionError("there is no other process to ask")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_first_signal_is_noted_and_told_and_its_echo_is_not(
    ended_by: list[tuple[int, Any]], capfd: pytest.CaptureFixture[str], signum: int
) -> None:
    stopping = Stopping(nobody, 0, 1)
    assert [stopping.received, stopping.after_batch("train"), stopping.at_end()] == [None, None, None]
    with stopping.listening():
        send(signum)
        send(signal.SIGINT)
        send(signal.SIGTERM)
    assert [stopping.received, stopping.after_batch("train"), stopping.at_end()] == [signum, signum, signum]
    assert stopping.after_all("val") is None
    name = signal.Signals(signum).name
    told = f"\n{name}: stopping after this batch; another one after a second ends the run at once\n"
    assert capfd.readouterr() == ("", told)
    assert ended_by == []


def test_an_echo_that_native_code_has_kept_is_no_second_signal(
    clock: list[float], ended_by: list[tuple[int, Any]]
) -> None:
    stopping = Stopping(nobody, 0, 1)
    with stopping.listening():
        send(signal.SIGTERM)
        clock[0] += 30  # a long batch, after which Python comes to the handler of a signal that came at its beginning
        send(signal.SIGTERM)
    assert ended_by == []


def test_one_process_of_a_job_tells_of_the_signal(usual_handlers: None, capfd: pytest.CaptureFixture[str]) -> None:
    others = Others((0, -1, 1))
    stopping = Stopping(others.largest, 1, 2)
    with stopping.listening():
        send(signal.SIGTERM)
        assert stopping.after_batch("train") == signal.SIGTERM
    [(signum, _, going_on)] = others.heard
    assert (signum, going_on) == (signal.SIGTERM, 1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_without_a_watch_a_signal_a_second_after_the_first_is_as_if_nobody_had_listened(
    clock: list[float], ended_by: list[tuple[int, Any]], monkeypatch: pytest.MonkeyPatch, signum: int
) -> None:
    monkeypatch.setattr(os, "name", "nt")
    stopping = Stopping(nobody, 0, 1)
    with stopping.listening():
        send(signal.SIGTERM)
        clock[0] += 1.1
        send(signum)
        assert ended_by == [(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)]


def test_a_process_forked_from_one_that_listens_ends_by_sigterm_and_leaves_ctrl_c_to_it(
    monkeypatch: pytest.MonkeyPatch, ended_by: list[tuple[int, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    stopping = Stopping(nobody, 0, 1)
    with stopping.listening(), monkeypatch.context() as patched:
        patched.setattr(os, "getpid", lambda: -1)
        stopping._note(signal.SIGINT, None)
        stopping._note(signal.SIGTERM, None)
    assert ended_by == [(signal.SIGTERM, signal.SIG_DFL)]
    assert stopping.received is None
    assert capfd.readouterr() == ("", "")


def test_listening_begins_anew_and_puts_the_handlers_back(usual_handlers: None) -> None:
    stopping = Stopping(nobody, 1, 1)
    usual = [signal.getsignal(signum) for signum in SIGNALS]
    for _ in range(2):
        with stopping.listening():
            assert stopping.received is None
            assert not set(usual) & {signal.getsignal(signum) for signum in SIGNALS}
            send(signal.SIGTERM)
            assert stopping.received == signal.SIGTERM
        assert [signal.getsignal(signum) for signum in SIGNALS] == usual


def test_a_signal_that_is_ignored_or_that_the_user_handles_is_not_noted(usual_handlers: None) -> None:
    got: list[int] = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda signum, frame: got.append(signum))
    stopping = Stopping(nobody, 0, 1)
    with stopping.listening():
        send(signal.SIGINT)
        send(signal.SIGTERM)
    assert [got, stopping.received] == [[signal.SIGTERM], None]


def test_a_handler_that_no_python_code_has_set_gives_way_to_the_default(
    usual_handlers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    was_set: list[tuple[int, Any]] = []
    with monkeypatch.context() as patched:  # Python gives None for such a handler
        patched.setattr(signal, "getsignal", lambda signum: None)
        patched.setattr(signal, "signal", lambda signum, handler: was_set.append((signum, handler)))
        with Stopping(nobody, 0, 1).listening():
            assert [signum for signum, _ in was_set] == [*SIGNALS, signal.SIGHUP]
            was_set.clear()
        assert was_set == [(signum, signal.SIG_DFL) for signum in [*SIGNALS, signal.SIGHUP]]


def test_only_the_main_thread_listens(usual_handlers: None) -> None:
    before = [signal.getsignal(signum) for signum in SIGNALS]
    seen: list[Any] = []

    def listen() -> None:
        with Stopping(nobody, 0, 1).listening():
            seen.extend(signal.getsignal(signum) for signum in SIGNALS)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert seen == before

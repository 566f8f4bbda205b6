"""The progress display: a bar on a terminal, few lines elsewhere, and the state read only when it is drawn."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

import pytest
import tqdm.auto  # noqa: F401  # it chooses its kind of bar when it is imported

from dowdyboy_core._run import progress as _progress
from dowdyboy_core._run.progress import show_progress


class Clock:
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(_progress, "time", clock)
    monkeypatch.setattr("tqdm.std.time", clock.monotonic)
    return clock


class Terminal:
    """Stands in for the one that a person looks at."""

    _END = b"\x1e"

    def __init__(self, columns: int) -> None:
        self.ours, self.theirs = pty.openpty()
        self.resize(columns)
        self.stream: TextIO = open(self.theirs, "w", encoding="utf-8")  # noqa: PTH123

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def shown(self) -> list[str]:
        """What was drawn since it was last asked for, one state of the bar after the other."""
        self.stream.flush()
        os.write(self.theirs, self._END)  # the kernel passes on what is written in its own time, but in order
        text = b""
        while not text.endswith(self._END):
            text += os.read(self.ours, 65536)
        lines = text.removesuffix(self._END).decode().replace("\r", "\n").split("\n")
        return [line for line in lines if line.strip()]

    def close(self) -> None:
        self.stream.close()
        os.close(self.ours)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal(100)
    yield terminal
    terminal.close()


def count_described(total: int | None, steps: int, done: int = 0) -> int:
    calls = 0

    def describe() -> str:
        nonlocal calls
        calls += 1
        return "loss=0.5"

    with show_progress("Epoch 1/2 train", total, describe, done=done) as progress:
        for _ in range(steps):
            progress.advance()
    return calls


def test_without_a_terminal_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert count_described(5000, 5000) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("Epoch 1/2 train 5000/5000 [") and line.endswith("batches/s] loss=0.5")


def shown_plainly(
    clock: Clock,
    capsys: pytest.CaptureFixture[str],
    total: int | None,
    seconds: list[float],
    state: str = "",
    **more: Any,
) -> list[str]:
    """The lines of an epoch whose batches take so many seconds each."""
    with show_progress("Epoch 1/2 train", total, lambda: state, **more) as progress:
        for each in seconds:
            clock.now += each
            progress.advance()
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_a_line_tells_how_far_how_long_and_how_fast(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown_plainly(clock, capsys, 7, [10.0] * 7, "loss=0.5") == [
        "Epoch 1/2 train 3/7 [30.0 s, 40 s left, 0.1 batches/s] loss=0.5",
        "Epoch 1/2 train 6/7 [60.0 s, 10 s left, 0.1 batches/s] loss=0.5",
        "Epoch 1/2 train 7/7 [70.0 s, 0.1 batches/s] loss=0.5",
    ]


def test_without_a_total_nothing_is_said_to_be_left(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown_plainly(clock, capsys, None, [29.75, 0.125, 0.125, 2.0]) == [
        "Epoch 1/2 train 3 [30.0 s, 0.1 batches/s]",
        "Epoch 1/2 train 4 [32.0 s, 0.1 batches/s]",
    ]


def test_what_was_done_before_counts_but_not_for_the_rate(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown_plainly(clock, capsys, 10, [0.25, 0.25], done=6) == [
        "Epoch 1/2 train 8/10 [0.5 s, 0 s left, 4.0 batches/s]"
    ]
    assert shown_plainly(clock, capsys, 10, [1.0], done=6) == ["Epoch 1/2 train 7/10 [1.0 s, 3 s left, 1.0 batches/s]"]


def test_where_nothing_was_done_there_is_no_rate(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown_plainly(clock, capsys, 7, []) == ["Epoch 1/2 train 0/7 [0.0 s, 0.0 batches/s]"]
    with show_progress("x", 7, str):
        clock.now += 5
    assert capsys.readouterr().err == "x 0/7 [5.0 s, 0.0 batches/s]\n"


def test_a_line_is_not_held_back(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "err.txt"
    with path.open("w") as buffered:
        with redirect_stderr(buffered), show_progress("x", 2, str):
            pass
        assert path.read_text() == "x 0/2 [0.0 s, 0.0 batches/s]\n"


def test_a_resumed_epoch_begins_where_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    count_described(10, 4, done=6)
    assert "10/10" in capsys.readouterr().err


def test_nothing_is_shown_if_it_is_off(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("x", 1, lambda: "never", shown=False) as progress:
        progress.advance()
    assert capsys.readouterr() == ("", "")


def test_a_bar_tells_how_far_and_how_fast(clock: Clock, terminal: Terminal) -> None:
    with redirect_stderr(terminal.stream), show_progress("Epoch 1/2 train", 9, lambda: "loss=0.5", done=6) as progress:
        for _ in range(3):
            clock.now += 2
            progress.advance()
    shown = terminal.shown()
    assert [line.split("|")[0] for line in shown] == [
        "Epoch 1/2 train:  67%",
        "Epoch 1/2 train:  78%",
        "Epoch 1/2 train:  89%",
        "Epoch 1/2 train: 100%",
        "Epoch 1/2 train: 100%",
    ]
    assert [line.split("| ")[1] for line in shown] == [
        "6/9 [00:00<?, ?batch/s]",
        "7/9 [00:02<00:04,  2.00s/batch, loss=0.5]",
        "8/9 [00:04<00:02,  2.00s/batch, loss=0.5]",
        "9/9 [00:06<00:00,  2.00s/batch, loss=0.5]",
        "9/9 [00:06<00:00,  2.00s/batch, loss=0.5]",
    ]


def test_slow_batches_are_drawn_one_by_one_after_a_thousand_quick_ones(clock: Clock, terminal: Terminal) -> None:
    with redirect_stderr(terminal.stream), show_progress("x", 1003, str) as progress:
        for _ in range(1000):
            clock.now += 0.001
            progress.advance()
        terminal.shown()
        for done in (1001, 1002, 1003):
            clock.now += 1
            progress.advance()
            [line] = terminal.shown()
            assert f" {done}/1003 [" in line


def test_a_bar_fits_a_terminal_whose_size_changes(clock: Clock, terminal: Terminal) -> None:
    with redirect_stderr(terminal.stream), show_progress("Epoch 1/2 train", 2, str) as progress:
        assert [len(line) for line in terminal.shown()] == [99]
        for columns in (60, 80):
            terminal.resize(columns)
            clock.now += 1
            progress.advance()
            assert [len(line.rstrip()) for line in terminal.shown()] == [columns - 1]


@pytest.mark.parametrize(("columns", "plain"), [(0, True), (1, False), (80, False)])
def test_a_terminal_without_any_width_gets_lines(columns: int, plain: bool, clock: Clock, terminal: Terminal) -> None:
    terminal.resize(columns)
    with redirect_stderr(terminal.stream), show_progress("x", 2, str):
        pass
    assert (terminal.shown() == ["x 0/2 [0.0 s, 0.0 batches/s]"]) is plain


@pytest.mark.parametrize(
    ("shell", "bar"),
    [
        (SimpleNamespace(config={"IPKernelApp": {}}), True),
        (SimpleNamespace(config={"TerminalIPythonApp": {}}), False),
        (None, False),
    ],
    ids=["notebook", "IPython in a terminal", "IPython only imported"],
)
def test_a_notebook_gets_a_bar(
    shell: Any, bar: bool, clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    with show_progress("x", 2, str):
        pass
    shown = capsys.readouterr().err
    assert (shown == "x 0/2 [0.0 s, 0.0 batches/s]\n") is not bar
    assert ("0/2 [00:00<?, ?batch/s" in shown) is bar


IN_A_TERMINAL = """
import sys
from dowdyboy_core.log import print_line
from dowdyboy_core._run.progress import show_progress
calls = 0
def describe():
    global calls
    calls += 1
    return "loss=0.5"
with show_progress("Epoch 1/1 train", 20000, describe) as progress:
    for step in range(20000):
        progress.advance()
        if step % 5000 == 0:
            print_line(f"a line of the run, {step}")
print("described", calls, file=sys.stderr)
"""


def test_on_a_terminal_there_is_a_bar_and_lines_are_whole() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen([sys.executable, "-c", IN_A_TERMINAL], stdout=theirs, stderr=theirs, stdin=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert process.wait() == 0
    text = shown.decode()
    assert "Epoch 1/1 train" in text and "20000/20000" in text and "loss=0.5" in text
    lines = text.replace("\r", "\n").splitlines()
    for step in (0, 5000, 10000, 15000):
        assert any(line.removeprefix("\x1b[A").strip() == f"a line of the run, {step}" for line in lines), text
    [described] = [int(line.split()[1]) for line in lines if line.startswith("described")]
    assert 1 <= described < 200, "the state is read when the bar is drawn, not at each of 20,000 steps"

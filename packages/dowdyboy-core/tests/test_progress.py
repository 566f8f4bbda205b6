"""The progress display: a bar on a terminal, few lines elsewhere, and the state read only when it is drawn."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from dowdyboy_core import _progress
from dowdyboy_core._progress import show_progress


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


def test_now_and_then_there_is_a_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 10))  # ten seconds a look
    monkeypatch.setattr(_progress.time, "monotonic", lambda: float(next(clock)))
    count_described(None, 9)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 4
    assert all(line.startswith("Epoch 1/2 train ") and "left" not in line for line in lines)


def test_a_resumed_epoch_begins_where_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    count_described(10, 4, done=6)
    assert "10/10" in capsys.readouterr().err


def test_nothing_is_shown_if_it_is_off(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("x", 1, lambda: "never", shown=False) as progress:
        progress.advance()
    assert capsys.readouterr() == ("", "")


IN_A_TERMINAL = """
import sys
from dowdyboy_core.log import print_line
from dowdyboy_core._progress import show_progress
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

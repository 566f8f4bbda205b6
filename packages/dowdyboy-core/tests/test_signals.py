"""Which signals stop a run, who handles them, and a second one while native code keeps Python from running."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dowdyboy_core import ConfigError
from dowdyboy_core.backend.signals import SIGNALS, SignalWatch, handled, stopping_signals

TERM, INT, HUP, USR1, USR2 = SIGNALS


@pytest.fixture(autouse=True)
def usual_handlers() -> Iterator[None]:
    """Has signals handled as in a script in a terminal."""
    before = {signum: signal.signal(signum, signal.SIG_DFL) for signum in SIGNALS}
    signal.signal(INT, signal.default_int_handler)
    yield
    for signum, handler in before.items():
        signal.signal(signum, signal.SIG_DFL if handler is None else handler)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, [TERM, INT, HUP]),
        ({"SLURM_JOB_ID": "7"}, [TERM, INT, HUP, USR1, USR2]),
        ({"DOWDYBOY_STOP_SIGNALS": "USR2"}, [TERM, INT, HUP, USR2]),
        ({"DOWDYBOY_STOP_SIGNALS": "sigusr2, USR1"}, [TERM, INT, HUP, USR1, USR2]),
        ({"SLURM_JOB_ID": "7", "DOWDYBOY_STOP_SIGNALS": ""}, [TERM, INT, HUP]),
    ],
    ids=str,
)
def test_signals_that_mean_anything_stop_a_run_where_it_is_known_what_for(
    environment: dict[str, str], expected: list[signal.Signals]
) -> None:
    assert list(stopping_signals(environment)) == expected


def test_a_signal_that_cannot_be_asked_for_is_refused() -> None:
    with pytest.raises(ConfigError, match="DOWDYBOY_STOP_SIGNALS='USR3' is not a list of USR1 and USR2"):
        stopping_signals({"DOWDYBOY_STOP_SIGNALS": "USR3"})


def ignore(signum: int, frame: Any) -> None:
    """A handler that does nothing."""


def test_what_the_user_handles_or_ignores_is_not_taken() -> None:
    signal.signal(TERM, ignore)
    signal.signal(HUP, signal.SIG_IGN)
    with handled(SIGNALS, lambda signum, frame: pytest.fail()) as taken:
        assert taken == [INT, USR1, USR2]
        os.kill(os.getpid(), TERM)
        os.kill(os.getpid(), HUP)
    assert signal.getsignal(TERM) is ignore


@pytest.mark.parametrize("signum", [TERM, HUP, USR1])
def test_what_faulthandler_has_registered_is_not_taken(signum: int, capfd: pytest.CaptureFixture[str]) -> None:
    with open(2, "w", closefd=False) as stderr:
        faulthandler.register(signum, file=stderr)
        try:
            assert signal.getsignal(signum) == signal.SIG_DFL, "Python says so"
            with handled([signum], lambda signum, frame: pytest.fail()) as taken:
                assert taken == []
                os.kill(os.getpid(), signum)
        finally:
            faulthandler.unregister(signum)
    assert "most recent call first" in capfd.readouterr().err


def take_wakeup(descriptor: int) -> int:
    return signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)


def test_the_users_own_wakeup_descriptor_hears_of_signals_too_and_is_put_back() -> None:
    told: list[int] = []
    theirs, mine = socket.socketpair()
    with theirs, mine, handled([USR1, USR2], ignore):
        mine.setblocking(False)
        theirs.settimeout(10)
        before = take_wakeup(mine.fileno())
        try:
            watch = SignalWatch([USR1], told.append)
            os.kill(os.getpid(), USR2)
            assert theirs.recv(1) == bytes([USR2])
            os.kill(os.getpid(), USR1)
            assert theirs.recv(1) == bytes([USR1])
            watch.close()
        finally:
            assert take_wakeup(before) == mine.fileno()
    assert told == [USR1]


def test_a_wakeup_descriptor_that_the_user_sets_meanwhile_stays() -> None:
    theirs, mine = socket.socketpair()
    with theirs, mine:
        mine.setblocking(False)
        before = take_wakeup(-1)
        try:
            watch = SignalWatch([USR1], ignore)  # type: ignore[arg-type]
            take_wakeup(mine.fileno())
            watch.close()
        finally:
            assert take_wakeup(before) == mine.fileno()


def test_a_signal_to_a_forked_process_is_not_taken_for_its_parents() -> None:
    told: list[int] = []
    with handled([USR1], ignore):
        watch = SignalWatch([USR1], told.append)
        child = multiprocessing.get_context("fork").Process(target=signal.raise_signal, args=(USR1,))
        child.start()
        child.join()
        watch.close()
    assert child.exitcode == 0
    assert told == []


def test_no_thread_and_no_descriptor_stays() -> None:
    threads, descriptors = threading.active_count(), len([*Path("/proc/self/fd").iterdir()])
    for _ in range(3):
        SignalWatch([USR1], ignore).close()  # type: ignore[arg-type]
    assert (threading.active_count(), len([*Path("/proc/self/fd").iterdir()])) == (threads, descriptors)


# Native code that doesn't come back: it lets other threads run Python, or not. What follows a signal in the program
# would show that it was ended by something else.
HANGS = """
import ctypes, os, signal, sys, threading, time
from dowdyboy_core._run.stopping import Stopping

mutex = ctypes.create_string_buffer(64)
ctypes.CDLL(None).pthread_mutex_lock(mutex)
stopping = Stopping(list, 0, 1)
with stopping.listening():
    print("ready", flush=True)
    if sys.argv[1] == "keeps the interpreter":
        while stopping.received is None:
            time.sleep(0.01)
        time.sleep(1.5)
        print("keeps it", flush=True)
        ctypes.PyDLL(None).pthread_mutex_lock(mutex)
    ctypes.CDLL(None).pthread_mutex_lock(mutex)
    print("came back", flush=True)
"""


@pytest.mark.parametrize("how", ["lets others run", "keeps the interpreter"])
@pytest.mark.parametrize("signum", [TERM, INT])
def test_a_second_signal_ends_a_process_in_native_code_and_an_echo_does_not(how: str, signum: int) -> None:
    command = [sys.executable, "-c", HANGS, how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signum)
            for _ in range(2):  # as PaddlePaddle's launcher does
                time.sleep(0.2)
                process.send_signal(TERM)
            if how == "keeps the interpreter":
                assert process.stdout.readline() == "keeps it\n"
            else:
                time.sleep(1.2)
            assert process.poll() is None
            process.send_signal(signum)
            out, err = process.communicate(timeout=10)
        finally:
            process.kill()
    assert process.returncode == -signum
    assert out == ""
    assert err == (
        f"\n{signal.Signals(signum).name}: stopping after this batch; another one after a second ends the run at once\n"
    )

"""C: a run that a signal stops is saved where it is, and goes on as if nothing had been."""

from __future__ import annotations

import contextlib
import faulthandler
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

import numpy as np
import pytest
from safetensors.numpy import load_file

from dowdyboy_conformance._problem import build
from dowdyboy_conformance._resuming import Place, assert_equal, go, outcome, read_index, start
from dowdyboy_conformance._together import spec_of
from dowdyboy_conformance.harnesses.harness import Harness

TERM, INT, HUP, USR1, USR2 = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Has signals handled as in a script in a terminal: a shell has what it starts in the background ignore SIGINT."""
    usual: dict[int, Any] = dict.fromkeys([TERM, HUP, USR1, USR2], signal.SIG_DFL)
    usual[INT] = signal.default_int_handler
    before = {signum: signal.signal(signum, handler) for signum, handler in usual.items()}
    yield
    for signum, handler in before.items():
        signal.signal(signum, signal.SIG_DFL if handler is None else handler)


def stop(run: Any, place: Place, signum: int = signal.SIGTERM) -> None:
    """Has a run get a signal, and sees it end with the status that a shell expects."""
    before = signal.getsignal(signum)
    with pytest.raises(SystemExit) as caught:
        go(run, signal_at=place, signum=signum)
    assert caught.value.code == 128 + signum
    assert signal.getsignal(signum) == (signal.SIG_DFL if before is None else before)


@pytest.mark.clause("C-18", "C-19", "C-7")
@pytest.mark.parametrize(
    ("place", "signum", "workers", "stands"),
    [
        (Place("train", 2, 0), TERM, 0, (1, 1, None)),
        (Place("train", 2, 1), INT, 2, (1, 2, None)),
        (Place("train", 2, 2), TERM, 0, (1, 3, None)),
        (Place("val", 1, 0), TERM, 0, (0, 3, 1)),
        (Place("val", 2, 1), INT, 2, (1, 3, 2)),
        (Place("val", 3, 2), TERM, 0, (2, 3, 3)),
        (Place("end", 1), TERM, 0, (1, 1, None)),
        (Place("end", 3), TERM, 0, (3, 0, None)),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, Place) else None,
)
def test_a_stopped_run_is_saved_at_the_next_batch_and_goes_on(
    harness: Harness, tmp_path: Path, place: Place, signum: int, workers: int, stands: tuple[int, int, int | None]
) -> None:
    go(start(harness, tmp_path / "whole"))
    stop(start(harness, tmp_path / "stopped", workers, resume="auto"), place, signum)
    last = max((tmp_path / "stopped" / "checkpoint").glob("last_epoch_*"))
    index = read_index(last)
    assert (index["epoch"], index["batch"], index["val_batch"]) == stands
    resumed = start(harness, tmp_path / "stopped", workers, resume="auto")
    go(resumed)
    assert len(resumed.losses) == 3 * (3 - stands[0]) - stands[1], "it must not train a batch again"
    assert_equal(outcome(tmp_path / "stopped"), outcome(tmp_path / "whole"))


@pytest.mark.clause("C-18", "O-2")
def test_an_open_window_is_closed_before_the_run_stops(harness: Harness, tmp_path: Path) -> None:
    changed = {"batch_size": 2, "accumulate_steps": 4, "epoch": 2}
    go(start(harness, tmp_path / "whole", **changed))
    stop(start(harness, tmp_path / "stopped", **changed), Place("train", 1, 1))
    assert read_index(tmp_path / "stopped/checkpoint/last_epoch_1")["batch"] == 4
    go(start(harness, tmp_path / "stopped", resume="auto", **changed))
    assert_equal(outcome(tmp_path / "stopped", 2), outcome(tmp_path / "whole", 2))


@pytest.mark.clause("C-18")
def test_a_handler_of_the_user_stays_in_force(harness: Harness, tmp_path: Path) -> None:
    got: list[int] = []
    signal.signal(signal.SIGTERM, lambda signum, frame: got.append(signum))
    run = start(harness, tmp_path)
    go(run, signal_at=Place("train", 1, 0))
    assert got == [signal.SIGTERM]
    assert len(run.losses) == 9


@pytest.mark.clause("C-23")
@pytest.mark.parametrize(
    ("signum", "variable"), [(HUP, None), (USR1, "SLURM_JOB_ID=1"), (USR2, "DOWDYBOY_STOP_SIGNALS=USR2")]
)
def test_other_signals_stop_a_run_in_the_same_way(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signum: int, variable: str | None
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if variable is not None:
        monkeypatch.setenv(*variable.split("="))
    stop(start(harness, tmp_path, epoch=1), Place("train", 1, 1), signum)
    assert read_index(tmp_path / "checkpoint/last_epoch_1")["batch"] == 2


@pytest.mark.clause("C-23")
def test_what_others_handle_or_ignore_stops_nothing(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    signal.signal(HUP, signal.SIG_IGN)  # as nohup does
    with (tmp_path / "stacks").open("w") as file:
        faulthandler.register(USR1, file=file)
        try:
            for signum in (HUP, USR1):
                run = start(harness, tmp_path / str(signum), epoch=1)
                go(run, signal_at=Place("train", 1, 0), signum=signum)
                assert len(run.losses) == 3
        finally:
            faulthandler.unregister(USR1)
    assert "most recent call first" in (tmp_path / "stacks").read_text()


@pytest.mark.clause("C-24")
def test_the_users_own_way_of_hearing_of_signals_is_as_before(harness: Harness, tmp_path: Path) -> None:
    heard, written = socket.socketpair()
    with heard, written:
        written.setblocking(False)
        heard.settimeout(30)
        before = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
        try:
            stop(start(harness, tmp_path, epoch=1), Place("train", 1, 0))
            assert heard.recv(1) == bytes([TERM]), "it is told while the run listens"
        finally:
            assert signal.set_wakeup_fd(before) == written.fileno()


@pytest.mark.clause("C-18")
def test_a_second_signal_ends_a_run_that_hangs_in_native_code(harness: Harness, tmp_path: Path) -> None:
    end_a_hung_job(harness, tmp_path, processes=1)


@pytest.mark.clause("W-23")
@pytest.mark.processes(2)
def test_a_second_signal_ends_all_that_spawn_has_started(harness: Harness, tmp_path: Path) -> None:
    end_a_hung_job(harness, tmp_path, processes=2)


def end_a_hung_job(harness: Harness, folder: Path, processes: int) -> None:
    """Sends two signals to a job that waits for ever, and sees that it goes with the second one, all of it."""
    arguments = (spec_of(harness), str(folder), processes)
    call = f"from dowdyboy_conformance.scenarios.runs import hang; hang(*{arguments})"
    started: list[int] = []
    with (folder / "screen").open("w+b") as screen:
        job = subprocess.Popen([sys.executable, "-c", call], stdout=screen, stderr=screen, cwd=folder)
        try:
            latest = time.monotonic() + 90  # for starting up on a busy machine
            while len(list(folder.glob("hangs_*"))) < processes:
                assert job.poll() is None and time.monotonic() < latest, (folder / "screen").read_text()
                time.sleep(0.05)
            started = below(job.pid)
            assert len(started) >= 2 * processes - 1, "each has a worker"
            job.send_signal(signal.SIGTERM)
            time.sleep(1.5)
            assert job.poll() is None, "the first signal waits for the batch"
            assert b"SIGTERM: stopping after this batch" in (folder / "screen").read_bytes()
            job.send_signal(signal.SIGTERM)
            assert job.wait(timeout=5) == -signal.SIGTERM
            latest = time.monotonic() + 5
            while left := [pid for pid in started if is_there(pid)]:
                assert time.monotonic() < latest, left
                time.sleep(0.05)
        finally:
            for pid in {*started, *below(job.pid), job.pid}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            job.wait()


def below(pid: int) -> list[int]:
    """The processes that a process has started, and these again."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
    found: list[int] = []
    layer = {pid}
    while layer:
        layer = {child for child, parent in parents.items() if parent in layer}
        found += layer
    return found


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.clause("C-18", "B-8")
def test_without_checkpoints_a_stopped_run_saves_none(
    harness: Harness, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop(start(harness, tmp_path, enable_save_checkpoint=False), Place("val", 1, 0))
    assert not (tmp_path / "checkpoint").exists()
    assert "NOT saved" in capsys.readouterr().out


@pytest.mark.clause("C-20")
def test_training_goes_on_while_a_checkpoint_is_written(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = build(harness, tmp_path, epoch=2, enable_save_checkpoint=True, optimizer="adam")
    trained_on = threading.Event()
    waits: list[bool] = []
    fsync = os.fsync

    def slow(descriptor: int) -> None:
        if all(waits):  # the disk is slower than two steps of training
            waits.append(trained_on.wait(10))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    saved: dict[str, Any] = {}

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        if (trainer.epoch, bat_idx) == (2, 0):
            saved.update(run.parameters())
        if (trainer.epoch, bat_idx) == (2, 2):
            trained_on.set()
        return run.train_step(trainer, bat, bat_idx, global_step)

    run.trainer.fit(step)
    assert waits and all(waits), "the training waited for the disk"
    found = load_file(tmp_path / "checkpoint" / "epoch_1" / "model_0.safetensors")
    for name, array in saved.items():
        np.testing.assert_array_equal(harness.common(found[name]), array, err_msg=name)


@pytest.mark.clause("C-20")
def test_a_checkpoint_can_be_waited_for(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, enable_save_checkpoint=True, save_steps=1)
    seen: list[list[str]] = []

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        trainer.wait_for_checkpoint()
        seen.append([path.name for path in (tmp_path / "checkpoint").glob("*")])
        return run.train_step(trainer, bat, bat_idx, global_step)

    run.trainer.fit(step)
    assert seen == [[], ["last_epoch_1"], ["last_epoch_1"]]

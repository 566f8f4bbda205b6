"""Jobs of several processes under each framework's own launcher, and under ``spawn``.

A job trains as a loop without any trainer does on the joined batches. Where one process fails, the whole job ends soon,
says why, and leaves nothing running; or it is restarted. What several processes promise beyond that is checked clause
by clause in conformance/.
"""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WORKER = Path(__file__).with_name("distributed_worker.py")
MARK = "DOWDYBOY_TEST_JOB"
SOON = 30.0  # seconds from the failure to the end of the whole job, as the contract says

pytestmark = [pytest.mark.distributed, pytest.mark.parametrize("framework", ["torch", "paddle"])]

# What the user must see on the screen, by how a process ended
RAISED = ("Traceback (most recent call last)", 'raise RuntimeError("it failed on purpose")', "it failed on purpose\n")
EXITED = ("Traceback (most recent call last)", "sys.exit(")
LEFT = ("Traceback (most recent call last)", "to the end of the program. Let every process")  # none has failed


@dataclass
class Job:
    """A job that has ended.

    Attributes:
        code: its exit status.
        shown: what it wrote to its terminal.
        ended: when it had ended, as time.time() says.
    """

    code: int
    shown: str
    ended: float


def launcher(framework: str, out: Path, processes: int, options: tuple[str, ...]) -> list[str]:
    """The words before the script, for each framework's own launcher."""
    if framework == "torch":
        return ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), *options]
    logs = ["--log_dir", str(out / "launcher")]
    return ["-m", "paddle.distributed.launch", "--nproc_per_node", str(processes), *logs, *options]


def run(
    framework: str, scenario: str, out: Path, processes: int, options: tuple[str, ...] = (), **settings: Any
) -> Job:
    """Runs a job to its end, started by the launcher, or by ``spawn`` if that is among the settings."""
    out.mkdir(parents=True, exist_ok=True)
    words = [] if "spawn" in settings else launcher(framework, out, processes, options)
    command = [sys.executable, *words, str(WORKER), framework, scenario, str(out), json.dumps(settings)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", MARK: str(out)}
    environment.pop("CUDA_VISIBLE_DEVICES", None)  # paddle's launcher looks for GPUs if it is there at all
    screen = out / "screen"  # no pipe: whoever is left behind would keep it open
    with screen.open("wb") as file:
        job = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            code = job.wait(timeout=90)
        except subprocess.TimeoutExpired:
            for pid in left_behind(out):
                os.kill(pid, signal.SIGKILL)
            job.wait()
            pytest.fail(f"the job hangs\n{screen.read_text(errors='replace')[-6000:]}")
    return Job(code, screen.read_text(errors="replace"), time.time())


def left_behind(out: Path) -> dict[int, str]:
    """The processes that were started for the job in ``out``, with their command lines."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "environ").read_bytes().split(b"\0") + (process / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it ended while we looked
            continue
        if any(str(out).encode() in word for word in words) and int(process.name) != os.getpid():
            found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return found


def check_end(job: Job, out: Path, said: tuple[str, ...]) -> None:
    """The job failed, said what it should, and was gone soon, with everything that it had started."""
    assert job.code != 0, job.shown
    failed = float((out / "failed").read_text())
    while left := left_behind(out):
        assert time.time() < failed + SOON, f"still running: {left}\n{job.shown}"
        time.sleep(0.1)
    assert job.ended - failed < SOON, job.shown
    for text in said:
        assert text in job.shown, job.shown


def check_named(framework: str, job: Job, rank: int, spawned: bool = False) -> None:
    """The job has told which process failed first, with its traceback."""
    if spawned:
        told = f"Process {rank} failed:\n\nTraceback"
    elif framework == "paddle":
        told = f"Process {rank} failed:\nTraceback"
    else:
        _, _, cause = job.shown.partition("Root Cause (first observed failure):")
        assert re.search(rf"rank +: {rank} ", cause), job.shown
        told = "Traceback (most recent call last)"
        assert told in cause, job.shown
    assert told in job.shown and RAISED[1] in job.shown, job.shown


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the folder of a job of two processes under a framework's launcher, started once for several tests."""

    @functools.cache
    def start(framework: str) -> Path:
        out = tmp_path_factory.mktemp(framework)
        job = run(framework, "train", out, 2, **LONGER, plain=joined_batches(window=2, clip=0.05))
        assert job.code == 0, job.shown
        return out

    return start


# 6 steps an epoch of two processes
LONGER: dict[str, Any] = {"kind": "dropout", "count": 24, "batch_size": 2, "epoch": 3, "save_steps": 2}


def joined_batches(window: int, clip: float | None) -> dict[str, Any]:
    """14 batches of 2: neither a whole number of rounds of 3, nor of windows of 2 rounds."""
    return {"count": 28, "batch_size": 2, "epoch": 2, "accumulate_steps": window, "clip_grad_norm": clip}


def check_joined(ranks: list[dict[str, Any]]) -> None:
    """All processes have come to the weights of one that trains on the joined batches, without a trainer."""
    assert all(rank["got"] == ranks[0]["got"] for rank in ranks)
    for name, expected in ranks[0]["wanted"].items():
        np.testing.assert_allclose(ranks[0]["got"][name], expected, rtol=0, atol=2e-6, err_msg=name)


def test_training_is_that_of_one_process_on_the_joined_batches(
    framework: str, two_processes: Callable[[str], Path]
) -> None:
    out = two_processes(framework)
    check_joined([json.loads((out / f"rank_{rank}.json").read_text())["plain"] for rank in range(2)])


@pytest.mark.long
def test_training_of_three_is_that_of_one_process_on_the_joined_batches(framework: str, tmp_path: Path) -> None:
    job = run(framework, "train", tmp_path, 3, **LONGER, plain=joined_batches(window=2, clip=None))
    assert job.code == 0, job.shown
    check_joined([json.loads((tmp_path / f"rank_{rank}.json").read_text())["plain"] for rank in range(3)])


@pytest.mark.parametrize(
    ("how", "where", "rank", "processes", "said"),
    [
        ("raise", "train_step", 1, 2, RAISED),  # the other one is in backward
        pytest.param("raise", "val_step 1", 0, 3, RAISED, marks=pytest.mark.long),  # the others have no batch left
        ("kill", "train_step", 0, 2, ()),
        pytest.param("exit text", "on_epoch_end", 1, 2, (*EXITED, "it ended on purpose\n"), marks=pytest.mark.long),
        pytest.param(
            *("exit 0", "test_step", 1, 2, (*EXITED, "A hook called sys.exit in one of several processes")),
            marks=pytest.mark.long,
        ),
        pytest.param(
            *("exit 0", "before set_model", 1, 2, (*LEFT, "has come to set_models, and process 1")),
            marks=pytest.mark.long,
        ),
        pytest.param("exit 3", "before fit", 0, 2, (*LEFT, "has come to fit, and process 0"), marks=pytest.mark.long),
        pytest.param("exit 0", "test is over", 1, 2, (*LEFT, "has come to fit, and process 1"), marks=pytest.mark.long),
    ],
)
def test_the_launcher_ends_soon_and_says_why(
    framework: str, tmp_path: Path, how: str, where: str, rank: int, processes: int, said: tuple[str, ...]
) -> None:
    workers = int(how == "kill")  # which has no way to end those of its loader
    job = run(framework, "fail", tmp_path, processes, how=how, where=where, rank=rank, num_workers=workers)
    check_end(job, tmp_path, said)
    if said == RAISED:
        check_named(framework, job, rank)


@pytest.mark.parametrize(
    ("how", "where", "rank", "said"),
    [
        ("raise", "on_epoch_end", 0, RAISED),
        pytest.param("raise", "before fit", 1, RAISED, marks=pytest.mark.long),
        pytest.param("kill", "train_step", 1, ("SIGKILL",), marks=pytest.mark.long),
        pytest.param("exit text", "val_step 1", 0, (*EXITED, "it ended on purpose\n"), marks=pytest.mark.long),
        ("exit 0", "before fit", 1, (*LEFT, "has come to fit, and process 1")),
    ],
)
def test_spawn_raises_soon_and_says_why(
    framework: str, tmp_path: Path, how: str, where: str, rank: int, said: tuple[str, ...]
) -> None:
    workers = int(how == "kill")
    job = run(framework, "fail", tmp_path, 2, spawn=2, how=how, where=where, rank=rank, num_workers=workers)
    check_end(job, tmp_path, (*said, "chosen.package.spawn("))  # it was raised in the process that called spawn
    if said == RAISED:
        check_named(framework, job, rank, spawned=True)


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("spawned", [True, False], ids=["spawn", "launcher"])
def test_of_a_hundred_failures_in_a_row_each_is_named_under_load(framework: str, tmp_path: Path, spawned: bool) -> None:
    loads = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    settings: dict[str, Any] = {"how": "raise", "where": "train_step", **({"spawn": 2} if spawned else {})}
    try:
        for turn in range(100):
            out, rank = tmp_path / str(turn), turn % 2
            job = run(framework, "fail", out, 2, rank=rank, **settings)
            check_end(job, out, RAISED)
            check_named(framework, job, rank, spawned)
    finally:
        for load in loads:
            load.kill()
            load.wait()


@pytest.mark.parametrize("how", ["kill_at", pytest.param("stop_at", marks=pytest.mark.long)])
def test_a_restarted_job_ends_in_the_same_bits(
    framework: str, tmp_path: Path, how: str, two_processes: Callable[[str], Path]
) -> None:
    # The second process is killed, or all raise, in the second epoch, one step after a checkpoint.
    whole = two_processes(framework)
    settings = {**LONGER, how: 9, "resume": "auto"}
    if framework == "torch":
        job = run(framework, "train", tmp_path / "parts", 2, ("--max-restarts", "1"), **settings)
    else:  # its launcher restarts with an etcd server only: whoever started it starts it again
        assert run(framework, "train", tmp_path / "parts", 2, **settings).code != 0
        job = run(framework, "train", tmp_path / "parts", 2, **{**settings, how: None})
    assert job.code == 0, job.shown
    log = (tmp_path / "parts" / "run" / "default_run.log").read_text()
    assert log.count("resumed from") == 1
    for rank in range(2):
        ends = [json.loads((out / f"rank_{rank}.json").read_text()) for out in (whole, tmp_path / "parts")]
        assert ends[0]["weights"] == ends[1]["weights"]
        assert ends[0]["records"][-1] == ends[1]["records"][-1]
    series = [(out / "run" / "metrics.jsonl").read_text() for out in (whole, tmp_path / "parts")]
    assert series[0] == series[1]
    assert not left_behind(tmp_path)


def gpus(framework: str) -> int:
    """How many GPUs the framework finds."""
    if framework == "torch":
        import torch

        return torch.cuda.device_count()
    import paddle

    return paddle.device.cuda.device_count() if paddle.device.is_compiled_with_cuda() else 0


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["no", "fp16", "bf16"])
@pytest.mark.parametrize("processes", [1, 2])
def test_processes_train_on_gpus_of_their_own(framework: str, tmp_path: Path, processes: int, precision: str) -> None:
    if gpus(framework) < processes:
        pytest.skip(f"needs {processes} GPUs, and {framework} finds {gpus(framework)}")
    settings: dict[str, Any] = {"kind": "norm", "count": 24, "batch_size": 2, "epoch": 2, "sync_bn": True, "cpu": False}
    job = run(framework, "train", tmp_path, processes, mixed_precision=precision, **settings)
    assert job.code == 0, job.shown
    ranks = [json.loads((tmp_path / f"rank_{rank}.json").read_text()) for rank in range(processes)]
    assert [rank["device"][-2:] for rank in ranks] == [f":{rank}" for rank in range(processes)]
    assert {rank["precision"] for rank in ranks} == {precision}
    assert all(rank["weights"] == ranks[0]["weights"] for rank in ranks)
    assert all(rank["records"] == ranks[0]["records"] for rank in ranks)

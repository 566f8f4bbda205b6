"""Several real processes on one machine, over gloo: the same numbers as one, one of everything, and no hanging."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WORKER = Path(__file__).with_name("distributed_worker.py")
pytestmark = [pytest.mark.distributed, pytest.mark.parametrize("framework", ["torch", "paddle"])]


def launch(
    framework: str, scenario: str, out: Path, processes: int, **settings: Any
) -> subprocess.CompletedProcess[str]:
    """Runs the worker in so many processes, each framework's own launcher starting them."""
    out.mkdir(parents=True, exist_ok=True)
    arguments = [str(WORKER), framework, scenario, str(out), json.dumps(settings)]
    if processes == 1:
        launcher = []
    elif framework == "torch":
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    else:
        launcher = ["-m", "paddle.distributed.launch", "--nproc_per_node", str(processes)]
        launcher += ["--log_dir", str(out / "launcher")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("CUDA_VISIBLE_DEVICES", None)  # paddle's launcher looks for GPUs if it is there at all
    return subprocess.run(
        [sys.executable, *launcher, *arguments], env=environment, capture_output=True, text=True, timeout=100
    )


def run(framework: str, scenario: str, out: Path, processes: int, **settings: Any) -> list[Any]:
    """What each process saw; fails the test if the job failed."""
    job = launch(framework, scenario, out, processes, **settings)
    assert job.returncode == 0, job.stdout[-3000:] + job.stderr[-3000:] + logs(out)
    return [json.loads((out / f"rank_{rank}.json").read_text()) for rank in range(processes)]


def logs(out: Path) -> str:
    """What paddle's launcher kept of the processes' output."""
    return "".join(path.read_text()[-3000:] for path in sorted(out.glob("launcher/workerlog.*")))


def test_evaluation_is_the_same_to_the_last_bit_for_any_number_of_processes(framework: str, tmp_path: Path) -> None:
    [alone] = run(framework, "evaluate", tmp_path / "1", 1)
    assert len(alone["seen"]) == 17 * 5
    assert {row[0] for row in alone["seen"]["17 samples in batches of 5"]} >= {"val_loss", "logits", "size", "many"}
    for processes in (2, 3):
        for seen in run(framework, "evaluate", tmp_path / str(processes), processes):
            assert seen == alone


@pytest.mark.parametrize(("processes", "window", "clip"), [(2, 1, None), (2, 2, 0.05), (3, 2, None)])
def test_training_is_that_of_one_process_on_the_joined_batches(
    framework: str, tmp_path: Path, processes: int, window: int, clip: float | None
) -> None:
    # 14 batches of 2: neither a whole number of rounds of 3, nor of windows of 2 rounds.
    data = {"count": 28, "batch_size": 2, "epoch": 2, "accumulate_steps": window, "clip_grad_norm": clip}
    [wanted] = run(framework, "by_hand", tmp_path / "wanted", 1, world_size=processes, **data)
    ranks = run(framework, "train", tmp_path / "got", processes, kind="plain", **data)
    assert all(rank == ranks[0] for rank in ranks)
    for name, expected in wanted["weights"].items():
        np.testing.assert_allclose(ranks[0]["weights"][name], expected, rtol=0, atol=2e-6, err_msg=name)


def test_there_is_one_of_everything(framework: str, tmp_path: Path) -> None:
    run(framework, "train", tmp_path, 2, kind="norm", count=12, batch_size=2, epoch=2)
    text = (tmp_path / "run" / "default_run.log").read_text()
    assert text.count("epoch 1/2 begin") == 1
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(6))  # 6 batches, 2 processes, 2 epochs
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoint").iterdir()) == [
        "epoch_1",
        "epoch_2",
        "last_epoch_2",
    ]


def test_a_stopped_job_goes_on_to_the_same_bits(framework: str, tmp_path: Path) -> None:
    settings = {"kind": "dropout", "count": 24, "batch_size": 2, "epoch": 3, "save_steps": 2}
    whole = run(framework, "train", tmp_path / "whole", 2, **settings)
    stopped = launch(framework, "train", tmp_path / "parts", 2, stop_at=9, **settings)
    assert stopped.returncode != 0
    resumed = run(framework, "train", tmp_path / "parts", 2, resume="auto", **settings)
    assert [rank["weights"] for rank in resumed] == [rank["weights"] for rank in whole]
    assert resumed[0]["records"] == whole[0]["records"][1:]  # the run was stopped in epoch 2
    series = [(tmp_path / part / "run" / "metrics.jsonl").read_text() for part in ("whole", "parts")]
    assert series[0] == series[1]


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 3)])
def test_a_checkpoint_serves_another_number_of_processes(
    framework: str, tmp_path: Path, before: int, after: int
) -> None:
    settings = {"kind": "norm", "count": 12, "batch_size": 2}
    run(framework, "train", tmp_path, before, epoch=1, **settings)
    job = launch(framework, "train", tmp_path, after, epoch=2, resume="auto", **settings)
    assert job.returncode == 0, job.stdout + job.stderr + logs(tmp_path)
    text = (tmp_path / "run" / "default_run.log").read_text()
    assert f"saved by {before} processes and this run has {after}" in text
    assert (tmp_path / "run" / "checkpoint" / "last_epoch_2").is_dir()

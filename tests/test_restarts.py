"""torchrun starts a failed job again by itself, and resume='auto' has it go on to the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

WORKER = Path(__file__).with_name("distributed_worker.py")
SETTINGS = {"kind": "dropout", "count": 24, "batch_size": 2, "epoch": 3, "save_steps": 2}
pytestmark = pytest.mark.distributed


def train(out: Path, *options: str, **settings: Any) -> tuple[list[Any], str]:
    """What two processes see, and what they say."""
    out.mkdir()
    # As docs/launching.md says: else torchrun's processes find the addresses of those that failed.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *options]
    line += [str(WORKER), "torch", "train", str(out), json.dumps({**SETTINGS, **settings})]
    job = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=100)
    assert job.returncode == 0, job.stdout[-3000:] + job.stderr[-3000:]
    return [json.loads((out / f"rank_{rank}.json").read_text()) for rank in range(2)], job.stdout + job.stderr


def test_a_job_that_torchrun_starts_again_ends_in_the_same_bits(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole")
    again, said = train(tmp_path / "again", "--max-restarts", "1", stop_at=9, resume="auto")
    assert "stopped on purpose" in said
    assert "resumed from" in said
    assert [rank["weights"] for rank in again] == [rank["weights"] for rank in whole]
    assert again[0]["records"] == whole[0]["records"][1:]  # the run was stopped in epoch 2
    series = [(tmp_path / name / "run" / "metrics.jsonl").read_text() for name in ("whole", "again")]
    assert series[0] == series[1]

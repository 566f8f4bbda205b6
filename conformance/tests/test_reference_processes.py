"""What the reference needs so that several processes end as they should."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance.reference import Trainer, TrainerConfig, spawn
from dowdyboy_conformance.reference._distributed import free_port
from dowdyboy_conformance.reference.framework.data import DataLoader
from dowdyboy_conformance.reference.framework.layers import Linear
from dowdyboy_conformance.reference.framework.optim import SGD


def train(out_dir: str, way: str) -> None:
    """A run in which process 1 comes to an end of its own, in one way or another."""
    trainer = Trainer(TrainerConfig(out_dir=out_dir, log_with="none", enable_save_checkpoint=False))
    model = Linear(1, 1)
    trainer.set_model(model)
    trainer.set_optimizer(SGD(model.parameters().values(), 0.1))
    trainer.set_train_dataloader(DataLoader(np.ones((8, 1), np.float32), 1, num_workers=1))
    if way == "returns" and trainer.rank == 1:
        return

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        if global_step == 2 and trainer.rank == 1:
            if way == "is killed":
                os.kill(os.getpid(), signal.SIGKILL)
            sys.exit(3 if way == "exits" else 0)
        return trainer.get_models()[0](bat).sum()

    trainer.fit(step)


ENDS = {
    "returns": "SetupError: process 0 has come to fit, and process 1 to the end of the program.",
    "is killed": "RuntimeError: Process 1 was ended by SIGKILL, as the kernel ends one where memory runs out.",
    "exits": "RuntimeError: Process 1 failed:\n\nTraceback (most recent call last):",
    "exits with 0": "SetupError: A hook called sys.exit in one of several processes",
}


@pytest.mark.distributed
@pytest.mark.parametrize("way", ENDS)
def test_the_end_of_one_process_is_told_and_ends_all(tmp_path: Path, way: str) -> None:
    # In a program of its own: a process that starts afresh can import no module of the tests.
    command = [sys.executable, __file__, str(tmp_path), way]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert ENDS[way] in done.stderr
    assert ("SystemExit: 3" in done.stderr) == (way == "exits")


@pytest.mark.distributed
def test_a_process_that_is_killed_ends_the_others_without_spawn(tmp_path: Path) -> None:
    job = {"DOWDYBOY_WORLD_SIZE": "2", "DOWDYBOY_MASTER": f"127.0.0.1:{free_port()}"}
    program = f"import runpy; runpy.run_path({__file__!r})['train']({str(tmp_path)!r}, 'is killed')"
    processes = []
    for rank in ("0", "1"):
        environment = {**os.environ, **job, "DOWDYBOY_RANK": rank, "DOWDYBOY_LOCAL_RANK": rank}
        command = [sys.executable, "-c", program]
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    began = time.monotonic()
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert time.monotonic() - began < 30
    assert [process.returncode for process in processes] == [1, -signal.SIGKILL]
    assert "SetupError: Process 1 has ended while process 0 was waiting for it." in errors[0]


def tell(word: str) -> None:
    """Tells where this process is and what it has of the one that started it."""
    place = [word, Path.cwd().name, os.environ.get("TOLD"), os.environ["DOWDYBOY_RANK"], float(np.random.random())]
    os.write(1, f"{json.dumps(place)}\n".encode())


def tell_twice(folder: str) -> None:
    """Starts a job, and another one after this process has gone elsewhere, with another screen and environment."""
    multiprocessing.set_forkserver_preload(["dowdyboy_conformance.reference"])  # as the checks have it
    spawn(tell, 1, ("before",))
    os.chdir(folder)
    os.environ["TOLD"] = "later"
    with Path("screen").open("wb") as screen:
        os.dup2(screen.fileno(), 1)
    spawn(tell, 2, ("after",))


@pytest.mark.distributed
def test_each_job_has_what_its_starter_has_at_the_time(tmp_path: Path) -> None:
    command = [sys.executable, __file__, str(tmp_path), "tells"]
    done = subprocess.run(command, cwd=tmp_path.parent, capture_output=True, text=True, timeout=60, check=True)
    lines = [*done.stdout.splitlines(), *sorted((tmp_path / "screen").read_text().splitlines())]
    *told, drawn = zip(*map(json.loads, lines), strict=True)
    assert list(zip(*told, strict=True)) == [
        ("before", tmp_path.parent.name, None, "0"),
        ("after", tmp_path.name, "later", "0"),
        ("after", tmp_path.name, "later", "1"),
    ]
    assert len(set(drawn)) == 3, "they have begun with one state of NumPy's stream"


if __name__ == "__main__":
    if sys.argv[2] == "tells":
        tell_twice(sys.argv[1])
    else:
        spawn(train, 2, tuple(sys.argv[1:]))

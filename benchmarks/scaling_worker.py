"""One process of the scaling benchmark: times the contenders in turn and writes ``OUT/rank_N.json``.

Usage: python scaling_worker.py FRAMEWORK BLOCKS WORKERS MODELS OUT
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from measuring import terminal, turns
from scaling_cases import CASES, LEAD, LIFE, TAIL, Case

CONTENDERS = ("ours", "hand", "control")
"""The control is the hand-written loop once more: how far it is from ``hand`` is what this machine can't tell apart."""


def time_block(contender: Any, case: Case, number: int) -> float:
    """Trains one block; gives the seconds from the first timed step to the one after the last."""
    gc.collect()  # so that nobody sweeps up what another left
    marks = contender.block(number)
    expected = LEAD + case.steps + TAIL
    if len(marks) != expected:
        raise RuntimeError(f"A block of {expected} steps ran {len(marks)} of them.")
    return float(marks[LEAD + case.steps] - marks[LEAD])


def make_contenders(framework: Any, case: Case, workers: int, folder: Path) -> dict[str, Any]:
    """Makes and warms up one of each."""
    contenders = {
        "ours": framework.Ours(case, workers, folder),
        "hand": framework.HandWritten(case, workers),
        "control": framework.HandWritten(case, workers),
    }
    for contender in contenders.values():
        time_block(contender, case, 0)
    return contenders


def measure(framework: Any, case: Case, blocks: int, workers: int, out: Path) -> dict[str, Any]:
    """Seconds a block of each contender, one block of each a round."""
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    contenders: dict[str, Any] = {}
    for number in range(blocks):
        if number % LIFE == 0:
            contenders.clear()
            gc.unfreeze()
            folder = out / f"{case.model}_{case.data}_{case.extras}_{number}"
            contenders = make_contenders(framework, case, workers, folder)
            gc.freeze()
        for name in turns(CONTENDERS, number):
            seconds[name].append(time_block(contenders[name], case, number + 1))
    said = {"model": case.model, "data": case.data, "extras": case.extras}
    return {**said, "steps": case.steps, "seconds": seconds}


def stay_on_one_core() -> None:
    """Gives each process of the job a core of its own, if there are enough: wandering ones drown what is measured."""
    rank = int(os.environ.get("RANK", os.environ.get("PADDLE_TRAINER_ID", "0")))
    processes = int(os.environ.get("WORLD_SIZE", os.environ.get("PADDLE_TRAINERS_NUM", "1")))
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) >= processes:
            os.sched_setaffinity(0, {cores[rank]})


def main(name: str, blocks: str, workers: str, models: str, out: str) -> None:
    stay_on_one_core()  # before there are threads
    framework = importlib.import_module(f"scaling_{name}")
    framework.begin()
    found = []
    for case in CASES:
        if case.model in models.split(","):
            with terminal():
                found.append(measure(framework, case, int(blocks), int(workers), Path(out)))
    Path(out, f"rank_{framework.RANK}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The process of the step benchmark: has the contenders of one framework train in turn, and writes what they took.

Usage: python steps_worker.py FRAMEWORK KINDS ROUNDS STEPS CLOCK MODULES NAMES FILE

KINDS (of data), MODULES and NAMES are lists in JSON.
"""

from __future__ import annotations

import gc
import importlib
import json
import sys
import tempfile
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from measuring import CLOCKS, hand_over, terminal, turns
from steps_cases import CONTENDERS, LEAD, TAIL, Block, Job


def time_block(job: Job, block: Block) -> tuple[float, float, float]:
    """Trains one block; gives the seconds of a timed step, mean and median, and those besides the block's steps."""
    gc.collect()  # so that nobody sweeps up what another left
    job.marks.clear()
    began = job.clock()
    block()
    whole = job.clock() - began
    expected = LEAD + job.steps + TAIL
    if len(job.marks) != expected:
        raise RuntimeError(f"A block of {expected} steps ran {len(job.marks)} of them.")
    marks = job.marks[LEAD : LEAD + job.steps + 1]
    mean = (marks[-1] - marks[0]) / job.steps
    return mean, median(after - before for before, after in pairwise(marks)), whole - mean * expected


def measure(jobs: dict[str, tuple[Job, Block]], rounds: int) -> dict[str, list[tuple[float, float, float]]]:
    """Seconds of each contender's steps, one block of each a round."""
    seconds: dict[str, list[tuple[float, float, float]]] = {name: [] for name in jobs}
    for warm_up in jobs.values():
        time_block(*warm_up)
    gc.freeze()
    for number in range(rounds):
        for name in turns(jobs, number):
            seconds[name].append(time_block(*jobs[name]))
    return seconds


def check_weights(framework: Any, jobs: dict[str, tuple[Job, Block]]) -> dict[str, str]:
    """Gives a digest of the weights of each contender.

    Raises:
        RuntimeError: two that have done the same have not come to the same weights, to the last bit.
    """
    ends = {item.name: item.ends for item in CONTENDERS}
    found = {name: sha256(framework.weights(job.model)).hexdigest()[:16] for name, (job, _) in jobs.items()}
    for end in dict.fromkeys(ends[name] for name in jobs):
        alike = {name: digest for name, digest in found.items() if ends[name] == end}
        if len(set(alike.values())) > 1:
            raise RuntimeError(f"These should have ended with the same weights: {alike}")
    return found


def compare(framework: Any, data: str, rounds: int, steps: int, clock: str, wanted: list[str]) -> dict[str, Any]:
    """Has the contenders train over one kind of data; gives the seconds of a step and digests of the weights."""
    with terminal(), tempfile.TemporaryDirectory() as folder:
        jobs: dict[str, tuple[Job, Block]] = {}
        for number, item in enumerate(CONTENDERS):
            if data in item.data and item.name in (wanted or [item.name]):
                job = Job(data, steps, Path(folder, str(number)), CLOCKS[clock])
                job.folder.mkdir()
                jobs[item.name] = job, item.make(job)
        seconds = measure(jobs, rounds)
        digests = check_weights(framework, jobs)
    kinds = ("means", "medians", "besides")
    figures = {
        kind: {contender: [value[place] for value in values] for contender, values in seconds.items()}
        for place, kind in enumerate(kinds)
    }
    return {**figures, "digests": digests}


def main(name: str, kinds: str, rounds: str, steps: str, clock: str, modules: str, only: str, file: str) -> None:
    framework = importlib.import_module(f"steps_{name}")
    for further in json.loads(modules):
        importlib.import_module(further)
    found = {}
    for data in json.loads(kinds):
        found[data] = compare(framework, data, int(rounds), int(steps), clock, json.loads(only))
        gc.unfreeze()
    hand_over(found, file)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A fresh process of the startup benchmark.

Usage: python startup_worker.py import MODULE BELOW CLOCK FILE
       python startup_worker.py step FRAMEWORK LOOP CLOCK FILE
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable

HEAVY = ("matplotlib", "numpy", "pandas", "safetensors", "tensorboard", "thop", "tqdm", "visualdl", "yaml")
CLOCKS = {
    "wall": time.perf_counter,
    "cpu": time.process_time,
}  # not from measuring, which imports half of what is measured


def time_import(module: str, below: str, clock: Callable[[], float]) -> dict[str, object]:
    """Milliseconds of ``import below`` and then of ``import module``, and the heavy modules that the latter loads."""
    began = clock()
    if below:
        importlib.import_module(below)
    loaded, between = set(sys.modules), clock()
    importlib.import_module(module)
    ended = clock()
    heavy = [name for name in HEAVY if name in sys.modules and name not in loaded]
    return {"below": (between - began) * 1e3, "milliseconds": (ended - between) * 1e3, "heavy": heavy}


def time_first_step(framework: str, loop: str, clock: Callable[[], float]) -> dict[str, object]:
    """Milliseconds from before anything of a run is made to its first forward pass, and to its second."""
    import tempfile
    from pathlib import Path

    from measuring import terminal
    from steps_cases import CONTENDERS, Job

    importlib.import_module(f"steps_{framework}")
    contenders = {item.name: item.make for item in CONTENDERS}
    loaded = set(sys.modules)
    with terminal(), tempfile.TemporaryDirectory() as folder:
        # What the framework does at its first step in a process, which takes seconds, is not the loop's doing.
        contenders["hand-written"](Job("tensors", 4, Path(folder), clock))()
        job = Job("tensors", 20, Path(folder), clock)
        began = clock()
        contenders[loop](job)()
    heavy = [name for name in HEAVY if name in sys.modules and name not in loaded]
    return {"first": (job.marks[0] - began) * 1e3, "second": (job.marks[1] - began) * 1e3, "heavy": heavy}


if __name__ == "__main__":
    kind, what, how, chosen, file = sys.argv[1:]
    measure = time_import if kind == "import" else time_first_step
    answer = measure(what, how, CLOCKS[chosen])
    from measuring import hand_over

    hand_over(answer, file)

"""How every subject measures: in fresh processes of one thread, in rounds in which each contender has its turn."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any, TypeVar

CLOCKS: dict[str, Callable[[], float]] = {"wall": perf_counter, "cpu": process_time}
"""What a second is: of the clock on the wall, or of the processor's work for all threads of this process.

The second kind doesn't count the time in which other programs had the processor, nor that in which this one waited.
"""


Name = TypeVar("Name")

UNWANTED = (
    "CUDA_VISIBLE_DEVICES",
    "PADDLE_TRAINERS_NUM",
    "PADDLE_TRAINER_ID",
    "PYTHONDONTWRITEBYTECODE",
    "RANK",
    "WORLD_SIZE",
)


def environment(*, hoard: bool = True) -> dict[str, str]:
    """One thread, compiled imports, and an allocator that keeps its memory: with glibc's defaults times wander.

    Args:
        hoard: False leaves the allocator as it is, for those who measure memory.
    """
    fixed = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "KERAS_BACKEND": "torch"}
    if hoard:
        fixed |= {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**30)}
    found = os.environ | fixed
    for name in UNWANTED:
        found.pop(name, None)
    return found


def fresh(script: Path, *arguments: object, hoard: bool = True) -> Any:
    """Runs ``script ARGUMENTS... FILE`` in a process of its own; gives what it wrote to the file with ``hand_over``."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "answer.json")
        command = [sys.executable, str(script), *map(str, arguments), str(answer)]
        done = subprocess.run(command, env=environment(hoard=hoard), capture_output=True, text=True, errors="replace")
        if done.returncode:
            said = (done.stdout[-3000:] + done.stderr[-3000:]).strip()
            sys.exit(f"{script.name} {' '.join(command[2:-1])} ended with exit code {done.returncode}:\n{said}")
        return json.loads(answer.read_text(encoding="utf-8"))


def hand_over(answer: Any, file: str) -> None:
    """What a script that ``fresh`` runs does last."""
    Path(file).write_text(json.dumps(answer), encoding="utf-8")


def turns(names: Iterable[Name], number: int) -> list[Name]:
    """The order of a round: another one in each, so that nobody always comes after the same other one."""
    order = list(names)
    random.Random(number).shuffle(order)
    return order


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest of some figures."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def over(base: str, figures: Mapping[str, Sequence[float]], scale: float = 1) -> dict[str, dict[str, float]]:
    """How much more each contender took than ``base`` did in the same round, times ``scale``."""
    return {
        name: spread([(own - of_base) * scale for own, of_base in zip(values, figures[base], strict=True)])
        for name, values in figures.items()
    }


def resident_bytes(peak: bool = False) -> int:
    """The memory that this process has in use now, or its highest so far (Linux alone tells it)."""
    wanted = "VmHWM:" if peak else "VmRSS:"
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(wanted):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status says no {wanted}")


@contextmanager
def terminal() -> Iterator[None]:
    """Has stdout and stderr be a terminal that nobody looks at, since a bar is drawn on nothing else."""
    import fcntl
    import struct
    import termios

    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    reader = subprocess.Popen(["cat"], stdin=ours, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(ours)
    kept = sys.stdout, sys.stderr
    try:
        with os.fdopen(theirs, "w", encoding="utf-8") as sys.stderr:
            sys.stdout = sys.stderr
            yield
    finally:
        sys.stdout, sys.stderr = kept
        reader.wait()

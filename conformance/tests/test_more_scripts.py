"""Five hundred scripts that are drawn from numbers, other ones each time."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from dowdyboy_conformance._scripts import VARIABLE

SLICE = 20
FIRST = int(os.environ.get(VARIABLE, "").partition("+")[0] or random.SystemRandom().randrange(10**6))
"""The number of the first; ``DOWDYBOY_SCRIPTS`` sets it, so that those of another time can be played again."""

ALONE = "test_random_scripts_end_as_without_a_stop"
TOGETHER = "test_random_scripts_of_several_processes_end_as_without_a_stop"
SLICES = [
    *((backend, ALONE, 7) for backend in ("torch", "paddle", "numpy")),
    *((backend, TOGETHER, 1) for backend in ("torch", "paddle")),
]
CASES = [(backend, check, number) for backend, check, count in SLICES for number in range(count)]
CASES += [("numpy", TOGETHER, 0), ("numpy", TOGETHER, 1)]


def test_there_are_five_hundred() -> None:
    assert len(CASES) * SLICE == 500


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("place", range(len(CASES)))
def test_more_scripts_end_as_without_a_stop(place: int, tmp_path: Path) -> None:
    backend, check, _ = CASES[place]
    if backend != "numpy":
        pytest.importorskip(backend)
    scripts = f"{FIRST + place * SLICE}+{SLICE}"
    print(f"{VARIABLE}={scripts} for {check} of {backend}")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--pyargs",
        "dowdyboy_conformance.checks.test_scripts",
        "--backend",
        backend,
    ]
    options = ["-k", check, "-q", "-p", "no:cacheprovider", "--timeout", "1100", f"--basetemp={tmp_path / 'played'}"]
    environment = {**os.environ, VARIABLE: scripts, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *options], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{VARIABLE}={scripts}\n{done.stdout[-20000:]}\n{done.stderr[-2000:]}"

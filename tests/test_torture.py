"""A run that is killed at random moments, again and again, ends as the one that nobody disturbed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

TORTURE = Path(__file__).with_name("torture.py")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def torture(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(TORTURE), *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("backend", ["torch", "paddle"])
@pytest.mark.parametrize("kills", [10, pytest.param(200, marks=pytest.mark.long)])
def test_killed_at_any_moment_the_result_is_the_same(backend: str, kills: int) -> None:
    done = torture(backend, str(kills), "1")
    assert done.returncode == 0, done.stdout + done.stderr[-6000:]
    found = re.match(r"(\d+) kills by the clock, (\d+) within an operation on a file;\n(\d+) runs", done.stdout)
    assert found is not None, done.stdout
    clock, file, runs = map(int, found.groups())
    assert clock + file >= kills
    assert min(clock, file, runs) > 0


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param("records", marks=pytest.mark.long),
        pytest.param("half", marks=pytest.mark.long),
        "unsynced order",
    ],
)
def test_the_torture_notices_a_broken_library(spoil: str) -> None:
    done = torture("torch", "40", "1", spoil)
    assert done.returncode == 1, "it has noticed nothing"
    assert "AssertionError" in done.stderr

"""Has the tests write their temporary files to memory, where there is plenty, and the long ones begin first.

Every checkpoint waits until its files are on the disk, and on a slow one the tests would do little else. A process that
is killed loses nothing that it has written to memory, so nothing is tested less. TMPDIR, where it is set, is respected.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")
ENOUGH = 4 * 2**30

LONG = (
    "test_mutants.py",
    "test_launchers.py",
    "test_third_party.py",
    "test_examples.py",
    "test_packaging.py",
    "test_machines.py",
    "test_benchmarks.py",
    "test_readme.py",
    "test_new_backend.py",
    "test_crashes.py",
)
"""Files that take longer than others. pytest-xdist has one process run a file, and none should be left with one."""


def pytest_configure(config: pytest.Config) -> None:
    """Chooses before any test asks, here and in the processes that tests start."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # there is a process for each core, and nothing to divide in a test
    if "TMPDIR" in os.environ or not MEMORY.is_dir() or not os.access(MEMORY, os.W_OK):
        return
    if shutil.disk_usage(MEMORY).free >= ENOUGH:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Has the long files begin first."""
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONG)))

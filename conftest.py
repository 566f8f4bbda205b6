"""Has the tests write their temporary files to memory, where there is plenty.

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


def pytest_configure(config: pytest.Config) -> None:
    """Chooses the folder before any test asks for one, here and in the processes that tests start."""
    if "TMPDIR" in os.environ or not MEMORY.is_dir() or not os.access(MEMORY, os.W_OK):
        return
    if shutil.disk_usage(MEMORY).free >= ENOUGH:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)

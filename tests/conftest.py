"""What several files of tests share."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def constraints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with which pip installs third-party packages in the versions that the tests run with.

    Our packages take ranges, and the newest PyTorch may be another build, many times the size.
    """
    versions: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        # Importing setuptools puts the packages that it brings at the end of sys.path: those before them are used.
        if not distribution.name.startswith("dowdyboy"):
            versions.setdefault(distribution.name, distribution.version)
    path = tmp_path_factory.mktemp("constraints") / "constraints.txt"
    path.write_text("".join(f"{name}=={version}\n" for name, version in versions.items()), encoding="utf-8")
    return path

"""The way to what the core keeps to itself, for those who spoil it on purpose or look at it from within."""

from __future__ import annotations

import importlib
from typing import Any


def inside(path: str) -> Any:
    """A module of dowdyboy_core's own, which may be another one tomorrow.

    Args:
        path: of the module in the package, as in ``_disk.files``.
    """
    return importlib.import_module(f"dowdyboy_core.{path}")

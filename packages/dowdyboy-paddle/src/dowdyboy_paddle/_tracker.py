"""VisualDL's writer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dowdyboy_core import SetupError


class VisualDLTracker:
    """Writes curves for VisualDL.

    Args:
        folder: where the event files go.

    Raises:
        SetupError: VisualDL is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from visualdl import LogWriter
        except ImportError as error:
            raise SetupError(
                f"log_with='visualdl' needs VisualDL, which can't be imported: {error}. "
                "Run `pip install visualdl`, or set log_with='none'."
            ) from error
        self._writer = LogWriter(logdir=str(folder))

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Adds one point to each named curve; VisualDL takes no ``%`` in a name, and gets ``pct`` instead."""
        for name, value in values.items():
            self._writer.add_scalar(tag=name.replace("%", "pct"), value=value, step=step)

    def close(self) -> None:
        """Writes out what is left and closes the file."""
        self._writer.close()

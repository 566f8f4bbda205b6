"""VisualDL's writer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
        # The thread that writes drops what the disk won't have, and goes on behind half a record that nothing can read.
        records = self._writer._get_file_writer()._async_writer._record_writer
        records._writer = self._file = _Noting(records._writer)

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Adds one point to each named curve; VisualDL takes no ``%`` in a name, and gets ``pct`` instead."""
        if self._file.error is not None:
            raise self._file.error
        for name, value in values.items():
            self._writer.add_scalar(tag=name.replace("%", "pct"), value=value, step=step)

    def close(self) -> None:
        """Writes out what is left and closes the file."""
        self._writer.close()
        if self._file.error is not None:
            raise self._file.error


class _Noting:
    """A file of VisualDL's that remembers what writing to it failed with."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, content: bytes) -> None:
        """Writes, unless that has failed before."""
        if self.error is None:
            try:
                self._file.write(content)
            except OSError as error:
                self.error = error
                raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

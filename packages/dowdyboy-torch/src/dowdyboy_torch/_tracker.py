"""TensorBoard's writer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dowdyboy_core import SetupError


class TensorBoardTracker:
    """Writes curves for TensorBoard.

    Args:
        folder: where the event files go.

    Raises:
        SetupError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise SetupError(
                f"log_with='tensorboard' needs TensorBoard, which can't be imported: {error}. "
                "Run `pip install tensorboard`, or set log_with='none'."
            ) from error
        self._writer = SummaryWriter(log_dir=str(folder))

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Adds one point to each named curve."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes out what is left and closes the file."""
        self._writer.close()

"""The checkpoints of a run: which there are, which to keep, and which one to go on from."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ._errors import CheckpointError
from ._files import FolderReader, Weights, read_index, tidy, write_folder

_NAME = re.compile(r"(epoch|last_epoch|best_epoch)_([1-9]\d*)")


@dataclass
class Snapshot:
    """All that a checkpoint holds, in memory.

    Attributes:
        index: what ``checkpoint.json`` says: epoch, batch, steps, best, versions, …
        weights: arrays by name (``model_0``, ``component_0``), as plain safetensors files.
        trees: everything else by name (``optimizer_0``, ``lr_scheduler_0``, ``scaler``, ``rng``, ``records``).
    """

    index: dict[str, Any]
    weights: dict[str, Weights] = field(default_factory=dict)
    trees: dict[str, Any] = field(default_factory=dict)


def read_snapshot(folder: Path, *, weights_only: bool = False) -> Snapshot:
    """Reads a whole checkpoint, every file checked against its digest.

    Raises:
        CheckpointError: it is missing, damaged or not ours.
    """
    reader = FolderReader(folder)
    stems = {Path(name).stem for name in reader.names()}
    trees = {name for name in stems if f"{name}.json" in reader.names()}
    weights = {name: reader.weights(name) for name in sorted(stems - trees)}
    return Snapshot(reader.index, weights, {} if weights_only else {name: reader.tree(name) for name in sorted(trees)})


class CheckpointFolder:
    """``out_dir/checkpoint``: at most one ``last_epoch_N``, at most one ``best_epoch_N``, any number of ``epoch_N``."""

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self.path = path
        self._warn = warn

    def tidy(self) -> None:
        """Clears away what a killed run left half-written."""
        tidy(self.path)

    def save(self, kind: str, epoch: int, snapshot: Snapshot) -> bool:
        """Writes ``{kind}_{epoch}``; of ``last_epoch`` and ``best_epoch`` the older one goes afterwards.

        A disk that won't have it is reported, and the older checkpoints stay.

        Returns:
            Whether it is there.
        """
        folder = self.path / f"{kind}_{epoch}"
        try:
            write_folder(folder, snapshot.index, snapshot.weights, snapshot.trees)
            if kind != "epoch":
                for other in self._folders(kind) - {folder}:
                    shutil.rmtree(other)
        except OSError as error:
            self._warn(f"Checkpoint {str(folder)!r} could not be saved: {error}. Training goes on without it.")
            return False
        return True

    def _folders(self, kind: str) -> set[Path]:
        # Whole names: best_epoch_1 is neither best_epoch_12 nor the folder best_epoch_1_mine.
        found = set()
        for path in self.path.iterdir() if self.path.is_dir() else ():
            match = _NAME.fullmatch(path.name)
            if match is not None and match[1] == kind and path.is_dir():
                found.add(path)
        return found

    def newest(self) -> tuple[Path, Snapshot] | None:
        """The newest checkpoint that is whole, with its content; None if there is none."""
        for _, _, path in sorted(self._ages(), reverse=True):
            try:
                return path, read_snapshot(path)
            except CheckpointError as error:
                self._warn(f"Checkpoint {str(path)!r} is not usable and is passed over: {error}")
        return None

    def last_run(self) -> int:
        """The number of the newest run that has a checkpoint here; 0 if there is none."""
        return max((age[0] for age, _, _ in self._ages()), default=0)

    def _ages(self) -> list[tuple[tuple[int, int, int], str, Path]]:
        """Run, epoch and batch of each checkpoint, its name and its path: what orders them without asking a clock."""
        found = []
        for path in sorted(self._folders("epoch") | self._folders("last_epoch") | self._folders("best_epoch")):
            try:
                index = read_index(path)
                age = (int(index["run"]), int(index["epoch"]), int(index["batch"]))
            except (CheckpointError, KeyError, TypeError, ValueError) as error:
                self._warn(f"Checkpoint {str(path)!r} is not usable and is passed over: {error}")
                continue
            found.append((age, path.name, path))
        return found


def numbered(names: Mapping[str, Any], stem: str) -> list[Any]:
    """The values of ``stem_0``, ``stem_1``, … in numeric order.

    Raises:
        CheckpointError: a number is left out.
    """
    numbers = sorted(int(match[1]) for name in names if (match := re.fullmatch(stem + r"_(\d+)", name)))
    if numbers != list(range(len(numbers))):
        raise CheckpointError(f"The checkpoint holds {stem} number {numbers}, and some between are missing.")
    return [names[f"{stem}_{number}"] for number in numbers]

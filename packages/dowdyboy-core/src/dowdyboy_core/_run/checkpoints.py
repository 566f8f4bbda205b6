"""The checkpoints of a run: which there are, which to keep, and which one to go on from."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dowdyboy_core._disk.files import (
    Content,
    FolderReader,
    Weights,
    is_whole,
    numbered,
    prepare,
    read_index,
    write_folder,
)
from dowdyboy_core._disk.first_version import without_wrappers
from dowdyboy_core._disk.folders import remove_folder, tidy, where_it_lies
from dowdyboy_core._disk.labels import LABEL
from dowdyboy_core._errors import CheckpointError
from dowdyboy_core.backend.left_out import TREE

_HAS_PATHS = re.compile("optimizer_|ema$")
_LABELLED = re.compile(rf"chk_{LABEL}_step_(?:0|[1-9][0-9]*)")
_KINDS = ("epoch", "last_epoch", "best_epoch")
_NAME = re.compile(rf"({'|'.join(_KINDS)})_([1-9][0-9]*)")


@dataclass
class Snapshot:
    """All that a checkpoint holds, in memory.

    Attributes:
        index: what ``checkpoint.json`` says: epoch, batch, steps, best, versions, …
        weights: arrays by name (``model_0``, ``ema_0``, ``component_0``), as plain safetensors files.
        trees: everything else by name (``optimizer_0``, ``lr_scheduler_0``, ``ema``, ``scaler``, ``rng``, ``records``).
    """

    index: dict[str, Any]
    weights: dict[str, Weights] = field(default_factory=dict)
    trees: dict[str, Any] = field(default_factory=dict)

    def content(self) -> Content:
        """What its folder will hold.

        Raises:
            CheckpointError: something can't be stored.
        """
        return prepare(self.index, self.weights, self.trees)

    def without_wrappers(self, words: Collection[str]) -> Snapshot:
        """The same with the paths of today, where it is of version 1."""
        if not words or self.index.get("format_version") != 1:
            return self
        named = {name: without_wrappers(tree, words) for name, tree in self.trees.items() if _HAS_PATHS.match(name)}
        return Snapshot(self.index, without_wrappers(self.weights, words), self.trees | named)

    def averaged(self, folder: Path) -> Snapshot:
        """The same with the average of the weights in the place of the weights.

        Raises:
            CheckpointError: it holds none.
        """
        averages = numbered(self.weights, "ema")
        if not averages:
            raise CheckpointError(
                f"{str(folder)!r} holds no average of the weights. Use a checkpoint that was saved with ema_decay, or "
                "load the weights themselves."
            )
        others = {name: arrays for name, arrays in self.weights.items() if not name.startswith(("model_", "ema_"))}
        models = {f"model_{number}": arrays for number, arrays in enumerate(averages)}
        return Snapshot(self.index, others | models, self.trees)


_COUNTS = ("run", "world_size", "metrics_bytes", "epoch", "batch", "train_step", "val_step")
_SETTINGS = ("accumulate_steps", "batches", "batch_size", "val_batches", "val_batch_size")  # since version 2
_TEXTS: tuple[str, ...] = ("dowdyboy", "backend", "backend_version", "python", "name", "precision", "best_type")
_FILE = re.compile(
    r"((model|component)_[0-9]+(_beside)?|(ema|optimizer|lr_scheduler)_[0-9]+"
    r"|ema|scaler|rng|loader|records|frozen|script|untrained|exchange|passengers)\.(json|safetensors)"
)
_MAX_COUNT = 2**53  # more than any run comes to
_TREES = {"rng": list, "records": dict, "scaler": dict}


def _check_index(folder: Path, index: Mapping[str, Any], weights_only: bool) -> None:
    """Refuses an index that says something of another kind than this version writes."""
    wrong = [name for name in (("backend",) if weights_only else _TEXTS) if not isinstance(index.get(name), str)]
    if not weights_only:
        wrong += [name for name in _COUNTS if not _is_count(index.get(name))]
        wrong += [name for name in ("val_batch", "best_epoch") if not _is_count(_or_zero(index, name))]
        wrong += [name for name in _SETTINGS if not _is_count(index.get(name) or 0)]
        wrong += [name for name in ("best_rec",) if not isinstance(index.get(name) or "", str)]
        wrong += [name for name in ("best",) if not _is_value(index.get(name, "nothing"))]
        wrong += [name for name in ("to_beat",) if not _is_value(index.get(name))]  # older ones have neither
        wrong += [name for name in ("since_better",) if not _is_count(index.get(name, 0))]
        wrong += [name for name in ("schedule_by",) if not isinstance(index.get(name, []), list)]
        wrong += [name for name in ("on_epoch_begin",) if not isinstance(index.get(name, False), bool)]
        steps = index.get("steps_per_epoch")  # nor these
        if steps is not None:
            wrong += [name for name in ("steps_per_epoch",) if not _is_count(steps) or not steps]
            wrong += [name for name in ("passes",) if not _are_places(index.get(name))]
    if wrong:
        raise CheckpointError(
            f"checkpoint.json in {str(folder)!r} has no {wrong[0]} of the right kind: "
            f"{index.get(wrong[0], 'nothing')!r:.80}. Use another checkpoint."
        )


def _are_places(places: Any) -> bool:
    if not isinstance(places, list) or not places:
        return False
    return all(isinstance(item, list) and len(item) == 2 and all(map(_is_count, item)) and item[0] for item in places)


def _are_loader_states(stored: Any) -> bool:
    return isinstance(stored, list) and all(map(_is_loader_state, stored))


def _is_loader_state(item: Any) -> bool:
    if not isinstance(item, dict) or "state" not in item or not _is_count(item.get("number")):
        return False
    place = item.get("place")
    return isinstance(place, list) and len(place) == 2 and all(type(n) is int and abs(n) <= _MAX_COUNT for n in place)


def _or_zero(index: Mapping[str, Any], name: str) -> Any:
    """What the index says, with 0 for null."""
    value = index.get(name, "nothing")
    return 0 if value is None else value


def _is_value(value: Any) -> bool:
    return value is None or (type(value) is float and math.isfinite(value))


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MAX_COUNT


def read_snapshot(folder: Path, *, weights_only: bool = False) -> Snapshot:
    """Reads a whole checkpoint, every file checked against its digest.

    Raises:
        CheckpointError: it is missing, damaged or not ours.
    """
    reader = FolderReader(where_it_lies(folder))
    _check_index(folder, reader.index, weights_only)
    names = {name for name in reader.names() if _FILE.fullmatch(name)}  # a later version may add others
    stems = {Path(name).stem for name in names}
    trees = {name for name in stems if f"{name}.json" in names}
    weights = {name: reader.weights(name) for name in sorted(stems - trees)}
    wanted = trees & {TREE, "exchange", "passengers"} if weights_only else trees
    found = {name: reader.tree(name) for name in sorted(wanted)}
    for name, kind in () if weights_only else _TREES.items():
        if not isinstance(found.get(name), kind):
            raise CheckpointError(f"{str(folder)!r} has no {name}.json of the right kind. Use another checkpoint.")
    if not isinstance(found.get("ema", {}), dict):
        raise CheckpointError(f"{str(folder)!r} has no ema.json of the right kind. Use another checkpoint.")
    if not _are_loader_states(found.get("loader", [])):
        raise CheckpointError(f"{str(folder)!r} has no loader.json of the right kind. Use another checkpoint.")
    return Snapshot(reader.index, weights, found)


class CheckpointFolder:
    """``out_dir/checkpoint``: at most one ``last_epoch_N``, at most one ``best_epoch_N``, and a number of ``epoch_N``.

    Besides these, which a run goes on from by itself, ``chk_{label}_step_N``, which nobody but the user removes.

    Args:
        path: the folder.
        warn: says what the user should know.
        keep: how many ``epoch_N`` are kept; None for all.
    """

    def __init__(self, path: Path, warn: Callable[[str], None], keep: int | None = None) -> None:
        self.path = path
        self._keep = keep
        self._warn = warn
        self._told: set[str] = set()

    def tidy(self) -> None:
        """Clears away what a killed run left: a checkpoint that is half-written, or whose successor is there.

        Where the disk won't have it, that is reported.
        """
        try:
            tidy(self.path, lambda name: bool(_NAME.fullmatch(name) or _LABELLED.fullmatch(name)), is_whole)
            for kind in ("last_epoch", "best_epoch"):
                if len(self._folders(kind)) > 1:
                    self._keep_newest(kind)
        except OSError as error:
            self._warn(f"{str(self.path)!r} can't be tidied: {error}. What a killed run left there stays for now.")

    def _keep_newest(self, kind: str) -> None:
        by_age = [path for _, _, path in sorted(self._ages(kind), reverse=True)]
        whole = next((path for path in by_age if self._is_whole(path)), None)
        for path in by_age[by_age.index(whole) + 1 :] if whole is not None else ():
            self._remove(path)

    def _is_whole(self, path: Path) -> bool:
        try:
            FolderReader(path).verify()
        except CheckpointError as error:
            self._pass_over(path, error)
            return False
        return True

    def _pass_over(self, path: Path, error: Exception) -> None:
        text = f"Checkpoint {str(path)!r} is passed over: {str(error).removesuffix(' Use another checkpoint.')}"
        if text not in self._told:  # it may come up for several reasons, and is one problem
            self._told.add(text)
            self._warn(text)

    def save(self, kind: str, number: int, content: Content) -> bool:
        """Writes ``{kind}_{number}``; of ``last_epoch``, ``best_epoch`` and ``epoch`` older ones go afterwards.

        A disk that won't have it is reported, and the older checkpoints stay.

        Returns:
            Whether it is there.
        """
        folder = self.path / f"{kind}_{number}"
        try:
            write_folder(folder, content)
        except OSError as error:
            self._warn(f"Checkpoint {str(folder)!r} could not be saved: {error}. Training goes on without it.")
            return False
        if kind == "epoch":
            self.clear_epochs()
        elif kind in _KINDS:
            for other in self._folders(kind) - {folder}:
                self._remove(other)
        return True

    def clear_epochs(self) -> None:
        """Removes the oldest of the ``epoch_N`` that are more than are to be kept, not counting damaged ones."""
        if self._keep is None:
            return
        by_age = [path for _, _, path in sorted(self._ages("epoch"), reverse=True)]
        for path in [path for path in by_age if _has_all(path)][self._keep :]:
            self._remove(path)

    def _remove(self, path: Path) -> None:
        if path.is_symlink():  # somebody has put it there on purpose
            return
        try:
            remove_folder(path)
        except OSError as error:
            self._warn(f"The old checkpoint {str(path)!r} can't be removed: {error}. It is tried again later.")

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
                self._pass_over(path, error)
        return None

    def best(self) -> Mapping[str, Any] | None:
        """What the index of the best checkpoint says, if there is one and it is whole."""
        for _, _, path in sorted(self._ages("best_epoch"), reverse=True):
            if self._is_whole(path):
                return read_index(path)
        return None

    def has(self, kind: str, epoch: int, index: Mapping[str, Any]) -> bool:
        """Whether ``{kind}_{epoch}`` is there, with that index, and with files of the sizes that it says."""
        path = self.path / f"{kind}_{epoch}"
        try:
            reader = FolderReader(path)
            reader.measure()
        except CheckpointError:
            return False
        return reader.index == index

    def holds_later(self, index: Mapping[str, Any]) -> bool:
        """Whether a whole checkpoint lies here that had come further than the one with this index."""
        return any(age > _age_of(index) and self._is_whole(path) for age, _, path in self._ages())

    def last_run(self) -> int:
        """The number of the newest run that has a checkpoint here; 0 if there is none."""
        return max((age[0] for age, _, _ in self._ages()), default=0)

    def _ages(self, *kinds: str) -> list[tuple[Age, str, Path]]:
        """How far each checkpoint had come, its name and its path: what orders them without asking a clock."""
        found = []
        for path in sorted(path for kind in kinds or _KINDS for path in self._folders(kind)):
            try:
                index = read_index(path)
                _check_index(path, index, weights_only=False)
            except CheckpointError as error:
                self._pass_over(path, error)
                continue
            found.append((_age_of(index), path.name, path))
        return found


Age = tuple[int, int, int, int]
"""Run, epochs that are over, training batches of the next one, and validation batches after these."""


def _age_of(index: Mapping[str, Any]) -> Age:
    in_validation = -1 if index["val_batch"] is None else int(index["val_batch"])
    return int(index["run"]), int(index["epoch"]), int(index["batch"]), in_validation


def _has_all(path: Path) -> bool:
    """Whether a checkpoint has its files in their sizes; to read them would take as long as to write them."""
    try:
        FolderReader(path).measure()
    except CheckpointError:
        return False
    return True

"""What training has left as it was, which with ``save_trained_only`` is in no checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dowdyboy_core._config import TrainerConfig
from dowdyboy_core.backend.arrays import without_unmade
from dowdyboy_core.backend.left_out import TREE, checked, complete, digests_of
from dowdyboy_core.backend.seam import Backend

from .assembly import Assembly
from .checkpoints import Snapshot


class Untrained:
    """Knows what the models held when a run first began, by digests, and leaves out of checkpoints what is still so.

    Args:
        config: the settings.
        backend: the framework.
        parts: has the models.
        warn: says what the user should know.
    """

    def __init__(self, config: TrainerConfig, backend: Backend, parts: Assembly, warn: Callable[[str], None]) -> None:
        self._wanted = config.save_trained_only and config.enable_save_checkpoint
        self._backend = backend
        self._parts = parts
        self._warn = warn
        self._first: dict[str, dict[str, str]] | None = None
        self._models: list[Any] = []  # that it is of

    def begin(self) -> None:
        """Takes note of what the models hold when they are first trained."""
        models = self._parts.raw_models()
        known = self._first is not None and len(models) == len(self._models)
        if known and all(one is other for one, other in zip(models, self._models, strict=True)):
            return
        self._models, self._first = models, None
        if self._wanted and self._backend.rank == 0:  # which writes
            with without_unmade():
                states = [self._backend.model_state(model) for model in models]
            self._first = {f"model_{number}": digests_of(state) for number, state in enumerate(states)}

    def take_up(self, snapshot: Snapshot, folder: Path) -> None:
        """Goes on by what a checkpoint knows of the beginning of its run."""
        self._models, self._first = self._parts.raw_models(), {}
        tree = snapshot.trees.get(TREE)
        if tree is not None:
            self._first = checked(tree)[0]
        elif self._wanted:
            self._warn(
                f"{str(folder)!r} was saved without save_trained_only, and doesn't know what the models held when its "
                "run began: checkpoints of this run hold all weights."
            )

    def leave_out(self, snapshot: Snapshot) -> None:
        """Takes out of a snapshot that is to be written what is as it was."""
        if not self._wanted or self._first is None:
            return
        left_out: dict[str, list[str]] = {}
        for stem, arrays in snapshot.weights.items():
            kind, _, number = stem.partition("_")
            first = self._first.get(f"model_{number}", {}) if kind in ("model", "ema") else {}
            now = digests_of({name: array for name, array in arrays.items() if name in first})
            left_out[stem] = [name for name, digest in now.items() if digest == first[name]]
            snapshot.weights[stem] = {name: array for name, array in arrays.items() if name not in {*left_out[stem]}}
        stored = {stem: sorted(names) for stem, names in left_out.items() if names}
        snapshot.trees[TREE] = {"first": self._first, "left_out": stored}


def completed(backend: Backend, parts: Assembly, snapshot: Snapshot, folder: Path) -> Snapshot:
    """A snapshot with what its checkpoint leaves out, taken from the models.

    Raises:
        CheckpointError: the models hold something else there; the message names it.
    """
    if TREE not in snapshot.trees or snapshot.index.get("backend") != backend.name:
        return snapshot
    trees = {name: tree for name, tree in snapshot.trees.items() if name != TREE}
    tree = snapshot.trees[TREE]
    return Snapshot(snapshot.index, complete(backend, parts.raw_models(), snapshot.weights, tree, str(folder)), trees)

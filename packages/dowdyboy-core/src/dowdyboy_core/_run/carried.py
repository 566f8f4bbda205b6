"""What a run carries along that its own framework has no place for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dowdyboy_core._errors import CheckpointError
from dowdyboy_core.backend.arrays import Array

from .counts import Counts


@dataclass
class Carried:
    """What a run carries along that its own framework has no place for.

    Attributes:
        passengers: by the name of a model, ``model_0``, its tensors of other frameworks, by ``path/role``.
        exact: the slots of optimizers that don't come back to the bit, by ``optimizer_I``: they do, where no step was
            made in between.
        origin: the framework that these are of.
        at: the training step that they are of.
        steps: how many steps each optimizer had made before the trainer counted them.
    """

    passengers: dict[str, dict[str, Array]] = field(default_factory=dict)
    exact: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    origin: str = ""
    at: int = 0
    steps: Counts = field(default_factory=Counts)

    def forget(self) -> None:
        """Begins anew."""
        self.passengers, self.exact, self.steps = {}, {}, Counts()

    def state(self, train_step: int) -> dict[str, Any]:
        """What a checkpoint at a training step holds of it; nothing where there is nothing."""
        if train_step != self.at or not any(self.exact.values()):
            self.exact = {}
        exact = {"origin": self.origin, "at": self.at, "slots": self.exact} if self.exact else {}
        return ({"tensors": self.passengers} if self.passengers else {}) | ({"exact": exact} if exact else {})

    def load_state(self, tree: Any) -> None:
        """Takes up what ``state`` gave.

        Raises:
            CheckpointError: it is no such thing.
        """
        found = {} if tree is None else tree
        exact = found.get("exact", {}) if isinstance(found, Mapping) else None
        tensors = found.get("tensors", {}) if isinstance(found, Mapping) else None
        slots, origin, at = (exact.get(name, other) for name, other in _NONE) if isinstance(exact, dict) else (0, 0, 0)
        fine = isinstance(slots, dict) and isinstance(origin, str) and type(at) is int and _are_arrays(tensors, 2)
        if not fine or not _are_arrays(slots, 3):
            raise CheckpointError("The checkpoint has no passengers.json of the right kind. Use another checkpoint.")
        self.passengers, self.exact, self.origin, self.at = tensors, slots, origin, at  # type: ignore[assignment]


_NONE: tuple[tuple[str, Any], ...] = (("slots", {}), ("origin", ""), ("at", 0))


def _are_arrays(tree: Any, depth: int) -> bool:
    """Whether a tree has arrays at a depth and nothing else."""
    if not depth:
        return isinstance(tree, Array)
    return isinstance(tree, dict) and all(_are_arrays(item, depth - 1) for item in tree.values())

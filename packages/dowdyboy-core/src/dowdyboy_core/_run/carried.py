"""What a run carries along that its own framework has no place for."""

from __future__ import annotations

from dataclasses import dataclass, field

from dowdyboy_core.backend.trees import Array


@dataclass
class Carried:
    """What a run carries along that its own framework has no place for.

    Attributes:
        passengers: by the name of a model, ``model_0``, its tensors of other frameworks, by ``path/role``.
        steps: for each optimizer how many steps it had made when this run began to count them.
        counted: how many steps that was of all that the trainer counts.
    """

    passengers: dict[str, dict[str, Array]] = field(default_factory=dict)
    steps: list[int] = field(default_factory=list)
    counted: list[int] = field(default_factory=list)

    def forget(self) -> None:
        """Begins anew."""
        self.passengers, self.steps, self.counted = {}, [], []

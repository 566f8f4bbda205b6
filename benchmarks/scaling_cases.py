"""What both frameworks measure: sizes, numbers of steps, and images and labels that are the same for everyone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

BATCH, CLASSES = 32, 10
LEAD, TAIL = 3, 3
"""Steps of a block before and after the timed ones: a loader fills its buffer, and empties it."""
LIFE = 5
"""Blocks after which every contender is made anew: where its weights came to lie in memory has a speed of its own."""


@dataclass(frozen=True)
class Case:
    """What is trained, and what is done besides.

    Attributes:
        model: ``"conv"`` or ``"tiny"``.
        data: ``"tensors"``, a TensorDataset, or ``"own"``, a class that nothing is known of.
        shape: the shape of a sample.
        steps: timed steps in a block.
        recorded: keep each loss and show a bar, or nothing but the training itself.
    """

    model: str
    data: str
    shape: tuple[int, ...]
    steps: int
    recorded: bool

    @property
    def extras(self) -> str:
        """What the table says of ``recorded``."""
        return "loss+bar" if self.recorded else "bare"

    def samples(self, world_size: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Gives float32 samples and int64 labels for the steps of one block in every process."""
        generator = np.random.default_rng(7)
        count = (LEAD + self.steps + TAIL) * BATCH * world_size
        # Labels that nothing foretells: the loss stays where it is, and gradients don't vanish into slow denormals.
        return generator.standard_normal((count, *self.shape), np.float32), generator.integers(0, CLASSES, count)


CASES = [
    Case(model, data, shape, steps, recorded)
    for model, shape, steps in [("conv", (3, 32, 32), 20), ("tiny", (64,), 100)]
    for data in ("tensors", "own")
    for recorded in (False, True)
]

"""What both frameworks measure of a step: the sizes, the data, and the list that contenders enter themselves into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

BATCH, FEATURES, HIDDEN, CLASSES = 32, 64, 64, 10
LEAD = TAIL = 4
"""Steps of a block before and after the timed ones: what happens once an epoch isn't counted."""

WINDOW = 4
"""Batches that are accumulated, where any are; it divides the steps of a block."""

DATA = {
    "batches": "a list of batches, made beforehand: the loop alone",
    "tensors": "a DataLoader over the framework's TensorDataset",
    "own": "a DataLoader over a dataset class of the user's own",
}

Block = Callable[[], None]
"""Trains an epoch over the data of the job, and tells the job the time in each step."""


@dataclass
class Job:
    """What a contender is given.

    Attributes:
        data: a key of ``DATA``.
        steps: timed steps in a block.
        folder: a folder of the contender's own.
        clock: tells the time in seconds.
        marks: the time at the same place of each step of a block, before the forward pass.
        model: the contender's model, for comparing the weights in the end.
    """

    data: str
    steps: int
    folder: Path
    clock: Callable[[], float]
    marks: list[float] = field(default_factory=list)
    model: Any = None

    def mark(self) -> None:
        """Notes the time; every contender calls it in each step, before the forward pass."""
        self.marks.append(self.clock())

    def samples(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Float32 features and int64 labels for the steps of one block."""
        generator = np.random.default_rng(7)
        count = (LEAD + self.steps + TAIL) * BATCH
        # Labels that nothing foretells: the loss stays where it is, and gradients don't vanish into slow denormals.
        return generator.standard_normal((count, FEATURES), np.float32), generator.integers(0, CLASSES, count)

    def batches(self) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """The same as batches."""
        features, labels = self.samples()
        return [(features[at : at + BATCH], labels[at : at + BATCH]) for at in range(0, len(labels), BATCH)]

    def weights(self, seed: int = 11) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """Weight (out, in) and bias (out,) of each layer to begin with, the same for everyone."""
        generator = np.random.default_rng(seed)
        sizes = [(HIDDEN, FEATURES), (CLASSES, HIDDEN)]
        return [
            (generator.uniform(-0.1, 0.1, size).astype(np.float32), np.zeros(size[0], np.float32)) for size in sizes
        ]


class Contender(NamedTuple):
    """One way to write the loop.

    Attributes:
        name: what the table calls it; ours begin with "ours".
        make: builds it; gives what trains a block.
        ends: all with one word here, in one framework, must end with the same weights to the last bit.
        data: the kinds of data that it can be given.
    """

    name: str
    make: Callable[[Job], Block]
    ends: str
    data: tuple[str, ...]


CONTENDERS: list[Contender] = []


def contender(
    name: str, *, ends: str = "plain", data: tuple[str, ...] = tuple(DATA)
) -> Callable[[Callable[[Job], Block]], Callable[[Job], Block]]:
    """Enters a function into the list of contenders."""

    def enter(make: Callable[[Job], Block]) -> Callable[[Job], Block]:
        CONTENDERS.append(Contender(name, make, ends, data))
        return make

    return enter

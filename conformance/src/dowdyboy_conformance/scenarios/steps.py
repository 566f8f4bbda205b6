"""What each of several processes does, where an epoch is so many steps and the data goes on from pass to pass."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dowdyboy_conformance._data import Indexed, Restarted, plain
from dowdyboy_conformance._problem import config, layers
from dowdyboy_conformance._resuming import Killed
from dowdyboy_conformance.harnesses.harness import Harness

from .data import Declared

STEPS, KILLED_AT = 24, 15
"""Batches of all processes together, and about where the first part of a run ends."""


class EndlessOrder:
    """Batches of one index without an end, from a global stream."""

    def __iter__(self) -> Iterator[list[int]]:
        while True:
            yield [random.randrange(7)]


def _loaders(harness: Harness, rank: int) -> dict[str, Callable[[], Any]]:
    """Loaders of 7 batches, of 1, of endlessly many, and of parts that are unequal and dealt out already."""
    numbers = Indexed(7, lambda index: np.array([index, random.random()], np.float32))

    def drawn() -> Iterator[Any]:
        for number in range(7):
            yield [float(number), random.random()]

    mine = [[float(rank), float(number)] for number in range(2 + rank)]
    return {
        "indexed": lambda: harness.loader(numbers, 1, shuffle=True),
        "workers": lambda: harness.loader(numbers, 1, shuffle=True, workers=2),
        "endless": lambda: harness.batched_by(numbers, EndlessOrder()),
        "stream": lambda: Restarted(drawn),
        "short": lambda: [[0.0]],
        "dealt out": lambda: Declared(lambda: iter(mine), True),
    }


def passes(harness: Harness, out_dir: Path) -> Any:
    """The batches that this process trains on, whole, and killed within an epoch and resumed."""
    first = harness.make_trainer(config(out_dir))
    world = first.world_size
    found: dict[str, Any] = {}
    for name, make in _loaders(harness, first.rank).items():
        # Only what is taken up is saved within an epoch: a checkpoint costs more than these steps.
        settings = {"auto_optimize": False, "epoch": 4, "steps_per_epoch": STEPS // world // 4, "save_interval": 4}
        settings["save_steps"] = KILLED_AT // world

        def run(folder: Path, kill_at: int | None, make: Any = make, settings: Any = settings) -> list[Any]:
            seen: list[Any] = []
            trainer = harness.make_trainer(config(folder, enable_save_checkpoint=True, resume="auto", **settings))
            trainer.set_model(harness.model(layers(1, 1)))
            trainer.set_train_dataloader(make())

            def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
                if global_step == kill_at:
                    raise Killed
                seen.append([trainer.epoch, plain(harness, bat)])

            with contextlib.suppress(Killed):
                trainer.fit(step)
            return seen

        killed = run(out_dir / name / "killed", KILLED_AT // world)
        found[name] = {"whole": run(out_dir / name / "whole", None)}
        found[name]["parts"] = killed + run(out_dir / name / "killed", None)
    return found

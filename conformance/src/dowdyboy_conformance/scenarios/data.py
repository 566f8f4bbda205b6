"""What each of several processes does, where the question is whose data it is: dealt out already, or unequally."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dowdyboy_conformance._data import Indexed, Restarted, plain
from dowdyboy_conformance._problem import config, layers
from dowdyboy_conformance.harnesses.harness import Harness


class Part:
    """A batch sampler that deals out the indices by itself, with another order in each epoch."""

    def __init__(self, rank: int, world_size: int, size: int) -> None:
        self.num_replicas, self.rank = world_size, rank
        self._size = size

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.permutation(self._size).tolist()
        return iter([[index] for index in order[self.rank :: self.num_replicas]])

    def __len__(self) -> int:
        return len(range(self.rank, self._size, self.num_replicas))


class Declared(Restarted):
    """Batches of this process's own, or not, as it is said."""

    def __init__(self, start: Callable[[], Iterator[Any]], dealt_out: bool) -> None:
        super().__init__(start)
        self.dealt_out = dealt_out


def _loaders(harness: Harness, rank: int, world: int) -> dict[str, Callable[[], Any]]:
    """Loaders by name; those with a sampler of 4 batches for each process, and streams of as many and more."""
    numbers = Indexed(4 * world, lambda index: np.float32(index))

    def stream(size: int) -> Callable[[], Iterator[Any]]:
        return lambda: iter([[float(number)] for number in range(rank, size, world)])

    def shuffled() -> Iterator[Any]:
        order = random.sample(range(4 * world), 4 * world)[rank::world]
        for number in order:
            yield [float(number), random.random()]

    mine = Indexed(4, lambda index: np.float32(index * world + rank))
    unseeded = random.Random(rank)
    restless = Indexed(4 * world, lambda index: np.float32(index + unseeded.random() / 2))
    return {
        "sampler": lambda: harness.batched_by(numbers, Part(rank, world, 4 * world)),
        "sampler for others": lambda: harness.batched_by(numbers, Part(0, world + 1, 4 * world)),
        "one part for all": lambda: harness.batched_by(numbers, Part(0, world, 4 * world)),
        "uneven sampler": lambda: harness.batched_by(numbers, Part(rank, world, 4 * world - 1)),
        "stream": lambda: harness.loader(harness.stream(lambda: iter(np.arange(rank, 9, world, dtype=np.float32))), 1),
        "list": lambda: [*stream(4 * world)()],
        "list of other length": lambda: [[0.0]] * (4 + rank),
        "own dataset": lambda: harness.loader(mine, 1),
        "declared": lambda: Declared(stream(4 * world), True),
        "declared, shuffled": lambda: Declared(shuffled, True),
        "declared, last round not full": lambda: Declared(stream(4 * world + 1), True),
        "declared, uneven": lambda: Declared(lambda: iter([[float(rank)]] * (2 + 2 * rank)), True),
        "declared, nothing for one": lambda: Declared(lambda: iter([[1.0]] * rank), True),
        "declared as one": lambda: Declared(stream(4 * world), False),
        "unseeded augmentation": lambda: harness.loader(restless, 1),
    }


def parts(harness: Harness, out_dir: Path) -> Any:
    """What this process trains on, as (epoch, batch), and what is recorded; or the error."""
    found: dict[str, Any] = {}
    first = harness.make_trainer(config(out_dir))
    for name, make in _loaders(harness, first.rank, first.world_size).items():
        seen: list[Any] = []
        recorded: list[Any] = []
        trainer = harness.make_trainer(config(out_dir, auto_optimize=False, epoch=2))
        trainer.set_model(harness.model(layers(1, 1)))

        def step(trainer: Any, bat: Any, bat_idx: int, global_step: int, seen: list[Any] = seen) -> None:
            seen.append([trainer.epoch, plain(harness, bat)])
            trainer.set_records({"seen": float(plain(harness, bat)[0])})

        def end(trainer: Any, ep: int, recorded: list[Any] = recorded) -> None:
            recorded.append(harness.numpy(trainer.get_records()["seen"]).tolist())

        try:
            trainer.set_train_dataloader(make())
            trainer.fit(step, None, end)
            found[name] = {"seen": seen, "recorded": recorded}
        except Exception as error:
            found[name] = {"error": type(error).__name__, "text": str(error), "seen": seen}
    return found

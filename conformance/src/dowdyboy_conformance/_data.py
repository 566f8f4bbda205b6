"""Datasets of the checks' own."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dowdyboy_conformance.harnesses.harness import Harness

from ._problem import config, data, layers


class Indexed:
    """Data read by index, made by a function."""

    def __init__(self, size: int, make: Callable[[int], Any]) -> None:
        self.size = size
        self.make = make

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        return self.make(index)


class Augmented:
    """The samples of ``data`` with noise from Python's, NumPy's and the framework's global streams."""

    def __init__(self, harness: Harness, samples: int) -> None:
        self.harness = harness
        self.features, self.classes = data(samples)

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> Any:
        noise = random.random() + np.random.rand() + self.harness.draw()
        return self.features[index] * np.float32(1 + 0.1 * noise), self.classes[index]


class Restarted:
    """An iterable that can be run through again and again and, unlike a list, has no length."""

    def __init__(self, start: Callable[[], Iterator[Any]]) -> None:
        self.start = start

    def __iter__(self) -> Iterator[Any]:
        return self.start()


class Stateful:
    """Batches of a dataset in an order of its own, which say where they are, and go on from there.

    Args:
        dataset: read by index, each index once a pass.
        state: changes what it says of itself.
    """

    def __init__(self, dataset: Any, state: Callable[[dict[str, Any]], Any] = lambda state: state) -> None:
        self.dataset = dataset
        self.given = state
        self.asked = 0
        self.order_of = 0  # of which process the order is
        self._bits = np.random.PCG64(5)
        self._order: list[int] = []
        self._next: dict[str, Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        if self._next is not None:
            self._order, self._bits.state = self._next["order"], self._next["bits"]
            self._next = None
        else:
            self._bits = np.random.PCG64(random.getrandbits(32) + self.order_of)
            self._order = np.random.Generator(self._bits).permutation(len(self.dataset)).tolist()
        return self._batches()

    def _batches(self) -> Iterator[Any]:
        while self._order:
            index, self._order = self._order[0], self._order[1:]
            noise = np.random.Generator(self._bits).random(), random.random()
            yield [*self.dataset[index], *noise]

    def state_dict(self) -> Any:
        """Where it is: what is left of the order, and the generator that it draws from."""
        self.asked += 1
        return self.given({"order": self._order, "bits": self._bits.state, "array": np.arange(2), "nothing": None})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Begins there the next time."""
        assert state["array"].tolist() == [0, 1]
        self._next = state


def plain(harness: Harness, value: Any) -> Any:
    """A batch with lists for its tensors."""
    if harness.is_tensor(value):
        return harness.numpy(value).tolist()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(harness, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(harness, item) for item in value]
    return value


def batches(
    harness: Harness,
    out_dir: Any,
    loader: Any,
    *,
    role: str = "train",
    then: Callable[[], Any] = lambda: None,
    **changed: Any,
) -> list[Any]:
    """What the hooks get from a loader, as (epoch, batch), over all epochs; they call ``then`` for each batch."""
    trainer = harness.make_trainer(config(out_dir, auto_optimize=False, **changed))
    trainer.set_model(harness.model(layers(1, 1)))
    getattr(trainer, f"set_{role}_dataloader")(loader)
    seen: list[Any] = []

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        seen.append((trainer.epoch, bat))
        then()

    if role == "test":
        trainer.test(step)
    elif role == "val":
        trainer.set_train_dataloader([0])
        trainer.fit(lambda *_: None, step)
    else:
        trainer.fit(step)
    return seen

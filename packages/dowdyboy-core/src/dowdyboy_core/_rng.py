"""The global random streams of a process: python's, numpy's and the framework's, taken together."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from . import rand


class FrameworkStreams(Protocol):
    """What a backend says of its own generators."""

    def seed(self, seed: int) -> None:
        """Seeds them on all devices."""

    def get_rng_state(self) -> Any:
        """Their state, as a tree."""

    def set_rng_state(self, state: Any) -> None:
        """Puts a state back."""


class RandomStreams:
    """Seeds, saves and restores all global random streams together."""

    def __init__(self, framework: FrameworkStreams) -> None:
        self._framework = framework

    def seed(self, seed: int) -> None:
        """Seeds every stream."""
        rand.set_seed(seed)
        self._framework.seed(seed)

    def capture(self) -> dict[str, Any]:
        """Gives the state of every stream, as a tree."""
        import numpy as np

        version, internal, gauss = random.getstate()
        kind, keys, position, has_gauss, cached = np.random.get_state()
        return {
            "python": (version, internal, gauss),
            "numpy": (kind, [int(key) for key in keys], int(position), int(has_gauss), float(cached)),
            "framework": self._framework.get_rng_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Puts every stream into a state that ``capture`` gave."""
        import numpy as np

        random.setstate(state["python"])
        np.random.set_state(state["numpy"])
        self._framework.set_rng_state(state["framework"])

    @contextmanager
    def isolated(self, seed: int) -> Iterator[None]:
        """Runs a block with every stream seeded with ``seed``, and puts the streams back afterwards."""
        import numpy as np

        put_back: list[tuple[Callable[[Any], None], Any]] = [
            (random.setstate, random.getstate()),
            (np.random.set_state, np.random.get_state()),
            (self._framework.set_rng_state, self._framework.get_rng_state()),
        ]
        self.seed(seed)
        try:
            yield
        finally:
            for restore, state in put_back:
                restore(state)

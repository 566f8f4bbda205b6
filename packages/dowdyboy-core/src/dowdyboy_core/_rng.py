"""The global random streams of a process: python's, numpy's and the framework's, taken together."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from . import rand

if TYPE_CHECKING:
    import numpy as np


class FrameworkStreams(Protocol):
    """What a backend says of its own generators."""

    def seed(self, seed: int) -> None:
        """Seeds them on all devices."""

    def get_rng_state(self) -> Any:
        """Their state, as a tree."""

    def set_rng_state(self, state: Any) -> None:
        """Puts a state back."""

    def remember_rng(self) -> Callable[[], None]:
        """A function that puts them back to where they are now."""


class RandomStreams:
    """Seeds, saves and restores all global random streams together."""

    def __init__(self, framework: FrameworkStreams) -> None:
        self._framework = framework
        self._spares: list[np.random.MT19937] = []  # one in use for each running ``isolated``

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

        numpy_random: Any = np.random  # whose stubs leave out two functions
        of_python, put_framework_back = random.getstate(), self._framework.remember_rng()
        # This runs for every batch, and numpy takes longest to put a state back. So another generator stands in for
        # its own, which needs no putting back; but what is left of a pair of normal numbers gets lost by that.
        of_numpy, generator = np.random.get_state(legacy=False), numpy_random.get_bit_generator()
        spare = self._spares.pop() if self._spares else np.random.MT19937()
        numpy_random.set_bit_generator(spare)
        try:
            self.seed(seed)
            yield
        finally:
            random.setstate(of_python)
            numpy_random.set_bit_generator(generator)
            if of_numpy["has_gauss"]:
                np.random.set_state(of_numpy)
            put_framework_back()
            self._spares.append(spare)

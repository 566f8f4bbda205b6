"""The global random streams of a process: python's, numpy's and the framework's, taken together."""

from __future__ import annotations

import ctypes
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

    def remember_rng(self) -> Callable[[], None]:
        """A function that puts them back to where they are now."""


class RandomStreams:
    """Seeds, saves and restores all global random streams together."""

    def __init__(self, framework: FrameworkStreams) -> None:
        self._framework = framework
        self._numpy = _NumpyStream()

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
        of_python, put_framework_back = random.getstate(), self._framework.remember_rng()
        put_numpy_back = self._numpy.set_aside()
        try:
            self.seed(seed)
            yield
        finally:
            random.setstate(of_python)
            put_numpy_back()
            put_framework_back()


class _NumpyStream:
    """Sets numpy's global stream aside and puts it back, for every batch, and so in a few microseconds.

    To ask numpy for the state takes a hundred times as long, and to put one back, too. So another generator stands in
    for its own, which then needs no putting back. But numpy draws normal numbers in pairs and keeps the second, which
    it loses when its generator is exchanged, and only its state tells whether there is one. There is none where there
    was none before and the generator has not moved since.
    """

    def __init__(self) -> None:
        self._spares: list[Any] = []  # one in use for each stream set aside
        self._without: tuple[Any, bytes] | None = None  # a generator, and where it stood when no number was kept

    def set_aside(self) -> Callable[[], None]:
        """Gives the function that puts the stream back."""
        import numpy as np

        numpy_random: Any = np.random  # whose stubs leave out two functions
        generator = numpy_random.get_bit_generator()
        here = _place_of(generator)
        kept = None
        if here is None or self._without is None or self._without[0] is not generator or self._without[1] != here:
            state = np.random.get_state(legacy=False)
            kept = state if state["has_gauss"] else None
        spare = self._spares.pop() if self._spares else np.random.MT19937()
        numpy_random.set_bit_generator(spare)

        def put_back() -> None:
            numpy_random.set_bit_generator(generator)
            if kept is not None:
                np.random.set_state(kept)
            self._without = None if kept is not None or here is None else (generator, here)
            self._spares.append(spare)

        return put_back


def _place_of(generator: Any) -> bytes | None:
    """The 624 words and the position of numpy's usual generator as they are in memory; None for another kind."""
    if type(generator).__name__ != "MT19937":
        return None
    return ctypes.string_at(generator.ctypes.state_address, 4 * 624 + 4)

"""The global random streams of a process: python's, numpy's and the framework's, taken together."""

from __future__ import annotations

import ctypes
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from dowdyboy_core import rand


class FrameworkStreams(Protocol):
    """What a backend says of its own generators."""

    def seed(self, seed: int) -> None:
        """Seeds them on all devices."""

    def get_rng_state(self) -> Any:
        """Their state, as a tree."""

    def set_rng_state(self, state: Any) -> None:
        """Puts a state back."""

    def set_rng_aside(self, seed: int) -> Callable[[], None]:
        """Seeds them, and gives a function that puts them back."""


class RandomStreams:
    """Seeds, saves and restores all global random streams together."""

    def __init__(self, framework: FrameworkStreams) -> None:
        self._framework = framework
        self._python = _PythonStream()
        self._numpy = _NumpyStream()

    def __reduce__(self) -> tuple[type[RandomStreams], tuple[FrameworkStreams]]:
        return type(self), (self._framework,)  # another process has streams of its own, at addresses of their own

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

    def set_aside(self, seed: int) -> Callable[[], None]:
        """Seeds every stream with ``seed``, and gives a function that puts the streams back to where they were."""
        put_python_back, put_numpy_back = self._python.set_aside(), self._numpy.set_aside()
        rand.set_seed(seed)
        put_framework_back = self._framework.set_rng_aside(seed)

        def put_back() -> None:
            put_python_back()
            put_numpy_back()
            put_framework_back()

        return put_back

    @contextmanager
    def isolated(self, seed: int) -> Iterator[None]:
        """Runs a block with every stream seeded with ``seed``, and puts the streams back afterwards."""
        put_back = self.set_aside(seed)
        try:
            yield
        finally:
            put_back()


class _PythonStream:
    """Sets the stream of Python's ``random`` aside and puts it back, for every batch.

    ``random.getstate`` makes a tuple of 625 ints. CPython keeps them as 32-bit words at the start of the object, the
    position before the key. Where they are found there, they are copied as they are, in a tenth of the time.
    """

    _SIZE = 4 + 4 * 624

    def __init__(self) -> None:
        self._owner: Any = random.getstate.__self__  # type: ignore[attr-defined] # whose methods the functions are
        self._words = self._find_words()

    def _find_words(self) -> memoryview | None:
        if type(self._owner) is not random.Random or random.Random.__basicsize__ < object.__basicsize__ + self._SIZE:
            return None
        words = _memory(id(self._owner) + object.__basicsize__, self._SIZE)
        *key, position = random.getstate()[1]
        return words if words == struct.pack("=625I", position, *key) else None

    def set_aside(self) -> Callable[[], None]:
        """Gives the function that puts the stream back."""
        words = self._words
        if words is None:
            return partial(random.setstate, random.getstate())
        kept, gauss = words.tobytes(), self._owner.gauss_next

        def put_back() -> None:
            words[:] = kept
            self._owner.gauss_next = gauss

        return put_back


class _NumpyStream:
    """Sets numpy's global stream aside and puts it back, for every batch, and so in a few microseconds.

    To ask numpy for the state takes a hundred times as long, and to put one back, too. So another generator stands in
    for its own, which then needs no putting back. But numpy draws normal numbers in pairs and keeps the second, which
    it loses when its generator is exchanged, and only its state tells whether there is one. There is none where there
    was none before and the generator has not moved since.
    """

    def __init__(self) -> None:
        self._spares: list[Any] = []  # one in use for each stream set aside
        self._generator: Any = None  # numpy's own, when last looked at
        self._words: memoryview | None = None  # the state of that
        self._without: bytes | None = None  # where it stood when no number was kept

    def set_aside(self) -> Callable[[], None]:
        """Gives the function that puts the stream back."""
        import numpy as np

        numpy_random: Any = np.random  # whose stubs leave out two functions
        generator = numpy_random.get_bit_generator()
        if generator is not self._generator:
            self._generator, self._words, self._without = generator, _words_of(generator), None
        here = None if self._words is None else self._words.tobytes()
        kept = None
        if here is None or here != self._without:
            state = np.random.get_state(legacy=False)
            kept = state if state["has_gauss"] else None
        spare = self._spares.pop() if self._spares else np.random.MT19937()
        numpy_random.set_bit_generator(spare)

        def put_back() -> None:
            numpy_random.set_bit_generator(generator)
            if kept is not None:
                np.random.set_state(kept)
            if generator is self._generator:
                self._without = here if kept is None else None
            self._spares.append(spare)

        return put_back


def _words_of(generator: Any) -> memoryview | None:
    """The 624 words and the position of numpy's usual generator, where they are in memory; None for another kind."""
    if type(generator).__name__ != "MT19937":
        return None
    return _memory(generator.ctypes.state_address, 4 * 624 + 4)


def _memory(address: int, size: int) -> memoryview:
    return memoryview((ctypes.c_char * size).from_address(address)).cast("B")

"""Loaders that read in a way of their own: run as they are, with as little as possible slipped in below them.

A subclass of a framework's loader whose ``__iter__`` filters, mixes or repeats batches builds on what its base class
reads. A class of the backend's is put between the two while the trainer reads, so that the base class reads in this
thread or in workers that end with the run, and the user's object is otherwise what it was.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import suppress
from typing import Any

_READERS = "_readers_of_the_trainer"
"""Where a loader keeps what was started to read from it, for each epoch under way: a hook may begin one in another."""

_IN_USE: dict[type, int] = {}
"""How often each of the user's classes stands on one of the backend's right now."""


def reads_for_itself(kind: type, native: type, names: Collection[str]) -> bool:
    """Whether a subclass of a framework's loader has methods or properties of its own with one of some names."""
    above = kind.__mro__[: kind.__mro__.index(native)]
    found = (vars(cls).get(name) for cls in above for name in names)
    return any(hasattr(item, "__get__") for item in found)  # not a mere default, which instances have a value for


class OwnReading(Iterator[Any]):
    """One epoch of a loader that reads for itself, or of an object around such loaders.

    Args:
        loader: the user's object.
        between: the backend's class below which the framework's loader stands.
        end: ends what one of the readers that were noted has at work.
    """

    def __init__(self, loader: Any, between: type, end: Callable[[Any], None]) -> None:
        self._end = end
        self._between = between
        self._changed = _loaders_in(loader, between.__mro__[1])
        self._readers: list[Any] = []
        for item in self._changed:
            _slip_in(item, between)
            vars(item).setdefault(_READERS, []).append(self._readers)
        try:
            self.batches = iter(loader)
        except BaseException:
            self.put_back()
            raise

    def __next__(self) -> Any:
        try:
            return next(self.batches)
        except BaseException:
            self.put_back()
            raise

    def put_back(self) -> None:
        """Has the user's objects stand on the framework's class again."""
        changed, self._changed = self._changed, []
        for item in changed:
            epochs = vars(item)[_READERS]
            epochs[:] = [readers for readers in epochs if readers is not self._readers]
            if not epochs:
                del vars(item)[_READERS]
            _take_out(item, self._between)

    def close(self) -> None:
        """Leaves the epoch where it stands, and ends the workers that read for it."""
        self.put_back()
        close_generator(self.batches)
        for reference in self._readers:
            reader = reference()
            if reader is not None:
                self._end(reader)


def note_reader(loader: Any, reader: Any) -> Any:
    """Has the workers of ``reader`` end with the epoch for which it was started."""
    epochs = vars(loader).get(_READERS)
    if epochs:
        epochs[-1].append(weakref.ref(reader))  # of the epoch that a hook of another one's reads, if there is one
    return reader


def close_generator(batches: Any) -> None:
    """Ends a generator where it stands, and with it what it reads from; an iterator of another kind may be kept."""
    if isinstance(batches, Generator):
        batches.close()


def _loaders_in(loader: Any, native: type) -> list[Any]:
    if native in type(loader).__mro__:
        return [loader]
    return [item for item in getattr(loader, "__dict__", {}).values() if native in type(item).__mro__]


def _slip_in(item: Any, between: type) -> None:
    # Not by a subclass of the user's class: that would call itself where it says super(type(self), self).
    native = between.__mro__[1]
    if type(item) is native:
        item.__class__ = between
    for kind in type(item).__mro__:
        if kind is not between and (native in kind.__bases__ or between in kind.__bases__):
            _IN_USE[kind] = _IN_USE.get(kind, 0) + 1
            _exchange(kind, native, between)


def _take_out(item: Any, between: type) -> None:
    native = between.__mro__[1]
    if type(item) is between and _READERS not in vars(item):  # nor does another epoch read from it
        item.__class__ = native
    for kind in type(item).__mro__:
        if kind in _IN_USE:
            _IN_USE[kind] -= 1
            if not _IN_USE[kind]:
                del _IN_USE[kind]
                _exchange(kind, between, native)


def _exchange(kind: type, one: type, other: type) -> None:
    with suppress(TypeError):  # a class that won't have it, and then reads as it would elsewhere
        kind.__bases__ = tuple(other if base is one else base for base in kind.__bases__)

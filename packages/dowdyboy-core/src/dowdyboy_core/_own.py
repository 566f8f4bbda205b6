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
        self._changed = [(item, type(item)) for item in _loaders_in(loader, between.__mro__[1])]
        self._readers: list[Any] = []
        for item, kind in self._changed:
            if not issubclass(kind, between):
                with suppress(TypeError):  # an object of another layout, which then reads as it would elsewhere
                    item.__class__ = _slipped_in(kind, between)
            vars(item)[_READERS] = self._readers
        try:
            self._batches = iter(loader)
        except BaseException:
            self.put_back()
            raise

    def __next__(self) -> Any:
        try:
            return next(self._batches)
        except BaseException:
            self.put_back()
            raise

    def put_back(self) -> None:
        """Gives the user's objects their own classes again."""
        changed, self._changed = self._changed, []
        for item, kind in changed:
            vars(item).pop(_READERS, None)
            if type(item) is not kind:
                item.__class__ = kind

    def close(self) -> None:
        """Leaves the epoch where it stands, and ends the workers that read for it."""
        self.put_back()
        close_generator(self._batches)
        for reference in self._readers:
            reader = reference()
            if reader is not None:
                self._end(reader)


def note_reader(loader: Any, reader: Any) -> Any:
    """Has the workers of ``reader`` end with the epoch for which it was started."""
    readers = vars(loader).get(_READERS)
    if readers is not None:
        readers.append(weakref.ref(reader))
    return reader


def close_generator(batches: Any) -> None:
    """Ends a generator where it stands, and with it what it reads from; an iterator of another kind may be kept."""
    if isinstance(batches, Generator):
        batches.close()


def _loaders_in(loader: Any, native: type) -> list[Any]:
    if native in type(loader).__mro__:
        return [loader]
    return [item for item in getattr(loader, "__dict__", {}).values() if native in type(item).__mro__]


def _slipped_in(kind: Any, between: Any) -> Any:
    if kind in between.__mro__:
        return between
    named = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind, between), named)

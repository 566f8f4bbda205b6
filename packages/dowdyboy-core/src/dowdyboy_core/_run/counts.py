"""Numbers by object, of objects that may go and others take their place."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any


class Counts:
    """A number for each object, none of which is kept alive; an object is told from one that is at its old address."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Callable[[], Any], int]] = {}

    def __getitem__(self, thing: Any) -> int:
        """The number of an object, 0 if it has none."""
        refers, number = self._known.get(id(thing), (_nothing, 0))
        return number if refers() is thing else 0

    def __setitem__(self, thing: Any, number: int) -> None:
        """Gives an object a number."""
        refers, _ = self._known.get(id(thing), (_nothing, 0))
        self._known[id(thing)] = refers if refers() is thing else _reference(thing), number


def _nothing() -> None:
    return None


def _reference(thing: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(thing)
    except TypeError:  # of a class that allows none
        return lambda: thing

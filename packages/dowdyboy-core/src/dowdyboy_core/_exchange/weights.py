"""The weights of one framework's model as those of another's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dowdyboy_core._errors import CheckpointError
from dowdyboy_core.backend.layouts import PASSENGERS, default_of
from dowdyboy_core.backend.trees import Array
from dowdyboy_core.backend.words import ModelWords, Place

from .arrays import filled, from_neutral, holds_only, to_neutral
from .pairing import Key, Pair

Passengers = dict[str, Array]
"""What travels along, by ``path/role``."""


def converted(
    stored: Mapping[str, Array],
    pairs: Mapping[Key, Pair],
    target: ModelWords,
    dtype_of: Callable[[str], str],
    passengers: Mapping[str, Array],
) -> dict[str, Array]:
    """The arrays that a model takes up.

    Args:
        stored: the arrays of the other model, under all of their names.
        pairs: which tensor is which.
        target: what the model that takes up consists of.
        dtype_of: the type of the model's own array of a name, for what the other hasn't.
        passengers: what came along from a model of this framework's own.

    Raises:
        CheckpointError: an array is missing, or is not as it is described.
    """
    pieces: dict[str, list[tuple[Place, Array]]] = {}
    for key, one in pairs.items():
        if one.target is not None:
            array = _given(key, one, stored, dtype_of, passengers)
            pieces.setdefault(one.target.array, []).append((one.target, array))
    found = {name: _joined(name, given, pairs, stored) for name, given in pieces.items()}
    return found | {alias: found[first] for alias, first in target.tied.items() if first in found}


def _given(
    key: Key,
    one: Pair,
    stored: Mapping[str, Array],
    dtype_of: Callable[[str], str],
    passengers: Mapping[str, Array],
) -> Array:
    """The neutral tensor of a pair."""
    if one.source is not None:
        if one.source.array not in stored:
            raise CheckpointError(
                f"The array {one.source.array!r} is missing. The checkpoint is not whole; use another."
            )
        return to_neutral(one.source, stored[one.source.array])
    assert one.target is not None
    path, role = key
    carried = passengers.get(f"{path}/{role}")
    if carried is not None:
        return carried
    value = default_of(one.kind, role) or 0.0  # 0 for what is made up of passengers
    return filled(dtype_of(one.target.array), one.target.stored, value)


def _joined(
    name: str, given: list[tuple[Place, Array]], pairs: Mapping[Key, Pair], stored: Mapping[str, Array]
) -> Array:
    """One array of the model's own, of which tied layers may each give the same."""
    distinct: dict[Any, tuple[Place, Array]] = {}
    for place, array in given:
        known = distinct.setdefault(place.rows, (place, array))
        if known[1] is not array and bytes(known[1].data) != bytes(array.data):
            raise CheckpointError(
                f"{name!r} is one tensor here, tied, and there are several that differ there. Tie them there, or "
                "untie them here."
            )
    pieces = list(distinct.values())
    source = next((one.source for one in pairs.values() if one.target == pieces[0][0]), None)
    if len(pieces) == 1 and source is not None and _lies_alike(source, pieces[0][0]):
        return stored[source.array]
    return from_neutral(pieces)


def _lies_alike(source: Place, target: Place) -> bool:
    return source.rows is None and target.rows is None and source.axes == target.axes and source.stored == target.stored


def left_behind(stored: Mapping[str, Array], pairs: Mapping[Key, Pair]) -> tuple[Passengers, list[str]]:
    """What of the other model has no place in this one.

    Returns:
        What travels along, and what can't be left out, in words: a tensor that this model fixes at another value.
    """
    along, problems = Passengers(), []
    for (path, role), one in pairs.items():
        if one.target is not None or one.source is None:
            continue
        array = to_neutral(one.source, stored[one.source.array])
        if (one.kind, role) in PASSENGERS:
            if not holds_only(array, 0):  # which is what is made up where there is none
                along[f"{path}/{role}"] = array
        elif (value := default_of(one.kind, role)) is not None and not holds_only(array, value):
            problems.append(f"{path}: {role} ({one.kind}) is {value:g} here and trained there: make the layer with it")
    return along, problems

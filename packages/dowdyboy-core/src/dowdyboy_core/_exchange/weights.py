"""The weights of one framework's model as those of another's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from dowdyboy_core._errors import CheckpointError
from dowdyboy_core.backend.arrays import Array
from dowdyboy_core.backend.layouts import PASSENGERS, default_of, neutral_shape
from dowdyboy_core.backend.words import ModelWords, Place

from .arrays import filled, from_neutral, holds_only, to_neutral
from .pairing import Key, Pair

Passengers = dict[str, Array]
"""What travels along, by ``path/role``."""


def converted(
    stored: dict[str, Array],
    pairs: Mapping[Key, Pair],
    target: ModelWords,
    layout: Mapping[str, Array],
    passengers: Mapping[str, Array],
) -> dict[str, Array]:
    """The arrays that a model takes up.

    Args:
        stored: the arrays of the other model, under all of their names; each is dropped once it is done with, so that
            not all of them are in memory twice.
        pairs: which tensor is which.
        target: what the model that takes up consists of.
        layout: the types and shapes of the model's own arrays, for what the other hasn't.
        passengers: what came along from a model of this framework's own.

    Raises:
        CheckpointError: an array is missing, or is not as it is described.
    """
    wanted: dict[str, list[tuple[Key, Pair]]] = {}
    uses: Counter[str] = Counter()
    for key, one in pairs.items():
        if one.target is not None:
            wanted.setdefault(one.target.array, []).append((key, one))
            uses.update([] if one.source is None else [one.source.array])
    found = {}
    for name, given in wanted.items():
        found[name] = _joined(name, given, stored, layout, passengers)
        for _, one in given:
            if one.source is not None:
                uses[one.source.array] -= 1
                if not uses[one.source.array]:
                    stored.pop(one.source.array, None)
    return found | {alias: found[first] for alias, first in target.tied.items() if first in found}


def _given(
    key: Key,
    one: Pair,
    stored: Mapping[str, Array],
    layout: Mapping[str, Array],
    passengers: Mapping[str, Array],
) -> Array:
    """The neutral tensor of a pair."""
    if one.source is not None:
        return to_neutral(one.source, _stored(one.source.array, stored))
    assert one.target is not None
    path, role = key
    carried = passengers.get(f"{path}/{role}")
    if carried is not None:
        if tuple(carried.shape) != neutral_shape(one.target):
            raise CheckpointError(
                f"passengers.json has {path}/{role} of shape {tuple(carried.shape)}, which is {one.target.stored} "
                "here. Use another checkpoint."
            )
        return carried
    value = default_of(one.kind, role) or 0.0  # 0 for what is made up of passengers
    return filled(layout[one.target.array].dtype, one.target.stored, value)


def _joined(
    name: str,
    given: list[tuple[Key, Pair]],
    stored: Mapping[str, Array],
    layout: Mapping[str, Array],
    passengers: Mapping[str, Array],
) -> Array:
    """One array of the model's own, of which tied layers may each give the same."""
    [(_, first), *others] = given
    assert first.target is not None
    if not others and first.source is not None and _lies_alike(first.source, first.target):
        return _stored(first.source.array, stored)
    distinct: dict[Any, tuple[Place, Array]] = {}
    for key, one in given:
        assert one.target is not None
        place, array = one.target, _given(key, one, stored, layout, passengers)
        known = distinct.setdefault(place.rows, (place, array))
        if known[1] is not array and bytes(known[1].data) != bytes(array.data):
            raise CheckpointError(
                f"{name!r} is one tensor here, tied, and there are several that differ there. Tie them there, or "
                "untie them here."
            )
    return from_neutral(list(distinct.values()))


def _stored(name: str, stored: Mapping[str, Array]) -> Array:
    if name not in stored:
        raise CheckpointError(f"The array {name!r} is missing. The checkpoint is not whole; use another.")
    return stored[name]


def _lies_alike(source: Place, target: Place) -> bool:
    return source.rows is None and target.rows is None and source.axes == target.axes and source.stored == target.stored


def undescribed(stored: Iterable[str], source: ModelWords) -> list[str]:
    """The arrays of a model that its description says nothing of."""
    said = {place.array for layer in source.layers for place in layer.places.values()} | source.tied.keys()
    return [name for name in stored if name not in said]


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

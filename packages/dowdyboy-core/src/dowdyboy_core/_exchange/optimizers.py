"""The state of one framework's optimizer as that of another's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dowdyboy_core._errors import CheckpointError
from dowdyboy_core.backend.arrays import Array, to_numpy
from dowdyboy_core.backend.words import OptimizerWords, Place, Slot

from .arrays import filled, from_neutral, holds_only, to_neutral
from .pairing import Key, Pair
from .slots import FUNCTIONS, count_of, slot_of, width_of_number

NeutralName = tuple[int, Key]
"""The number of a model, and a tensor in it."""

At = Mapping[str, list[tuple[NeutralName, Place]]]
"""For the name of each parameter, ``J/PATH``, the neutral tensors that lie in it."""


Exact = dict[str, dict[str, Any]]
"""Slots as they were before they were made into others, by parameter and name."""


@dataclass
class _State:
    """What an optimizer knows of one neutral tensor."""

    steps: int = 0
    tensors: dict[str, Array] = field(default_factory=dict)  # by meaning, in the neutral layout
    numbers: dict[str, tuple[str, float]] = field(default_factory=dict)  # by meaning: type and value


def steps_of(words: OptimizerWords, state: Mapping[str, Mapping[str, Any]], otherwise: int) -> dict[str, int]:
    """How many steps each parameter has been moved, by its name.

    Args:
        words: what the optimizer is.
        state: its slots of each parameter.
        otherwise: the number where the optimizer itself doesn't tell.
    """
    tellers = [slot for slot in words.slots if slot.meaning == "step"]
    found = {}
    for name, slots in state.items():
        counts = (count_of(slot, slots[slot.name]) for slot in tellers if isinstance(slots.get(slot.name), Array))
        found[name] = next((count for count in counts if count is not None), otherwise)
    return found


def lying_at(pairs: Mapping[int, Mapping[Key, Pair]], side: str, tied: Mapping[int, Mapping[str, str]]) -> At:
    """Where the neutral tensors of all models lie on one side, ``'source'`` or ``'target'``.

    Args:
        pairs: those of each model.
        side: which side.
        tied: for each model the further names of its tensors, with the first ones.
    """
    found: dict[str, list[tuple[NeutralName, Place]]] = {}
    for number, of_model in pairs.items():
        for key, one in of_model.items():
            place = getattr(one, side)
            if place is not None:
                found.setdefault(f"{number}/{place.array}", []).append(((number, key), place))
        for alias, first in tied.get(number, {}).items():
            found.setdefault(f"{number}/{alias}", []).extend(found.get(f"{number}/{first}", []))
    return found


def check_kinds(number: int, source: OptimizerWords, target: OptimizerWords) -> None:
    """Refuses the state of another kind of optimizer.

    Raises:
        CheckpointError: they are of different kinds, or no rule is known.
    """
    for words, where in ((source, "in the checkpoint"), (target, "here")):
        if words.kind is None:
            raise CheckpointError(
                f"Optimizer {number} is a {words.cls} {where}, of which no rule says how its state crosses. Load the "
                "weights alone with weights_only=True, or use one of docs/exchange.md on both sides."
            )
    if source.kind != target.kind:
        raise CheckpointError(
            f"Optimizer {number} is a {source.cls} ({source.kind}) in the checkpoint and a {target.cls} "
            f"({target.kind}) here. Make the one of the same kind, or load the weights alone with weights_only=True."
        )


def converted(
    source: OptimizerWords,
    state: dict[str, Mapping[str, Any]],
    steps: Mapping[str, int],
    theirs: At,
    target: OptimizerWords,
    rates: Mapping[str, float],
    ours: At,
    their_rates: Mapping[str, float],
) -> dict[str, dict[str, Array]]:
    """The slots that an optimizer takes up, by the names of its parameters.

    Args:
        source: what the other optimizer is.
        state: its slots of each parameter, which are dropped once they are done with.
        steps: how many steps each of these was moved.
        theirs: where the neutral tensors lie there.
        target: what the optimizer that takes up is.
        rates: the names of its parameters, with the learning rate that each is moved by next.
        ours: where the neutral tensors lie here.
        their_rates: the same there.

    Raises:
        CheckpointError: a parameter has no slots there that has some of another's here, or none is known of.
    """
    lying = {key: (name, place) for name in state for key, place in theirs.get(name, ())}
    left = {name: {key for key, _ in theirs.get(name, ())} for name in state}
    found = dict[str, dict[str, Array]]()
    for name, rate in rates.items() if target.slots else ():
        keys = ours.get(name, ())
        there = [(key, at, *lying[key]) for key, at in keys if key in lying]
        if not there:
            continue
        known = [
            (at, _taken(source, origin, state[origin], steps.get(origin, 0), place, their_rates.get(origin, 0.0)))
            for _, at, origin, place in there
        ]
        if len(known) != len(keys) or len({one.steps for _, one in known}) > 1:
            raise CheckpointError(
                f"The optimizer state of {name!r} is made of several parameters, of which not all have made the same "
                "steps there. Load the weights alone with weights_only=True."
            )
        found[name] = {slot.name: _slot(slot, known, name, rate) for slot in target.slots}
        for key, _, origin, _ in there:
            left[origin].discard(key)
            if not left[origin]:
                state[origin] = {}  # nothing here is to be in memory twice
    return found


def inexact(
    source: OptimizerWords,
    target: OptimizerWords,
    state: Mapping[str, Mapping[str, Any]],
    steps: Mapping[str, int],
    made: int,
) -> Exact:
    """The slots that don't come back to the bit from the other framework: those that are scaled, or looked at by none.

    And a number of steps that the other doesn't count, of a parameter that has made fewer than its optimizer.

    Args:
        source: what the optimizer is that gives.
        target: what the one is that takes up.
        state: the slots of each parameter.
        steps: how many steps each parameter was moved.
        made: how many steps the optimizer has made.
    """
    rated = {slot.meaning for words in (source, target) for slot in words.slots if slot.form == "rated"}
    names = [slot.name for slot in source.slots if slot.form == "zeros" or slot.meaning in rated]
    counts = any(slot.meaning == "step" for slot in target.slots)
    tellers = [] if counts else [slot.name for slot in source.slots if slot.meaning == "step"]
    wide = [slot.name for slot in source.slots if slot.form == "filled"]  # one number there, of half as many bits
    kept = {
        path: {name: slots[name] for name in names if name in slots and not holds_only(slots[name], 0.0)}
        | {name: slots[name] for name in wide if name in slots and slots[name].dtype == "F64"}
        | {name: slots[name] for name in tellers if name in slots and steps.get(path) != made}
        for path, slots in state.items()
    }
    return {path: slots for path, slots in kept.items() if slots}


def _taken(words: OptimizerWords, name: str, slots: Mapping[str, Any], steps: int, place: Place, rate: float) -> _State:
    """What is known of one neutral tensor."""
    state = _State(steps)
    for slot in words.slots:
        if slot.meaning == "step" or slot.form == "zeros":
            continue
        array = slots.get(slot.name)
        if not isinstance(array, Array):
            raise CheckpointError(f"The slot {slot.name!r} of {name!r} is missing. Use another checkpoint.")
        if slot.form in ("number", "filled"):
            state.numbers[slot.meaning] = array.dtype, float(to_numpy(array).reshape(-1)[0])
        elif slot.form == "rated":
            state.tensors[slot.meaning] = to_neutral(place, _times(array, 1 / _rate(rate, slot)))
        else:
            state.tensors[slot.meaning] = to_neutral(place, array)
    return state


def _slot(slot: Slot, known: list[tuple[Place, _State]], name: str, rate: float) -> Array:
    """One slot of the optimizer's own."""
    place, first = known[0]
    dtype = next((array.dtype for array in first.tensors.values()), "F32")
    if slot.meaning == "step" and slot.form in ("number", *FUNCTIONS):
        return slot_of(slot, first.steps, dtype, place.stored)
    if slot.form in ("number", "filled"):
        if slot.meaning not in first.numbers:
            raise CheckpointError(f"Nothing in the checkpoint gives the slot {slot.name!r} of {name!r}.")
        _, value = first.numbers[slot.meaning]
        if slot.form == "number":
            return filled(width_of_number(slot, dtype), (), value)
        return filled("F64" if dtype == "F64" else "F32", place.stored, value)
    if slot.form == "zeros":
        return filled(dtype, place.stored, 0.0)
    if any(slot.meaning not in one.tensors for _, one in known):
        raise CheckpointError(
            f"Nothing in the checkpoint gives the slot {slot.name!r} of {name!r}. Make the optimizer with the settings "
            "that it had there (amsgrad, momentum, centered)."
        )
    array = from_neutral(_distinct([(at, one.tensors[slot.meaning]) for at, one in known], name, slot.name))
    return _times(array, _rate(rate, slot)) if slot.form == "rated" else array


def _distinct(pieces: list[tuple[Place, Array]], name: str, slot: str) -> list[tuple[Place, Array]]:
    """Of pieces that tied tensors give, which lie at the same place, one each."""
    found: dict[Any, tuple[Place, Array]] = {}
    for place, array in pieces:
        _, known = found.setdefault(place.rows, (place, array))
        if known is not array and bytes(known.data) != bytes(array.data):
            raise CheckpointError(
                f"{name!r} is one tensor here, tied, and there are several there, whose {slot!r} differ. Tie them "
                "there, or untie them here."
            )
    return list(found.values())


def _rate(rate: float, slot: Slot) -> float:
    if not rate:
        raise CheckpointError(
            f"The slot {slot.name!r} holds the learning rate as a factor, which is 0 here: it can't be had without it."
        )
    return rate


def _times(array: Array, factor: float) -> Array:
    import numpy as np

    values = to_numpy(array)
    moved = (values.astype(np.float64) * factor).astype(values.dtype)
    return Array(array.dtype, tuple(array.shape), moved.reshape(-1).view(np.uint8))


def groups_by_tensor(groups: Iterable[Iterable[str]], at: At, left_out: frozenset[str]) -> list[set[NeutralName]]:
    """The parameter groups as sets of neutral tensors, without those of some roles."""
    return [{key for name in group for key, _ in at.get(name, ()) if key[1][1] not in left_out} for group in groups]

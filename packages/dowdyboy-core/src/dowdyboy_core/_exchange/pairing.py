"""Which layer of one model is which of another, and what stands on one side only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dowdyboy_core._errors import CheckpointError
from dowdyboy_core.backend.layouts import PASSENGERS, default_of, neutral_shape
from dowdyboy_core.backend.words import Layer, ModelWords, Place

Key = tuple[str, str]
"""Path of a layer, by the names of the model that takes up, and role of a tensor in it."""

Names = Mapping[str, str] | Callable[[str], str] | None
"""What the paths of the other model begin with, and what ours do there; or a function from path to path."""


@dataclass(frozen=True)
class Pair:
    """A neutral tensor with its places on both sides; None where one side has none."""

    kind: str
    source: Place | None
    target: Place | None


def pair(source: ModelWords, target: ModelWords, names: Names = None) -> tuple[dict[Key, Pair], list[str]]:
    """Pairs the layers of two models by path and kind.

    Args:
        source: the one that gives.
        target: the one that takes up.
        names: how paths of the source are called in the target.

    Returns:
        The pairs, and all that keeps them from being taken up, in words.
    """
    theirs = {renamed(layer.path, names): layer for layer in source.layers}
    ours = {layer.path: layer for layer in target.layers}
    pairs: dict[Key, Pair] = {}
    problems = _doubled(source, theirs, names)
    alone: dict[Key, str] = {}
    for path in [*ours, *(path for path in theirs if path not in ours)]:
        found, wanted = theirs.get(path), ours.get(path)
        told = _unlike(path, found, wanted)
        if told is not None:
            problems.append(told)
            continue
        kind = next(str(layer.kind) for layer in (wanted, found) if layer is not None)
        given = {} if found is None else found.places
        taken = {} if wanted is None else wanted.places
        for role in [*taken, *(role for role in given if role not in taken)]:
            one = Pair(kind, given.get(role), taken.get(role))
            pairs[path, role] = one
            told = _unpaired(path, role, one, both=found is not None and wanted is not None)
            if told is not None:
                alone[path, role] = told
    for key in [key for key in alone if _is_had_otherwise(pairs, key)]:
        del pairs[key], alone[key]
    return pairs, [*problems, *alone.values()]


def _is_had_otherwise(pairs: Mapping[Key, Pair], key: Key) -> bool:
    """Whether a tensor that one side only has is tied to one that both have, and so is had by the other all the same.

    A layer of the user's that multiplies with the weight of an embedding stands so for a linear one with that weight.
    """
    one = pairs[key]
    if one.source is not None and one.target is not None:
        return False
    both = [other for other in pairs.values() if other.source is not None and other.target is not None]
    if one.target is None:
        return any(other.source == one.source for other in both)
    return any(other.target == one.target for other in both)


def untied(pairs: Mapping[Key, Pair]) -> list[str]:
    """The tensors that are one there and several here, which an optimizer would move apart, in words."""
    found: dict[tuple[str, tuple[int, int] | None], set[str]] = {}
    for one in pairs.values():
        if one.source is not None and one.target is not None:
            rows = "" if one.target.rows is None else f"[{one.target.rows[0]}:{one.target.rows[1]}]"
            found.setdefault((one.source.array, one.source.rows), set()).add(one.target.array + rows)
    return [
        f"{array!r} is one tensor there, tied, and several here: {', '.join(sorted(names))}"
        for (array, _), names in found.items()
        if len(names) > 1
    ]


def renamed(path: str, names: Names) -> str:
    """A path of the source by the names of the target.

    Raises:
        CheckpointError: the function gives no path.
    """
    if names is None:
        return path
    if callable(names):
        found = names(path)
        if not isinstance(found, str):
            raise CheckpointError(f"names gave {found!r:.80} for {path!r}. Give a function from a path to a path.")
        return found
    for old in sorted(names, key=len, reverse=True):  # the longest beginning says most
        if path == old.rstrip(".") and old.endswith("."):
            return names[old].rstrip(".")
        if path.startswith(old):
            return names[old] + path[len(old) :]
    return path


def table(pairs: Mapping[Key, Pair]) -> str:
    """The pairs as lines of text: kind, the other's array, and ours."""
    rows = [("kind", "role", "there", "here")]
    for (_, role), one in pairs.items():
        rows.append((one.kind, role, _shown(one.source), _shown(one.target)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(text.ljust(width) for text, width in zip(row[:3], widths, strict=True)), row[3]]).rstrip()
        for row in rows
    )


def _shown(place: Place | None) -> str:
    return "(none)" if place is None else f"{place.array} {list(place.stored)}"


def _doubled(source: ModelWords, theirs: Mapping[str, Layer], names: Names) -> list[str]:
    if len(theirs) == len(source.layers):
        return []
    seen: dict[str, str] = {}
    lines = []
    for layer in source.layers:
        path = renamed(layer.path, names)
        if path in seen:
            lines.append(f"{seen[path]!r} and {layer.path!r} are both called {path!r} by the names that were given")
        seen[path] = layer.path
    return lines


def _unlike(path: str, found: Layer | None, wanted: Layer | None) -> str | None:
    """What keeps two layers from being a pair, in words."""
    unknown = next((layer for layer in (wanted, found) if layer is not None and layer.kind is None), None)
    if unknown is not None:
        where = "here" if unknown is wanted else "there"
        return f"{path!r} is a {unknown.cls} {where}, of which no rule is known"
    if found is not None and wanted is not None and found.kind != wanted.kind:
        return f"{path!r} is a {found.kind} ({found.cls}) there and a {wanted.kind} ({wanted.cls}) here"
    return None


def _unpaired(path: str, role: str, one: Pair, *, both: bool) -> str | None:
    """What keeps a tensor from being taken up, in words; ``both`` says whether its layer is on either side."""
    key = (one.kind, role)
    name = path if role == "value" else f"{path}: {role}"
    if one.source is None or one.target is None:
        if key in PASSENGERS or (both and default_of(*key) is not None):
            return None
        if one.target is None:
            return f"{name} ({one.kind}) is there only, as {_shown(one.source)}"
        return f"{name} ({one.kind}) is here only, as {_shown(one.target)}"
    shapes = neutral_shape(one.source), neutral_shape(one.target)
    if shapes[0] != shapes[1]:
        return f"{name} ({one.kind}) has shape {shapes[0]} there and {shapes[1]} here"
    return None

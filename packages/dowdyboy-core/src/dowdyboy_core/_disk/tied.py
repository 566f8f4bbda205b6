"""Arrays that go by several names, as tied weights do: stored once, under the first name, with the others noted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dowdyboy_core._errors import CheckpointError
from dowdyboy_core.backend.arrays import Array

Noted = dict[str, dict[str, str]]
"""By the name of a file, for each name that isn't stored in it the one under which its array is."""


def stored_once(weights: Mapping[str, Mapping[str, Array]]) -> tuple[dict[str, dict[str, Array]], Noted]:
    """What to store of flat arrays by file name, and the note to store with it.

    Arrays are the same if they are one object.
    """
    kept: dict[str, dict[str, Array]] = {}
    noted: Noted = {}
    for file, arrays in weights.items():
        first: dict[int, str] = {}
        others = {name: at for name, array in arrays.items() if (at := first.setdefault(id(array), name)) != name}
        kept[file] = {name: array for name, array in arrays.items() if name not in others}
        if others:
            noted[file] = others
    return kept, noted


def under_each_name(file: str, arrays: dict[str, Array], noted: Any) -> dict[str, Array]:
    """The arrays of a file under all of their names.

    Args:
        file: its name.
        arrays: what it holds.
        noted: of all files, as the index has it; nothing in one of version 1, which stored each name.

    Raises:
        CheckpointError: the note is none, or is not about these arrays.
    """
    others = noted.get(file, {}) if isinstance(noted, dict) else None
    if not isinstance(others, dict):
        raise CheckpointError(
            f"What the index says of tied weights is no note of names: {noted!r:.80}. Use another checkpoint."
        )
    for name, at in others.items():
        if not isinstance(at, str) or at not in arrays or name in arrays:
            raise CheckpointError(
                f"The index says that {name!r:.80} is stored as {at!r:.80}, and {file}.safetensors has other arrays. "
                "Use another checkpoint."
            )
    return arrays | {name: arrays[at] for name, at in others.items()}

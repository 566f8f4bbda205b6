"""Arrays that a safetensors file has no name for: stored as others, with a note of what they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dowdyboy_core._errors import CheckpointError
from dowdyboy_core.backend.arrays import Array, is_plain
from dowdyboy_core.backend.trees import decode, encode

Packed = dict[str, dict[str, Any]]
"""By the name of a file, for each name that isn't in it as it is the JSON value of a tree that is one array."""

_RESERVED = "__metadata__"


def pack(weights: Mapping[str, Mapping[str, Array]]) -> tuple[dict[str, dict[str, Array]], Packed]:
    """What to store of flat arrays by file name, and the note to store with it.

    Raises:
        CheckpointError: something can't be stored; the message gives its path.
    """
    kept: dict[str, dict[str, Array]] = {}
    noted: Packed = {}
    for file, arrays in weights.items():
        odd = {name: array for name, array in arrays.items() if not is_plain(array) or name == _RESERVED}
        value, parts = encode(odd, file)
        plain = {name: array for name, array in arrays.items() if name not in odd}
        if both := plain.keys() & parts.keys():
            raise CheckpointError(f"{file}: two arrays would be stored under {sorted(both)[0]!r}. Rename one of them.")
        kept[file] = plain | parts
        if odd:
            noted[file] = dict(value.get("$dict", value.items())) if isinstance(value, dict) else {}
    return kept, noted


def unpack(file: str, arrays: dict[str, Array], noted: Any) -> dict[str, Array]:
    """The arrays of a file as they were.

    Args:
        file: its name.
        arrays: what it holds.
        noted: of all files, as the index has it; nothing in one of an older version.

    Raises:
        CheckpointError: the note is none, or is not about these arrays.
    """
    values = noted.get(file, {}) if isinstance(noted, dict) else None
    if not isinstance(values, dict):
        raise CheckpointError(
            f"What the index says of packed arrays is no note: {noted!r:.80}. Use another checkpoint."
        )
    used: dict[str, None] = {}
    found = {name: decode(value, _Noting(arrays, used)) for name, value in values.items()}
    strange = [name for name, item in found.items() if not isinstance(item, Array) or name in arrays.keys() - used]
    if strange:
        raise CheckpointError(
            f"The index says that {strange[0]!r:.80} in {file}.safetensors is {values[strange[0]]!r:.80}, which is no "
            "array. Use another checkpoint."
        )
    return {name: array for name, array in arrays.items() if name not in used} | found


class _Noting(dict[str, Array]):
    """Arrays by name, which notes those that are asked for."""

    def __init__(self, arrays: Mapping[str, Array], used: dict[str, None]) -> None:
        super().__init__(arrays)
        self._used = used

    def __getitem__(self, name: str) -> Array:
        self._used[name] = None
        return super().__getitem__(name)

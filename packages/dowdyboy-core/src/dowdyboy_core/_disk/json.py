"""JSON as checkpoints have it: what other readers might take for something else is neither written nor read."""

from __future__ import annotations

import json
from typing import Any, NoReturn


def dump_json(value: Any) -> bytes:
    """The content of a file that holds a value."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1).encode() + b"\n"


def parse_json(content: bytes) -> Any:
    """A value from the content of a file; a key that is there twice is refused, as one reader takes this, one that.

    Raises:
        ValueError: it is no JSON.
        RecursionError: it is nested too deeply.
    """
    return json.loads(content, object_pairs_hook=_without_doubles, parse_constant=_no_constant)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r:.80} is there twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")

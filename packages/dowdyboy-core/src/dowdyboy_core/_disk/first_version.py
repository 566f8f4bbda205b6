"""The paths in checkpoints of version 1, which had the words that a compiler's wrappers put into them."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any


def without_wrappers(value: Any, words: Collection[str]) -> Any:
    """Arrays by path, or a tree, with paths that don't have these words as parts.

    A module of the user's own that is named by such a word can't be told from a wrapper there.
    """
    if isinstance(value, str):
        return re.sub(rf"(?<![^./])(?:{'|'.join(map(re.escape, words))})\.", "", value) if words else value
    if type(value) is dict:
        return {without_wrappers(key, words): without_wrappers(item, words) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(without_wrappers(item, words) for item in value)
    return value

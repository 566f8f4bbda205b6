"""What a checkpoint leaves out because it is as it was before any training: known by digests, and put back from models.

A digest is the SHA-256 of the type, a space, the shape as JSON and a line feed, followed by the elements as they are
stored; of what safetensors has no name for, of its JSON value, a line feed, and the digests of its arrays.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dowdyboy_core._errors import CheckpointError

from .arrays import Array, is_plain, without_unmade
from .seam import Backend
from .trees import encode

TREE = "untrained"
"""The name of the tree that says what is left out."""

_SHOWN = 20


def digests_of(arrays: Mapping[str, Array]) -> dict[str, str]:
    """The digest of each array; several are taken at once."""
    once = {id(array): array for array in arrays.values()}
    with ThreadPoolExecutor() as pool:
        known = dict(zip(once, pool.map(_digest_of, once.values()), strict=True))
    return {name: known[id(array)] for name, array in arrays.items()}


def _digest_of(array: Array) -> str:
    if is_plain(array):
        whole = hashlib.sha256(f"{array.dtype} {json.dumps(list(array.shape))}\n".encode())
        whole.update(array.data)
        return whole.hexdigest()
    value, parts = encode(array, "digest")
    whole = hashlib.sha256(json.dumps(value, separators=(",", ":"), sort_keys=True).encode() + b"\n")
    for name in sorted(parts):
        whole.update(_digest_of(parts[name]).encode())
    return whole.hexdigest()


def complete(
    backend: Backend, models: Sequence[Any], weights: Mapping[str, dict[str, Array]], tree: Any, folder: str
) -> dict[str, dict[str, Array]]:
    """The weights of a checkpoint with what it leaves out, which is taken from the models.

    Args:
        backend: the framework.
        models: those that will load it.
        weights: arrays by file name: ``model_I`` and ``ema_I``.
        tree: what it leaves out, with the digests; None if nothing.
        folder: the checkpoint.

    Raises:
        CheckpointError: what it leaves out is otherwise in the models; the message names it.
    """
    if tree is None:
        return dict(weights)
    first, left_out = checked(tree)
    found, lines = dict(weights), list[str]()
    for number, model in enumerate(models):
        stems = [stem for stem in (f"model_{number}", f"ema_{number}") if left_out.get(stem) and stem in weights]
        if not stems:
            continue
        wanted = {name for stem in stems for name in left_out[stem]}
        with without_unmade():
            live = {name: array for name, array in backend.model_state(model).items() if name in wanted}
        known, own = first.get(f"model_{number}", {}), digests_of(live)
        lines += [f"model_{number}: {name}" for name in sorted(wanted) if own.get(name, "") != known.get(name)]
        for stem in stems:
            found[stem] = weights[stem] | {name: live[name] for name in left_out[stem] if name in live}
    if lines:
        more = f"\n  and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        listed = "\n  ".join(lines[:_SHOWN])
        raise CheckpointError(
            f"{folder!r} was saved with save_trained_only and leaves out what was never changed, which is otherwise in "
            "the models here; nothing was loaded. Make them with the very weights that they had when the run first "
            f"began. Different:\n  {listed}{more}"
        )
    return found


def checked(tree: Any) -> tuple[dict[str, dict[str, str]], dict[str, list[str]]]:
    """The digests of all that there was at first, and the names of what is left out, by file name.

    Raises:
        CheckpointError: it says something else.
    """
    first, left_out = (tree.get("first"), tree.get("left_out")) if isinstance(tree, dict) else (None, None)
    if isinstance(first, dict) and isinstance(left_out, dict):
        whole = all(isinstance(item, dict) and all(map(_is_text, item.values())) for item in first.values())
        if whole and all(isinstance(item, list) and all(map(_is_text, item)) for item in left_out.values()):
            return first, left_out
    raise CheckpointError(f"The checkpoint has no {TREE}.json of the right kind. Use another checkpoint.")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)

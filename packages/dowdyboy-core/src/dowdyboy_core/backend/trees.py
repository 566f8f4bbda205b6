"""State as plain trees, and trees as JSON beside named arrays.

A *tree* is what a backend hands over and gets back: None, bool, int, float, str, list, tuple, dict, Counter, deque
and set of these, bytes, complex numbers, and NumPy's arrays and numbers, with :class:`Array` for tensor data.
``encode`` splits a tree into a JSON value and a flat
``{key: Array}``; ``decode`` puts it together again. JSON can't say everything a tree can, so an object whose
only key begins with ``$`` stands for one of these:

    {"$array": "state/0/momentum"}   the array stored under that key
    {"$tuple": [1, 2]}               a tuple
    {"$float": "nan"}                nan, inf or -inf
    {"$dict": [[30, 1], [80, 1]]}    a dict whose keys are not all strings, or begin with "$"
    {"$counter": [[30, 1]]}          a collections.Counter
    {"$deque": [5, [1, 2]]}          a collections.deque: its maxlen or null, and its items
    {"$set": [1, 2]}                 a set
    {"$numpy": "mean"}               an array of NumPy's, stored under that key
    {"$number": "count"}             a number of NumPy's, stored under that key as an array without axes
    {"$enum": 1}                     a member of an enumeration that the script has, by its value
    {"$bytes": "AAE="}               bytes, in base64
    {"$complex": ["C128", array]}    an array of complex numbers, stored as their two parts
    {"$complex": [1.0, 2.0]}         a complex number
    {"$sparse": ["coo", [3, 3], indices, values]}    a sparse array; "csr" has three arrays
    {"$state": {"scale": 1.0}}       what a model has in its state that is no tensor

Decoding builds these values and nothing else, so reading a file never runs code.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from dowdyboy_core._errors import CheckpointError

from .arrays import Array, Member, from_numpy, is_plain, tagged, to_numpy, untagged

MAX_DEPTH = 64
"""How deep a tree may be nested."""

_JSON_DEPTH = 3 * (MAX_DEPTH + 1)  # one level of a tree is up to three of JSON


def encode(tree: Any, what: str) -> tuple[Any, dict[str, Array]]:
    """Splits ``tree`` into a JSON value and the arrays in it.

    Args:
        tree: the tree.
        what: what the tree is the state of, for the error message.

    Raises:
        CheckpointError: something in the tree is not plain; the message gives its path.
    """
    arrays: dict[str, Array] = {}
    return _encode(tree, (), arrays, what), arrays


def _encode(tree: Any, path: tuple[str, ...], arrays: dict[str, Array], what: str) -> Any:
    if len(path) > MAX_DEPTH:
        raise CheckpointError(
            f"{what}: the value at {'/'.join(path[:4])}/… is nested more than {MAX_DEPTH} deep. Keep state flatter."
        )
    if isinstance(tree, Array):
        return _encode_array(tree, path, arrays, what)
    if tree is None or type(tree) in (bool, int, str):
        return tree
    if type(tree) is float:
        return tree if math.isfinite(tree) else {"$float": str(tree)}
    if type(tree) is list:
        return [_encode(item, (*path, str(index)), arrays, what) for index, item in enumerate(tree)]
    if type(tree) is tuple:
        return {"$tuple": _encode(list(tree), path, arrays, what)}
    if isinstance(tree, Mapping):
        return _encode_mapping(tree, path, arrays, what)
    if type(tree) is deque:
        return {"$deque": [tree.maxlen, _encode(list(tree), path, arrays, what)]}
    if type(tree) is set:
        return {"$set": _encode(sorted(tree, key=repr), path, arrays, what)}
    if type(tree) is Member:
        return {"$enum": _encode(tree.value, path, arrays, what)}
    if type(tree) is bytes:
        return {"$bytes": base64.b64encode(tree).decode("ascii")}
    if type(tree) is complex:
        return {"$complex": _encode([tree.real, tree.imag], path, arrays, what)}
    array = from_numpy(tree) if type(tree).__module__ == "numpy" else None
    if array is not None:
        tag = "$numpy" if type(tree).__name__ == "ndarray" else "$number"
        stored = _encode_array(array, path, arrays, what)
        return {tag: stored.get("$array", stored)}
    raise CheckpointError(
        f"{what}: the value at {'/'.join(path) or 'the top'} is a {type(tree).__name__} ({tree!r:.80}), which "
        "can't be stored without pickle. Keep state in numbers, strings, lists, dicts and tensors."
    )


def _encode_array(array: Array, path: tuple[str, ...], arrays: dict[str, Array], what: str) -> dict[str, Any]:
    if is_plain(array):
        return {"$array": _store(array, path, arrays, what)}

    def put(name: str, part: Array) -> Any:
        return _encode_array(part, (*path, name) if name else path, arrays, what)

    return tagged(array, put, partial(_encode, path=path, arrays=arrays, what=what))


def _store(array: Array, path: tuple[str, ...], arrays: dict[str, Array], what: str) -> str:
    key = "/".join(path) or "value"
    if key == "__metadata__":  # which in a safetensors file is no array
        key += "/array"
    if key in arrays:
        raise CheckpointError(f"{what}: two arrays would be stored under {key!r}. Rename one of their keys.")
    arrays[key] = array
    return key


def _encode_mapping(tree: Mapping[Any, Any], path: tuple[str, ...], arrays: dict[str, Array], what: str) -> Any:
    if type(tree) is not Counter and all(type(key) is str and not key.startswith("$") for key in tree):
        return {key: _encode(item, (*path, key), arrays, what) for key, item in tree.items()}
    pairs = [
        [_encode(_plain_key(key), (*path, "key"), arrays, what), _encode(item, (*path, str(key)), arrays, what)]
        for key, item in tree.items()
    ]
    return {"$counter" if type(tree) is Counter else "$dict": pairs}


def _plain_key(key: Any) -> Any:
    """A key without NumPy's type, by which nothing is looked up."""
    return key.item() if type(key).__module__ == "numpy" and hasattr(key, "item") else key


def decode(value: Any, arrays: Mapping[str, Array]) -> Any:
    """Puts together what ``encode`` took apart.

    Raises:
        CheckpointError: the value is not what ``encode`` writes, or an array is missing.
    """
    return _decode(value, arrays, 0)


def _decode(value: Any, arrays: Mapping[str, Array], depth: int) -> Any:
    if depth > _JSON_DEPTH:
        raise CheckpointError(f"The state is nested more than {MAX_DEPTH} deep, which no checkpoint of ours is.")
    if isinstance(value, list):
        return [_decode(item, arrays, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((tag, content),) = value.items()
        if tag.startswith("$"):
            return _decode_tagged(tag, content, arrays, depth + 1)
    return {key: _decode(item, arrays, depth + 1) for key, item in value.items()}


def _decode_tagged(tag: str, content: Any, arrays: Mapping[str, Array], depth: int) -> Any:
    if tag == "$array" and isinstance(content, str):
        if content not in arrays:
            raise CheckpointError(f"The array {content!r} is missing. The checkpoint is not whole; use another.")
        return arrays[content]
    if tag in ("$numpy", "$number"):
        stored = {"$array": content} if isinstance(content, str) else content
        array = _decode(stored, arrays, depth)
        if isinstance(array, Array):
            return to_numpy(array) if tag == "$numpy" else to_numpy(array)[()]
    if tag == "$bytes" and isinstance(content, str):
        with suppress(binascii.Error, ValueError):
            return base64.b64decode(content, validate=True)
    if tag == "$state":
        return untagged(tag, _decode(content, arrays, depth))
    if tag == "$float" and content in ("nan", "inf", "-inf"):
        return float(content)
    if tag == "$enum":
        return Member(_decode(content, arrays, depth))
    if isinstance(content, list):
        items = _decode(content, arrays, depth)
        if tag == "$complex" and [type(item) for item in items] == [float, float]:
            return complex(*items)
        if tag in ("$complex", "$sparse"):
            return untagged(tag, items)
        if tag == "$tuple":
            return tuple(items)
        if tag == "$deque" and len(items) == 2 and isinstance(items[1], list) and _is_length(items[0]):
            return deque(items[1], items[0])
        if tag == "$set":
            with suppress(TypeError):  # of an item that can't be in one
                return set(items)
        if tag in ("$dict", "$counter") and all(isinstance(item, list) and len(item) == 2 for item in items):
            with suppress(TypeError):  # of a key that can't be one
                pairs = dict(map(tuple, items))
                return Counter(pairs) if tag == "$counter" else pairs
    raise CheckpointError(f"{tag!r} is not a tag of this format, or its content is not of the right kind.")


def _is_length(value: Any) -> bool:
    return value is None or (type(value) is int and 0 <= value < 2**63)


def describe_differences(stored: Mapping[str, Array], wanted: Mapping[str, Array]) -> list[str]:
    """Lists every entry that is missing, extra, misshapen or of another type; empty if they fit."""
    lines = [f"missing: {name}" for name in wanted if name not in stored]
    lines += [f"not in the model: {name}" for name in stored if name not in wanted]
    for name in stored.keys() & wanted.keys():
        got, want = stored[name], wanted[name]
        if got.layout != want.layout:
            lines.append(f"kind of {name}: stored {got.layout}, wanted {want.layout}")
        elif tuple(got.shape) != tuple(want.shape):
            lines.append(f"shape of {name}: stored {tuple(got.shape)}, wanted {tuple(want.shape)}")
        elif got.dtype != want.dtype:
            lines.append(f"type of {name}: stored {got.dtype}, wanted {want.dtype}")
        elif want.parts and got.parts:  # where its size can't change
            sizes = [{part: tuple(item.shape) for part, item in parts.items()} for parts in (got.parts, want.parts)]
            if sizes[0] != sizes[1]:
                lines.append(f"elements of {name}: stored {sizes[0]}, wanted {sizes[1]}")
    return sorted(lines)


def check_groups(stored: list[list[str]], wanted: list[list[str]]) -> None:
    """Refuses an optimizer's state whose parameter groups, lists of names, are not those of the optimizer.

    Raises:
        CheckpointError: the message lists every difference.
    """
    if len(stored) != len(wanted):
        raise CheckpointError(
            f"The optimizer was saved with {len(stored)} parameter groups and now has {len(wanted)}. Make it with as "
            "many as when it was saved, or load the weights alone with weights_only=True."
        )
    lines = []
    for number, (old, new) in enumerate(zip(stored, wanted, strict=True)):
        lines += [f"group {number}: missing: {name}" for name in sorted(set(new) - set(old))]
        lines += [f"group {number}: not in the optimizer: {name}" for name in sorted(set(old) - set(new))]
    if lines:
        raise CheckpointError(
            "The optimizer's parameters are not those that were saved. Differences:\n  " + "\n  ".join(lines)
        )


def check_entries(what: str, stored: Any, wanted: Mapping[str, Any]) -> None:
    """Refuses the state of another object than the one that is to take it up.

    Args:
        what: what the state is of, for the message.
        stored: the state.
        wanted: the state that the object has now.

    Raises:
        CheckpointError: the message lists every entry that is missing, extra or of another kind.
    """
    if not isinstance(stored, Mapping):
        raise CheckpointError(f"The state of the {what} is a {type(stored).__name__}. Use another checkpoint.")
    lines = [f"missing: {name}" for name in wanted if name not in stored]
    lines += [f"not in the {what}: {name}" for name in stored if name not in wanted]
    for name in stored.keys() & wanted.keys():
        kinds = kind_of(stored[name]), kind_of(wanted[name])
        if None not in kinds and kinds[0] != kinds[1]:
            lines.append(f"kind of {name}: stored a {kinds[0]}, wanted a {kinds[1]}")
    if lines:
        listed = "\n  ".join(sorted(lines))
        raise CheckpointError(
            f"The {what} is not the one that was saved. Make it as when it was saved, or load the weights alone with "
            f"weights_only=True. Differences:\n  {listed}"
        )


def kind_of(value: Any) -> str | None:
    """What kind of value it is, as coarsely as a state may change; None for null, which stands for any."""
    if value is None:
        return None
    for kind, types in _KINDS.items():
        if isinstance(value, types):
            return kind
    return "number"  # a tensor, or one of NumPy's


_KINDS: dict[str, Any] = {
    "number": (bool, int, float, Array),
    "text": str,
    "list": (list, tuple, deque, set),
    "dict": Mapping,
}

"""What model_util shares on every framework: walking over a model, picking parameters, laying out a table.

Nothing here computes with a tensor; shapes are all that is read of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from math import prod
from numbers import Integral
from typing import Any

from dowdyboy_core._errors import ConfigError

Own = Callable[[Any], "list[tuple[str, Any]]"]
"""Gives the parameters that stand in a module itself, with their names there."""


def walk(module: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every module with its path, parents first; one that stands in two places comes with both its paths."""
    yield path, module
    # Not by named_children alone, which leaves out what one parent holds twice.
    held = vars(module).get("_modules", vars(module).get("_sub_layers")) or dict(module.named_children())
    for name, child in held.items():
        if child is not None:
            yield from walk(child, f"{path}.{name}" if path else name)


def first_places(named: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The same by path, each object at its first place only."""
    firsts: dict[int, tuple[str, Any]] = {}
    for path, item in named:
        firsts.setdefault(id(item), (path, item))
    return dict(firsts.values())


def parameters(model: Any, own: Own) -> list[tuple[str, Any]]:
    """All parameters by path, shared ones with each of their paths."""
    found = walk(model)
    return [(f"{path}.{name}" if path else name, item) for path, module in found for name, item in own(module)]


def count_elements(tensors: Iterable[Any]) -> int:
    """How many numbers they hold."""
    return sum(prod(item.shape) for item in tensors)


def select(named: Sequence[tuple[str, Any]], patterns: Sequence[str]) -> dict[str, Any]:
    """The parameters that patterns pick, by their first path; all of them without a pattern.

    Args:
        named: every parameter with its path, shared ones with each of their paths.
        patterns: each is matched against the path of a parameter and those of the modules that it stands in.

    Raises:
        ConfigError: a pattern is no text, or picks nothing.
    """
    picked: set[int] = set()
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise ConfigError(
                f"The pattern {pattern!r:.80} is no text. Give patterns one by one, as in freeze(model, 'a', 'b')."
            )
        hits = {id(item) for path, item in named if any(fnmatchcase(part, pattern) for part in _heads(path))}
        if not hits:
            raise ConfigError(_nothing(pattern, [path for path, _ in named]))
        picked |= hits
    return {path: item for path, item in first_places(named).items() if not patterns or id(item) in picked}


def _heads(path: str) -> list[str]:
    """``a``, ``a.b`` and ``a.b.c`` of ``a.b.c``."""
    parts = path.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _nothing(pattern: str, paths: list[str]) -> str:
    known = list(dict.fromkeys(head for path in paths for head in _heads(path)))
    near = get_close_matches(pattern, known, n=3, cutoff=0.5)
    there = near or [head for head in known if "." not in head][:5]
    said = ("Near it are " if near else "There are ") + ", ".join(map(repr, there)) if there else "It has none"
    return (
        f"The pattern {pattern!r} matches no parameter of the model. {said}. Give the path of a parameter or of a "
        "module, or a glob such as 'features.*.bias'."
    )


def read_inputs(
    input_size: Any, is_tensor: Callable[[Any], bool], make: Callable[[tuple[int, ...]], Any]
) -> tuple[Any, ...]:
    """The inputs that a user describes, made where a shape is given.

    Raises:
        ConfigError: it is neither a shape, nor a tensor, nor a list of these.
    """
    if is_tensor(input_size):
        return (input_size,)
    shape = _as_shape(input_size)
    if shape is not None:
        return (make(shape),)
    given = list(input_size) if isinstance(input_size, (list, tuple)) else []
    made = [item if is_tensor(item) else _as_shape(item) for item in given]
    if not made or any(item is None for item in made):
        raise ConfigError(
            f"input_size={input_size!r:.100} is no input. Give a shape with the batch axis such as (1, 3, 32, 32), a "
            "tensor, or for a model with several inputs a list of these."
        )
    return tuple(make(item) if isinstance(item, tuple) else item for item in made)


def _as_shape(value: Any) -> tuple[int, ...] | None:
    if not isinstance(value, (list, tuple)) or not value:
        return None
    if any(isinstance(size, bool) or not isinstance(size, Integral) or size < 1 for size in value):
        return None
    return tuple(int(size) for size in value)


def run(forward: Callable[..., Any], inputs: Sequence[Any]) -> None:
    """Runs a model on the inputs that were described.

    Raises:
        ConfigError: it fails.
    """
    try:
        forward(*inputs)
    except Exception as error:
        shapes = ", ".join(describe_shape(item) for item in inputs)
        raise ConfigError(
            f"The model can't run on input of shape {shapes}: {type(error).__name__}: {error}. Give input_size as its "
            "forward takes it, with the batch axis, or give tensors."
        ) from error


# ---- the table


def describe_shape(value: Any) -> str:
    """The shapes in a module's output, nested as it is."""
    if hasattr(value, "shape"):
        return str(tuple(value.shape))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {describe_shape(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(describe_shape(item) for item in value) + "]"
    return "None" if value is None else type(value).__name__


def shape_hook(shapes: dict[str, str], path: str) -> Callable[[Any, Any, Any], None]:
    """A hook after a module's forward that notes the shape of its output."""

    def note(module: Any, inputs: Any, output: Any) -> None:
        shapes[path] = describe_shape(output)

    return note


def table(model: Any, own: Own, is_trainable: Callable[[Any], bool], shapes: Mapping[str, str] | None) -> str:
    """The table of a model's modules, with output shapes by path if there are any, and the totals."""
    lines, seen = [("path", "type", "output shape", "params")], set[int]()
    for path, module in first_places(walk(model)).items():
        held = {id(item): item for _, item in own(module) if id(item) not in seen}
        seen |= held.keys()
        count = f"{count_elements(held.values()):,}"
        lines.append((path or "(model)", type(module).__name__, (shapes or {}).get(path, "-"), count))
    kept = [0, 1, 3] if shapes is None else [0, 1, 2, 3]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    text = ["  ".join([*(line[c].ljust(widths[c]) for c in kept[:-1]), line[3].rjust(widths[3])]) for line in lines]
    rule = "  ".join("-" * widths[column] for column in kept)
    found = first_places(parameters(model, own)).values()
    total, trainable = count_elements(found), count_elements(item for item in found if is_trainable(item))
    stored = {id(item): prod(item.shape) * item.element_size() for item in (*model.parameters(), *model.buffers())}
    totals = [
        f"params: {total:,}, of which trainable: {trainable:,}",
        f"size: {sum(stored.values()) / 1e6:,.3f} MB of parameters and buffers (1 MB = 10**6 bytes)",
    ]
    return "\n".join([text[0], rule, *text[1:], rule, *totals])

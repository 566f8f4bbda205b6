"""Copying a model to try it out, so that nothing that the copy does reaches the model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from threading import Lock, RLock
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

from dowdyboy_core._errors import ConfigError

from .summaries import walk

# What copy.deepcopy refuses, and a copy may as well have in common with the model.
_SHARED = (ModuleType, type(Lock()), type(RLock()))


def copy_model(model: Any, replace: Callable[[Any], Any]) -> Any:
    """A deep copy of a model, whose hooks and functions mean the copy where they meant the model.

    Args:
        model: the model.
        replace: gives for a value that a module holds what the copy is to have in its place; None if copy.deepcopy
            is to decide.

    Raises:
        ConfigError: something in it can't be copied.
    """
    memo: dict[int, Any] = {}
    for _, module in walk(model):
        for value in _held(vars(module)):
            found = value if isinstance(value, _SHARED) else replace(value)
            if found is not None:
                memo[id(value)] = found
    try:
        made = copy.deepcopy(model, memo)
        for _, module in walk(made):
            _bind_anew(vars(module), memo)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"The model can't be copied to try it out: {error}. Give it as it was made, or without what can't be "
            "copied."
        ) from error
    return made


def _held(value: Any) -> Iterator[Any]:
    """What stands in containers, as deep as they go."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _held(item)
    elif isinstance(value, (list, tuple, set)):
        for item in value:
            yield from _held(item)
    else:
        yield value


def _bind_anew(attributes: dict[str, Any], memo: dict[int, Any]) -> None:
    """Lets functions among the attributes, or in tables of hooks, refer to what was copied."""
    for name, value in attributes.items():
        if isinstance(value, FunctionType):
            attributes[name] = _bound(value, memo)
        elif isinstance(value, dict) and "hook" in name:
            for key, hook in value.items():
                value[key] = _bound(hook, memo)


def _bound(value: Any, memo: dict[int, Any]) -> Any:
    """A value as the copy has it: what was copied, containers, and functions that refer to these."""
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, (dict, list, set)):
        return copy.deepcopy(value, memo)
    if isinstance(value, MethodType):
        return MethodType(value.__func__, _bound(value.__self__, memo))
    if not isinstance(value, FunctionType) or not (value.__closure__ or value.__defaults__):
        return value
    cells = tuple(_bound_cell(cell, memo) for cell in value.__closure__ or ())
    defaults = value.__defaults__ and tuple(_bound(item, memo) for item in value.__defaults__)
    made = FunctionType(value.__code__, value.__globals__, value.__name__, defaults, cells)
    made.__kwdefaults__ = value.__kwdefaults__
    made.__dict__.update(value.__dict__)
    return made


def _bound_cell(cell: CellType, memo: dict[int, Any]) -> CellType:
    try:
        content = cell.cell_contents
    except ValueError:  # not yet filled
        return cell
    return CellType(_bound(content, memo))

"""Random generators that data keeps for itself: found where they lie, and named, since no checkpoint has their state.

Nothing of the user's is called on the way: no property, no method, no ``__getattr__``, no iteration of their classes.
"""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from types import BuiltinFunctionType, FunctionType, GetSetDescriptorType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, NamedTuple

_DEPTH = 6
_OBJECTS = 2000
_ITEMS = 100
_SHOWN = 5

_ROOTS = ("dataset", "batch_sampler", "sampler", "collate_fn")
_LEAVES = (str, bytes, bytearray, int, float, complex, bool, type(None), type, ModuleType, BuiltinFunctionType)


class Found(NamedTuple):
    """A generator: the way to it, and a line that seeds it from the streams that are seeded for every batch."""

    path: str
    kind: str
    line: str


class OwnGenerators:
    """Names the generators that the data of a run keeps, once for each place.

    Args:
        native: the framework's classes of generators.
        package: whose classes see to their generators by themselves.
        warn: tells the user something.
    """

    def __init__(self, native: tuple[type, ...], package: str, warn: Callable[[str], None]) -> None:
        self._native = native
        self._package = package
        self._warn = warn
        self._told: set[str] = set()

    def tell(self, role: str, loader: Any) -> None:
        """Warns of those in the data of a loader that were not named before."""
        found = [item for item in self._find(loader) if f"{role} {item.path}" not in self._told]
        self._told.update(f"{role} {item.path}" for item in found)
        if not found:
            return
        named = ", ".join(f"{item.path} ({item.kind})" for item in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        self._warn(
            f"The {role} data keeps random generators of its own: {named}{more}. No checkpoint has their state, and "
            "each worker has a copy that draws the same. If they draw while samples are read, a resumed run reads "
            "other samples than one that was not stopped. Draw from the global streams, which are seeded for every "
            "batch; or seed them from there, first thing in what reads a sample (__getitem__, __call__; of a stream, "
            f"__iter__):\n    import random\n    {found[0].line}"
        )

    def _find(self, loader: Any) -> Iterator[Found]:
        """Walks from the parts of a loader, breadth first, as far as the bounds go."""
        own = _attributes(loader)
        roots = [(name, own[name]) for name in _ROOTS if name in own] or [("loader", loader)]
        waiting = deque((name, item, 0, loader) for name, item in roots)
        seen: set[int] = set()
        while waiting and len(seen) < _OBJECTS:
            path, item, depth, owner = waiting.popleft()
            if _is(item, _LEAVES) or id(item) in seen:
                continue
            seen.add(id(item))
            made = self._describe(path, item, owner)
            if made is not None:
                if not self._is_seen_to(path, owner):
                    yield made
            elif depth < _DEPTH and not self._is_heavy(item):
                waiting.extend((f"{path}{step}", inner, depth + 1, item) for step, inner in _within(item))

    def _describe(self, path: str, item: Any, owner: Any) -> Found | None:
        name = path.rpartition(".")[2]
        if not _is(owner, FunctionType):
            name = f"self.{name}"
        numpy = sys.modules.get("numpy")
        if _is(item, self._native):
            return Found(path, f"{self._package} Generator", f"{name}.manual_seed(random.getrandbits(63))")
        if _is(item, random.Random) and not _is(item, random.SystemRandom):
            return Found(path, "random.Random", f"{name}.seed(random.getrandbits(63))")
        if numpy is not None and _is(item, numpy.random.Generator):
            return Found(path, "NumPy Generator", f"{name} = numpy.random.default_rng(random.getrandbits(63))")
        if numpy is not None and _is(item, numpy.random.RandomState):
            return Found(path, "NumPy RandomState", f"{name}.seed(random.getrandbits(32))")
        return None

    def _is_seen_to(self, path: str, owner: Any) -> bool:
        """Whether a generator is seeded by somebody else: the framework, the trainer, or ``set_epoch`` of a stream."""
        if type(owner).__module__.partition(".")[0] == self._package:
            return True
        if path.startswith(("batch_sampler", "sampler")) and path.endswith(".generator"):
            return True  # which the trainer seeds for every epoch
        defined = {name for kind in type(owner).__mro__ for name in ("__iter__", "set_epoch") if name in vars(kind)}
        return defined == {"__iter__", "set_epoch"} and not _is(owner, (list, tuple, dict))

    def _is_heavy(self, item: Any) -> bool:
        """What may hold much, and holds no generators."""
        return type(item).__module__.partition(".")[0] in ("numpy", "pandas", "pyarrow", "threading", "multiprocessing")


def _is(item: Any, kinds: type | tuple[type, ...]) -> bool:
    """Whether an object is of one of these types; isinstance would ask the object for its class, too."""
    return issubclass(type(item), kinds)


def _within(item: Any) -> Iterator[tuple[str, Any]]:
    """What an object holds, each with the step of the way to it."""
    if _is(item, dict):
        for key, value in list(islice(dict.items(item), _ITEMS)):
            yield f"[{key!r}]" if type(key) in (str, int) else "[...]", value
        return
    if _is(item, (list, tuple)):
        plain = list.__iter__(item) if _is(item, list) else tuple.__iter__(item)
        for number, value in enumerate(islice(plain, _ITEMS)):
            yield f"[{number}]", value
    elif _is(item, FunctionType):
        yield from _of_function(item)
        return
    elif _is(item, MethodType):
        yield ".__self__", item.__self__
        return
    for name, value in _attributes(item).items():
        yield f".{name}", value


def _of_function(function: Any) -> Iterator[tuple[str, Any]]:
    """What a function brings along: variables of the one around it, and defaults, but no globals."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f".{name}", cell.cell_contents
        except ValueError:  # not set yet
            continue
    for value in function.__defaults__ or ():
        yield ".default", value
    for name, value in (function.__kwdefaults__ or {}).items():
        yield f".{name}", value


def _attributes(item: Any) -> dict[str, Any]:
    """The attributes of an object as they are kept, in its ``__dict__`` and in slots."""
    found: dict[str, Any] = {}
    for kind in type(item).__mro__:
        for name, member in list(vars(kind).items()):
            if isinstance(member, MemberDescriptorType):
                try:
                    found[name] = member.__get__(item)
                except AttributeError:  # not set yet
                    continue
            elif name == "__dict__" and isinstance(member, GetSetDescriptorType):
                found.update({key: value for key, value in list(member.__get__(item).items()) if type(key) is str})
    return found

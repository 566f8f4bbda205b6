"""The public names of the packages with their signatures; with ``--write`` it renews signatures.txt."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STORED = Path(__file__).with_suffix(".txt")

_UTILITIES = ("", "args", "assist", "dataset_util", "log", "rand", "trainer")
_MODULES = {
    "dowdyboy_core": (*_UTILITIES, "backend"),
    "dowdyboy_torch": (*_UTILITIES, "model_util"),
    "dowdyboy_paddle": (*_UTILITIES, "model_util"),
}


def signatures() -> str:
    """A line for each public class, method, property and function."""
    lines = [
        line
        for package, names in _MODULES.items()
        for name in names
        for line in _of_module(importlib.import_module(f"{package}.{name}".rstrip(".")))
    ]
    return re.sub(r" at 0x[0-9a-f]+", "", "\n".join(lines)) + "\n"  # where a function lies, which is a default


def _of_module(module: Any) -> Iterator[str]:
    for name in sorted(module.__all__):
        thing = getattr(module, name)
        if inspect.isclass(thing):
            yield from _of_class(f"{module.__name__}.{name}", thing)
        elif inspect.isfunction(thing):
            yield f"{module.__name__}.{name}{inspect.signature(thing)}"
        else:
            yield f"{module.__name__}.{name}"


def _of_class(path: str, kind: type) -> Iterator[str]:
    yield f"class {path}"
    for name in sorted(name for name in dir(kind) if not name.startswith("_") or name == "__init__"):
        member = inspect.getattr_static(kind, name)
        if isinstance(member, property):
            yield f"{path}.{name}: property"
        elif _is_ours(getattr(kind, name)):
            yield f"{path}.{name}{inspect.signature(getattr(kind, name))}"


def _is_ours(member: Any) -> bool:
    return callable(member) and str(getattr(member, "__module__", "")).partition(".")[0] in _MODULES


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        STORED.write_text(signatures(), encoding="utf-8")
    else:
        print(signatures(), end="")

"""Texts that are stored once, and that every backend has to give to the byte."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ._resuming import read_index

FOLDER = Path(__file__).with_name("golden")

_OWN = re.compile(r"log/|checkpoint/.*/(optimizer_\d+|rng)\.safetensors")
"""Files of a viewer, and those that a state has where the framework keeps some of it in arrays."""

_VOLATILE = {"backend", "backend_version", "dowdyboy", "python", "sha256", "files"}
"""What an index says that differs from one backend, version or machine to another."""


class Golden:
    """Compares what a backend gives with what is stored.

    Args:
        rewrites: the texts are stored, and not compared.
    """

    def __init__(self, *, rewrites: bool) -> None:
        self._rewrites = rewrites

    def __call__(self, name: str, lines: Iterable[str]) -> None:
        """Holds lines against ``golden/NAME.txt``.

        Raises:
            AssertionError: they differ; the message shows where.
        """
        path, text = FOLDER / f"{name}.txt", "".join(f"{line}\n" for line in lines)
        if self._rewrites:
            path.write_text(text, encoding="utf-8")
        stored = path.read_text(encoding="utf-8")
        if text != stored:
            lists = stored.splitlines(), text.splitlines()
            difference = difflib.unified_diff(*lists, "stored", "found", lineterm="", n=1)
            raise AssertionError(f"{path.name} is another:\n" + "\n".join(difference))


def files(out_dir: Path) -> Iterator[str]:
    """What a run has left, a line for each file, and the texts of those that hold no numbers of a framework."""
    for path in sorted(out_dir.rglob("*")):
        name = path.relative_to(out_dir).as_posix()
        if path.is_dir() or _OWN.match(name):
            continue
        yield f"-- {name}"
        if path.suffix == ".log":
            yield from run_log(path.read_text(encoding="utf-8"), out_dir)
        elif path.suffix == ".jsonl":
            yield from path.read_text(encoding="utf-8").splitlines()
        elif path.name == "checkpoint.json":
            index = read_index(path.parent)
            yield json.dumps({key: value for key, value in sorted(index.items()) if key not in _VOLATILE})


def run_log(text: str, out_dir: Path) -> Iterator[str]:
    """The lines of a run's log, without the times and the place."""
    for line in text.splitlines():
        yield re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ", "TIME ", line).replace(str(out_dir), "OUT_DIR")

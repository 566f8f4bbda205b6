"""Which room may know which: the seam is all that others see of the core, and the drawing of it is true."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from dowdyboy_core import backend

ROOT = Path(__file__).parents[1]
CORE = ROOT / "packages/dowdyboy-core/src/dowdyboy_core"
OUTSIDE = ["packages/dowdyboy-torch", "packages/dowdyboy-paddle", "conformance", "examples", "benchmarks", "ecosystem"]
PAGE = ROOT / "docs/architecture.md"

ROOMS = ("backend", "_run", "_exchange", "_disk", "_utilities")

MAY_IMPORT = {
    "backend": {"_errors", "log", "rand"},
    "_disk": {"_errors", "backend"},
    "_exchange": {"_errors", "backend"},
    "_utilities": {"_config", "_disk", "_errors", "_exchange", "_version", "backend", "rand"},
    "_run": {"_config", "_disk", "_errors", "_exchange", "_version", "backend", "log", "rand"},
}
"""Of each room the others, and the modules beside them, that it may import."""


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """The full names of all modules, and names in them, that are imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def programs() -> Iterator[tuple[str, str]]:
    """Where each Python file and each block of Python in a page outside of the core is, and its text."""
    for folder in (*OUTSIDE, "tests", "mutation"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for block in re.findall(r"^ *```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
            yield page.name, textwrap.dedent(block)


def test_nobody_imports_what_the_core_keeps_to_itself() -> None:
    found = [
        f"{place}: {name}"
        for place, text in programs()
        for name in imported(ast.parse(text), "elsewhere")
        if name.startswith("dowdyboy_core.") and any(part.startswith("_") for part in name.split(".")[1:])
        if not name.endswith("__version__")
    ]
    assert found == []


def test_an_import_of_a_private_room_would_be_seen() -> None:
    texts = [
        "from dowdyboy_core._run.saver import Saver",
        "import dowdyboy_core._disk",
        "from dowdyboy_core import _run",
    ]
    seen = [name for text in texts for name in imported(ast.parse(text), "elsewhere")]
    assert seen == ["dowdyboy_core._run.saver.Saver", "dowdyboy_core._disk", "dowdyboy_core._run"]


def arrows() -> set[tuple[str, str]]:
    """Which part of the core imports which: rooms, and the modules beside them."""
    found = set()
    for path in CORE.rglob("*.py"):
        place = path.relative_to(CORE).with_suffix("").parts
        package = ".".join(["dowdyboy_core", *place[:-1]])
        for name in imported(ast.parse(path.read_text(encoding="utf-8")), package):
            parts = name.split(".")
            if parts[0] == "dowdyboy_core" and parts[1] != place[0]:
                found.add((place[0], parts[1]))
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_no_other_than_it_may(room: str) -> None:
    others = {target for source, target in arrows() if source == room}
    assert others <= MAY_IMPORT[room]


def test_the_drawing_has_the_arrows_that_there_are() -> None:
    drawing = re.search(r"```mermaid\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert drawing is not None
    names = dict(re.findall(r"^ *(\w+)\[.*?<br>`?([\w.]+)`?", drawing[1], re.MULTILINE))
    drawn = {(names[source], names[target]) for source, target in re.findall(r"(\w+) --> (\w+)", drawing[1])}
    shown = set(names.values())
    assert drawn == {(source, target) for source, target in arrows() if {source, target} <= shown}
    assert shown == {*ROOMS, "trainer", "model_util"}


def test_a_disk_knows_no_epoch() -> None:
    for path in (CORE / "_disk").glob("*.py"):
        code = re.sub(r'"[^"\n]*"|#.*', "", path.read_text(encoding="utf-8"))
        assert not re.search(r"\bepoch\w*\b", code), path.name


def test_the_seam_says_what_each_of_its_names_is() -> None:
    assert backend.__all__ == sorted(backend.__all__)
    page = (ROOT / "docs/new-backend.md").read_text(encoding="utf-8")
    for name in backend.__all__:
        thing = getattr(backend, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert thing.__doc__, name
        assert f"`{name}`" in page, f"docs/new-backend.md doesn't name {name}"


def test_a_name_that_the_seam_has_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Saver'"):
        _ = backend.Saver


def test_the_public_signatures_are_those_that_are_written_down() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("paddle")
    spec = importlib.util.spec_from_file_location("signatures", Path(__file__).with_name("signatures.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if sys.version_info[:2] == (3, 11):  # versions differ in how they write annotations and defaults
        assert module.signatures() == module.STORED.read_text(encoding="utf-8"), (
            "a public signature changed: if it was meant to, run python tests/signatures.py --write"
        )

"""docs/ecosystem.md is of the cases that there are, and of the versions that are pinned; none is run here."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/ecosystem.md").read_text(encoding="utf-8")


def rows(title: str) -> list[list[str]]:
    """The cells of the table below a heading that begins so."""
    [section] = re.findall(rf"^### {title} .*?$(.*?)(?=^#|^<!--)", PAGE, re.DOTALL | re.MULTILINE)
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def names(framework: str) -> tuple[set[str], int]:
    """The cases of a framework that are named in the source, and how many calls have no name of their own there."""
    found: list[str] = []
    others = 0
    for path in sorted((ROOT / "ecosystem").glob("cases_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "case"):
                continue
            name, kind = (item.value if isinstance(item, ast.Constant) else None for item in node.args[:2])
            if kind == framework and isinstance(name, str):
                found.append(name.removeprefix("paddle: "))
            others += kind == framework and not isinstance(name, str)
    assert len(set(found)) == len(found)
    return set(found), others


@pytest.mark.parametrize(("framework", "title"), [("torch", "PyTorch"), ("paddle", "PaddlePaddle")])
def test_the_page_names_every_case(framework: str, title: str) -> None:
    told = [cells[0] for cells in rows(title)]
    named, made_in_loops = names(framework)
    assert len(named) > 25 and made_in_loops
    assert not named - set(told), "run `hatch run ecosystem`"
    assert set(told) >= named and len(told) == len(set(told))
    assert f"{len(told)} cases" in PAGE


def test_the_page_has_the_versions_that_are_pinned() -> None:
    with (ROOT / "hatch.toml").open("rb") as file:
        environments: dict[str, Any] = tomllib.load(file)["envs"]
    pinned = dict(spec.split("==") for spec in environments["ecosystem"]["extra-dependencies"])
    told = {
        tuple(item.rsplit(" ", 1)) for cells in rows("PyTorch") for item in cells[1].split(", ") if "own" not in item
    }
    assert len(told) > 8
    plain = {name.lower().replace("_", "-"): number for name, number in pinned.items()}
    for name, number in told:
        assert plain[name.lower().replace("_", "-")] == number, f"{name}: run `hatch run ecosystem`"
    for spec in environments["default"]["dependencies"][:2]:
        name, number = spec.split("==")
        assert re.search(rf"^### \w+ {re.escape(number)}$", PAGE, re.MULTILINE), f"{name}: run `hatch run ecosystem`"


def test_every_row_says_what_was_found() -> None:
    for title in ("PyTorch", "PaddlePaddle"):
        for cells in rows(title):
            assert len(cells) == 5 and {cells[2], cells[3]} <= {"equal", "no", "–"}, cells
            whole = "equal" in cells[2:4] and "no" not in cells[2:4]
            assert whole or "not yet right" in cells[4], cells

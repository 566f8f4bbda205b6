"""docs/ecosystem.md, written from what the cases found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .harness import Case

BEGIN, END = "<!-- what `hatch run ecosystem` writes begins here -->", "<!-- and ends here -->"

_TITLES = {"torch": ("PyTorch", "torch"), "paddle": ("PaddlePaddle", "paddlepaddle")}
_HEAD = ("what", "with", "beside a loop by hand", "killed and resumed", "to know")


def write_page(page: Path, cases: Sequence[Case], seen: Mapping[str, Mapping[str, Any]]) -> None:
    """Puts the tables between the two marks of the page."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    assert found, f"{page} has no line {BEGIN!r}, or none {END!r} behind it"
    page.write_text(f"{before}{BEGIN}\n{''.join(_tables(cases, seen))}{END}{after}", encoding="utf-8")


def _tables(cases: Sequence[Case], seen: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for framework, (title, distribution) in _TITLES.items():
        chosen = [case for case in cases if case.framework == framework]
        whole = sum(case.fails is None for case in chosen)
        yield f"\n### {title} {_number(distribution)}\n\n"
        yield f"{len(chosen)} cases, of which {len(chosen) - whole} are not yet right.\n\n"
        yield _row(_HEAD) + _row(["---"] * len(_HEAD))
        for case in chosen:
            yield _row(_cells(case, seen[case.name]))
    yield "\n"


def _cells(case: Case, seen: Mapping[str, Any]) -> list[str]:
    name = case.name.removeprefix("paddle: ")
    uses = ", ".join(f"{name} {_number(name)}" for name in case.uses)
    cells = [name, uses or f"{_TITLES[case.framework][0]}'s own"]
    for aspect in ("by hand", "killed"):
        if aspect in seen["failed"] or "whole" in seen["failed"]:
            cells.append("no")
        else:
            cells.append("equal" if aspect in seen["tried"] else "–")
    told = [case.note, case.not_by_hand]
    if case.fails is not None:
        aspect, reason = case.fails
        where = {"names": "names", "refused": "not refused"}.get(aspect, "")
        told.insert(0, f"**not yet right:** {where + ': ' if where else ''}{reason}")
    return [*cells, "; ".join(text for text in told if text)]


def _number(distribution: str) -> str:
    return version(distribution).partition("+")[0]  # without what build it is


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"

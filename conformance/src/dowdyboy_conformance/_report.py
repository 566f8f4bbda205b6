"""What a run of the checks has shown: for each clause, each backend, and 1, 2 and 3 processes."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from ._clauses import CLAUSES, TOPICS, UNCHECKED

FORMAT = "dowdyboy-conformance-report"
FORMAT_VERSION = 1
PROCESSES = (1, 2, 3)
SPEC = "https://github.com/dowdyboy/dowdyboy/blob/main/docs/spec.md"

PASSED, NOT_APPLICABLE, FAILED, NOT_RUN = "passed", "not applicable", "failed", "not run"
_SIGNS = {PASSED: "✓", NOT_APPLICABLE: "n/a", FAILED: "✗", NOT_RUN: "–"}


class Outcome(NamedTuple):
    """What came of one check on one backend.

    Attributes:
        check: its name, with its parameters.
        backend: what ``--backend`` calls the backend.
        processes: how many processes it was about.
        clauses: those that it is marked with.
        status: ``'passed'``, ``'not applicable'`` or ``'failed'``.
        reason: why it isn't applicable, or how it failed; else empty.
    """

    check: str
    backend: str
    processes: int
    clauses: Sequence[str]
    status: str
    reason: str = ""


class Report:
    """Brings the outcomes of a run together.

    Attributes:
        modules: for each backend, as ``--backend`` calls it, the import name of its distribution.
        outcomes: what has come of each check so far.
        whole: False when checks were deselected, or the run was broken off.
    """

    def __init__(self, modules: Mapping[str, str]) -> None:
        self.modules = modules
        self.outcomes: list[Outcome] = []
        self.whole = True
        self._of: dict[tuple[str, str, int], list[Outcome]] = {}

    def add(self, outcome: Outcome) -> None:
        """Takes what came of a check."""
        self.outcomes.append(outcome)
        for clause in outcome.clauses:
            self._of.setdefault((clause, outcome.backend, outcome.processes), []).append(outcome)

    def of(self, clause: str, backend: str, processes: int) -> list[Outcome]:
        """What came of the checks of a clause."""
        return self._of.get((clause, backend, processes), [])

    def status(self, clause: str, backend: str, processes: int) -> str:
        """Whether a clause is kept: all its checks that apply have passed."""
        return worst(outcome.status for outcome in self.of(clause, backend, processes))

    def columns(self) -> list[tuple[str, int]]:
        """The backends with the numbers of processes."""
        return [(backend, processes) for backend in self.modules for processes in PROCESSES]

    def is_complete(self) -> bool:
        """Whether nothing was left out: each clause has a result on each backend."""
        return self.whole and all(
            any(self.of(clause, backend, processes) for processes in PROCESSES)
            for clause in CLAUSES.keys() - UNCHECKED.keys()
            for backend in self.modules
        )

    def write(self, path: Path) -> None:
        """Writes the report as HTML, JSON or Markdown, as the path ends.

        Raises:
            OSError: the file can't be written.
        """
        text = WRITERS[path.suffix](self)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def worst(statuses: Iterable[str]) -> str:
    """The status of several together: what failed counts most, then what passed, and then what isn't applicable."""
    found = set(statuses)
    return next((status for status in (FAILED, PASSED, NOT_APPLICABLE) if status in found), NOT_RUN)


# ---- a line for each topic


def by_topic(report: Report) -> list[list[str]]:
    """A table: the head, and for each topic how many of its clauses are kept on each backend with 1, 2, 3 processes."""
    head = ["topic", "clauses", *(f"{backend} {processes}" for backend, processes in report.columns())]
    rows = [
        [
            f"{topic} {name}",
            str(count),
            *(_kept(report, topic, backend, processes) for backend, processes in report.columns()),
        ]
        for topic, (name, count) in TOPICS.items()
    ]
    return [head, *rows]


def _kept(report: Report, topic: str, backend: str, processes: int) -> str:
    found = [report.status(clause, backend, processes) for clause in CLAUSES if CLAUSES[clause] == topic]
    counts = [(status, found.count(status)) for status in (PASSED, FAILED, NOT_APPLICABLE)]
    return " ".join(f"{count} {_SIGNS[status]}" for status, count in counts if count) or _SIGNS[NOT_RUN]


def as_text(report: Report) -> Iterator[str]:
    """The lines of the table of topics, and of what failed, for a terminal."""
    table = by_topic(report)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    for outcome in report.outcomes:
        if outcome.status == FAILED:
            yield f"{', '.join(outcome.clauses)} failed: {outcome.check}"


def as_markdown(report: Report) -> str:
    """The table of topics, as README shows it."""
    head, *rows = by_topic(report)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in lines)


# ---- all there is


def as_json(report: Report) -> str:
    """The whole report, for programs."""
    clauses = {
        clause: {
            backend: {str(processes): _cell(report, clause, backend, processes) for processes in PROCESSES}
            for backend in report.modules
        }
        for clause in CLAUSES
    }
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "suite": version("dowdyboy-conformance"),
        "complete": report.is_complete(),
        "backends": {name: describe(module) for name, module in report.modules.items()},
        "clauses": clauses,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _cell(report: Report, clause: str, backend: str, processes: int) -> dict[str, Any]:
    found = report.of(clause, backend, processes)
    return {
        "status": worst(outcome.status for outcome in found),
        "checks": [
            {"check": outcome.check, "status": outcome.status, **({"reason": outcome.reason} if outcome.reason else {})}
            for outcome in found
        ],
    }


def describe(module: str) -> dict[str, str]:
    """The import name of a backend and its version."""
    return {"module": module, "version": str(getattr(import_module(module), "__version__", "unknown"))}


_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; color: #222 }
table { border-collapse: collapse }
th, td { border: 1px solid #ccc; padding: .15em .6em; text-align: center }
th:first-child { text-align: left }
thead th { position: sticky; top: 0; background: #fff }
.topic th { background: #eee; text-align: left }
.passed { background: #dff2df } .failed { background: #f7c8c8; font-weight: bold }
.not-applicable { background: #fff5d6 } .not-run { color: #aaa }
pre { background: #f6f6f6; padding: .6em; overflow-x: auto }
"""


def as_html(report: Report) -> str:
    """A page with a row for each clause; a cell tells its reason or its checks when the pointer is on it."""
    note = "" if report.is_complete() else "<p><strong>Some checks were not run.</strong></p>\n"
    versions = ", ".join(
        f"{html.escape(name)} ({html.escape(' '.join(describe(module).values()))})"
        for name, module in report.modules.items()
    )
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>Conformance</title>\n'
        f"<style>{_STYLE}</style>\n<h1>Conformance</h1>\n"
        f"<p>dowdyboy-conformance {version('dowdyboy-conformance')} on {versions}, "
        f'with 1, 2 and 3 processes. The clauses are those of <a href="{SPEC}">the contract</a>.</p>\n{note}'
        f"<p>{' &nbsp; '.join(f'{_SIGNS[status]} {status}' for status in _SIGNS)}</p>\n"
        f"<table>\n{_html_head(report)}<tbody>\n{''.join(_html_rows(report))}</tbody>\n</table>\n"
        f"{''.join(_html_failures(report))}</html>\n"
    )


def _html_head(report: Report) -> str:
    names = "".join(f'<th colspan="{len(PROCESSES)}">{html.escape(backend)}</th>' for backend in report.modules)
    numbers = "".join(f"<th>{processes}</th>" for _, processes in report.columns())
    return f'<thead>\n<tr><th rowspan="2">clause</th>{names}</tr>\n<tr>{numbers}</tr>\n</thead>\n'


def _html_rows(report: Report) -> Iterator[str]:
    width = 1 + len(report.columns())
    for topic, (name, _) in TOPICS.items():
        anchor = f"{topic} {name}".lower().replace(" ", "-")
        yield f'<tr class="topic"><th colspan="{width}"><a href="{SPEC}#{anchor}">{topic} {name}</a></th></tr>\n'
        for clause in (clause for clause in CLAUSES if CLAUSES[clause] == topic):
            cells = "".join(_html_cell(report, clause, *column) for column in report.columns())
            yield f"<tr><th>{clause}</th>{cells}</tr>\n"


def _html_cell(report: Report, clause: str, backend: str, processes: int) -> str:
    found = report.of(clause, backend, processes)
    status = worst(outcome.status for outcome in found)
    told = [outcome for outcome in found if outcome.status == status]
    title = "\n".join(dict.fromkeys(outcome.reason.partition("\n")[0] or outcome.check for outcome in told))
    return f'<td class="{status.replace(" ", "-")}" title="{html.escape(title)}">{_SIGNS[status]}</td>'


def _html_failures(report: Report) -> Iterator[str]:
    for outcome in report.outcomes:
        if outcome.status == FAILED:
            names = html.escape(f"{', '.join(outcome.clauses)}: {outcome.check}")
            yield f"<h3>{names}</h3>\n<pre>{html.escape(outcome.reason)}</pre>\n"


WRITERS = {".html": as_html, ".json": as_json, ".md": as_markdown}
"""What writes a report, by how its file ends."""

"""The report tells for each clause, backend and number of processes what its checks have shown."""

from __future__ import annotations

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dowdyboy_conformance import _golden
from dowdyboy_conformance._clauses import CLAUSES
from dowdyboy_conformance._report import FAILED, NOT_APPLICABLE, PASSED, Outcome, Report, as_markdown, by_topic
from dowdyboy_conformance._reporting import Reporting, Worker

BROKEN = "dowdyboy_conformance.mutants:NoZeroGrad"
SELECTION = "cleared_between_windows or (long_training and numpy) or test_precision"


def check(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "--pyargs", "dowdyboy_conformance.checks", "-q", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class Table(HTMLParser):
    """Reads the rows of a page's table: of each cell its class, or else its tag, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[tuple[str, str]]] = []
        self._kind = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self._kind = dict(attrs).get("class") or tag

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "table"):
            self._kind = ""

    def handle_data(self, data: str) -> None:
        if self._kind:
            self.rows[-1].append((self._kind, data))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The reports of a run of some checks on a good and on a broken backend, and what it printed."""
    folder = tmp_path_factory.mktemp("written") / "reports"
    paths = [folder / name for name in ("a.html", "a.json", "a.md")]
    done = check("--backend", f"numpy,{BROKEN}", "-k", SELECTION, *[f"--report={path}" for path in paths])
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert [path for path in paths if not path.exists()] == []
    return folder, done.stdout


def test_the_json_file_holds_all_outcomes(written: tuple[Path, str]) -> None:
    content: dict[str, Any] = json.loads((written[0] / "a.json").read_text(encoding="utf-8"))
    assert (content["format"], content["format_version"]) == ("dowdyboy-conformance-report", 1)
    assert not content["complete"], "some checks were deselected"
    assert list(content["clauses"]) == list(CLAUSES)
    assert content["backends"]["numpy"]["module"] == "dowdyboy_conformance.reference"
    assert content["clauses"]["C-1"]["numpy"]["1"] == {"status": "not run", "checks": []}
    for compared in content["clauses"]["N-4"]["numpy"].values():  # in 1, 2, 3 processes
        assert compared["status"] == "not applicable"
        assert {item["reason"] for item in compared["checks"]} == {"N-4 compares other backends with this one"}
    assert content["clauses"]["L-2"]["numpy"]["1"]["status"] == "passed"
    [failure] = content["clauses"]["L-2"][BROKEN]["1"]["checks"]
    assert failure["check"] == f"test_numbers.py::test_gradients_are_cleared_between_windows[{BROKEN}]"
    assert failure["status"] == "failed"
    assert "AssertionError" in failure["reason"]


def test_the_page_shows_the_same(written: tuple[Path, str]) -> None:
    text = (written[0] / "a.html").read_text(encoding="utf-8")
    table = Table()
    table.feed(text)
    content = json.loads((written[0] / "a.json").read_text(encoding="utf-8"))
    rows = {row[0][1]: [kind for kind, _ in row[1:]] for row in table.rows if row[0][1] in CLAUSES}
    assert list(rows) == list(CLAUSES)
    for clause, kinds in rows.items():
        results = content["clauses"][clause].values()
        expected = [result[number]["status"].replace(" ", "-") for result in results for number in "123"]
        assert kinds == expected, clause
    assert "Some checks were not run." in text
    assert "N-4 compares other backends with this one" in text
    assert "<pre>" in text, "the text of the failure"
    assert "<function" not in text, "what it quotes isn't escaped"


def test_the_summary_is_printed(written: tuple[Path, str]) -> None:
    lines = written[1].splitlines()
    [precision] = [line.split() for line in lines if line.startswith("P precision")]
    assert precision == ["P", "precision", "5", "4", "✓", "–", "–", "4", "✓", "–", "–"]
    assert f"L-2, O-1 failed: test_numbers.py::test_gradients_are_cleared_between_windows[{BROKEN}]" in lines
    assert f"report: {written[0] / 'a.html'}" in lines


@pytest.mark.long
def test_it_is_the_same_when_the_checks_are_shared_out(tmp_path: Path) -> None:
    selection = ["--backend", "numpy", "-k", "test_precision or ends_all or (knows_its_place and 1)"]
    found = []
    for name, options in {"alone": [], "shared": ["-n", "2", "--dist", "loadgroup"]}.items():
        path = tmp_path / f"{name}.json"
        done = check(*selection, *options, f"--report={path}")
        assert done.returncode == 0, done.stdout + done.stderr
        found.append(json.loads(path.read_text(encoding="utf-8")))
    for content in found:
        for backends in content["clauses"].values():
            for place in (place for places in backends.values() for place in places.values()):
                place["checks"].sort(key=lambda item: item["check"])
    assert found[0] == found[1]


def test_a_worker_that_leaves_checks_out_is_known_to_the_main_process() -> None:
    left_out: dict[str, Any] = {}
    Worker(left_out).pytest_deselected()
    reporting = Reporting([], {})
    reporting.pytest_testnodedown(SimpleNamespace(workeroutput={}))
    reporting.pytest_testnodedown(SimpleNamespace())  # one that crashed hands nothing over
    assert reporting._report.whole
    reporting.pytest_testnodedown(SimpleNamespace(workeroutput=left_out))
    assert not reporting._report.whole


def outcome(status: str, **changed: Any) -> Outcome:
    return Outcome("test_x", "numpy", 1, ["A-1"], status)._replace(**changed)


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([], "not run"),
        ([PASSED, PASSED], "passed"),
        ([NOT_APPLICABLE], "not applicable"),
        ([NOT_APPLICABLE, PASSED], "passed"),
        ([PASSED, FAILED, NOT_APPLICABLE], "failed"),
    ],
)
def test_a_clause_is_kept_when_all_that_applies_passes(statuses: list[str], expected: str) -> None:
    report = Report({"numpy": "dowdyboy_conformance.reference"})
    for status in statuses:
        report.add(outcome(status))
    assert report.status("A-1", "numpy", 1) == expected
    assert report.status("A-1", "numpy", 2) == report.status("A-2", "numpy", 1) == "not run"


def test_a_report_is_complete_when_every_clause_has_a_result_on_every_backend() -> None:
    report = Report({"numpy": "dowdyboy_conformance.reference", "torch": "dowdyboy_torch"})
    for clause in CLAUSES:
        report.add(outcome(PASSED, clauses=[clause]))
    assert not report.is_complete(), "nothing of torch"
    for clause in CLAUSES:
        report.add(outcome(NOT_APPLICABLE, clauses=[clause], backend="torch"))
    assert report.is_complete()
    report.whole = False
    assert not report.is_complete()


def test_topics_count_their_clauses() -> None:
    report = Report({"numpy": "dowdyboy_conformance.reference"})
    report.add(outcome(PASSED, clauses=["A-1", "A-2"]))
    report.add(outcome(FAILED, clauses=["A-2"]))
    report.add(outcome(NOT_APPLICABLE, clauses=["A-3"], processes=2))
    head, first = by_topic(report)[:2]
    assert head == ["topic", "clauses", "numpy 1", "numpy 2", "numpy 3"]
    assert first == ["A API", "9", "1 ✓ 1 ✗", "1 n/a", "–"]
    assert as_markdown(report).splitlines()[:3] == [
        "| topic | clauses | numpy 1 | numpy 2 | numpy 3 |",
        "| --- | --- | --- | --- | --- |",
        "| A API | 9 | 1 ✓ 1 ✗ | 1 n/a | – |",
    ]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ["--backend", "numpy", "--report", "a.txt"],
            "--report a.txt: its name must end with one of .html, .json, .md",
        ),
        (["--backend", "torch,numpy", "--rewrite-golden"], "--rewrite-golden needs --backend numpy"),
    ],
    ids=["report", "golden"],
)
def test_a_wrong_option_is_a_usage_error(options: list[str], says: str) -> None:
    done = check("--collect-only", *options)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert says in done.stdout + done.stderr


def test_a_golden_text_that_differs_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_golden, "FOLDER", tmp_path)
    _golden.Golden(rewrites=True)("a", ["one", "two", "three"])
    _golden.Golden(rewrites=False)("a", ["one", "two", "three"])
    with pytest.raises(AssertionError, match=r"^a.txt is another:\n.*\n.*\n@@.+@@\n one\n-two\n\+2\n three$"):
        _golden.Golden(rewrites=False)("a", ["one", "2", "three"])

"""Every benchmark runs with tiny sizes, and prints and writes what benchmarks/README.md says; no time is looked at."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

pytest.importorskip("torch")
pytest.importorskip("paddle")

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
README = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
PNG = b"\x89PNG\r\n\x1a\n"
SUBJECTS = re.findall(r'"(\w+)"', re.findall(r"SUBJECTS = (.*)", (BENCHMARKS / "run_all.py").read_text())[0])
CHARTS = {"steps": ["steps_batches", "steps_tensors", "steps_own"]}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

# One of them shows that the harness works; the others have the same, and take minutes.
SHORT = [name if name == "records" else pytest.param(name, marks=pytest.mark.long) for name in SUBJECTS]


def run(script: str, *arguments: str, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONIOENCODING": "utf-8"} | variables
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done


class Ran(dict[str, tuple[str, Path]]):
    """What each subject printed, and the folder that it wrote to; it is run when it is first looked at."""

    def __init__(self, out: Path) -> None:
        self._out = out

    def __missing__(self, subject: str) -> tuple[str, Path]:
        self[subject] = run(f"{subject}.py", "--quick", "--out", str(self._out)).stdout, self._out
        return self[subject]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return Ran(tmp_path_factory.mktemp("results"))


def rows(text: str) -> list[dict[str, str]]:
    """The rows of all tables in a text, by the headings of their columns."""
    found: list[dict[str, str]] = []
    for block in re.findall(r"(?:^.*\|.*\n)+", text + "\n", re.MULTILINE):
        headings, _, *lines = [[cell.strip() for cell in line.split("|")] for line in block.splitlines()]
        found += [dict(zip(headings, line, strict=True)) for line in lines]
    return found


@pytest.mark.parametrize("subject", SHORT)
def test_a_subject_prints_what_the_readme_says(ran: Ran, subject: str) -> None:
    text, _ = ran[subject]
    found = rows(text)
    assert {row["framework"] for row in found if "framework" in row} == {"torch", "paddle"}
    section = README[README.index(f"## {subject.capitalize()}") :].partition("\n## ")[0]
    undocumented = {heading for row in found for heading in row if heading not in section}
    assert undocumented <= {"framework", "contender", "processes", "model", "extras"}


@pytest.mark.parametrize("subject", SHORT)
def test_a_subject_writes_its_tables_charts_and_figures(ran: Ran, subject: str) -> None:
    text, out = ran[subject]
    written = (out / f"{subject}.md").read_text(encoding="utf-8")
    said, _, machine = written.strip().rpartition("\n\n")
    assert [line for line in said.splitlines() if line] == [line for line in text.splitlines() if line]
    assert re.fullmatch(r"Measured on .+, \d+ cores, \d+ GB, Linux [\d.]+; Python [\d.]+, torch .+\.", machine)
    figures = json.loads((out / f"{subject}.json").read_text(encoding="utf-8"))
    assert figures.pop("machine").keys() == {"processor", "cores", "memory_gb", "system", "versions", "text"}
    assert figures
    for chart in CHARTS.get(subject, [subject]):
        assert (out / f"{chart}.png").read_bytes().startswith(PNG)


@pytest.mark.long
def test_steps_are_compared_with_the_same_round(ran: Ran) -> None:
    text, out = ran["steps"]
    figures = json.loads((out / "steps.json").read_text(encoding="utf-8"))["frameworks"]
    printed = iter(rows(text))
    for data in ("batches", "tensors", "own"):
        for framework in ("torch", "paddle"):
            means = figures[framework][data]["means"]
            for name, values in means.items():
                row = next(printed)
                assert (row["framework"], row["contender"]) == (framework, name)
                if name != "hand-written":
                    over = [(own - base) * 1e6 for own, base in zip(values, means["hand-written"], strict=True)]
                    shown = row["over the hand-written loop, µs a step"]
                    assert shown == f"{median(over):+.1f} [{min(over):+.1f}, {max(over):+.1f}]"


@pytest.mark.long
def test_contenders_that_train_the_same_have_the_same_weights(ran: Ran) -> None:
    _, out = ran["steps"]
    figures = json.loads((out / "steps.json").read_text(encoding="utf-8"))["frameworks"]
    for framework in figures.values():
        digests = [data["digests"] for data in framework.values()]
        assert len({item["ours, silent"] for item in digests}) == 1, "whatever reads the data"
        ways = {name.partition(", ")[2].removeprefix("silent, "): value for name, value in digests[0].items()}
        different = [ways[name] for name in ("accumulating", "clipping", "a scheduler each step")]
        assert len({digests[0]["hand-written"], *different}) == 4, "the ways to train must differ"


CHEAT = """
from steps_cases import contender
from steps_torch import parts

@contender("cheat")
def cheat(job):
    model, optimizer, loss_func, batches = parts(job)

    def block():
        for features, labels in batches:
            job.mark()
            loss_func(model(features), labels).backward()

    return block
"""


@pytest.mark.long
def test_a_contender_that_trains_something_else_is_found(tmp_path: Path) -> None:
    (tmp_path / "cheat.py").write_text(CHEAT, encoding="utf-8")
    options = ["--quick", "--framework", "torch", "--data", "batches", "--with", "cheat", "--only", "cheat"]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = run("steps.py", *options, code=1, PYTHONPATH=path)
    assert "These should have ended with the same weights" in done.stderr


def test_the_page_of_results_says_what_the_results_say() -> None:
    run("paste.py", "--check")

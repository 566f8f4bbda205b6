"""The suite is whole: its clauses are those of the spec, each has a check, and no check is lost unnoticed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dowdyboy_conformance
from dowdyboy_conformance._clauses import CLAUSES, TOPICS, UNCHECKED

CHECKS = Path(dowdyboy_conformance.__file__).parent / "checks"
SPEC = Path(__file__).parents[2] / "docs" / "spec.md"
MANIFEST = Path(__file__).with_name("manifest.txt")


def checks() -> dict[str, set[str]]:
    """For each check, ``file::name``, the clauses that it is marked with."""
    found: dict[str, set[str]] = {}
    for path in sorted(CHECKS.glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                marks = [mark for mark in node.decorator_list if "mark.clause" in ast.unparse(mark)]
                clauses = {ast.literal_eval(item) for mark in marks if isinstance(mark, ast.Call) for item in mark.args}
                found[f"{path.name}::{node.name}"] = clauses
    return found


def collect(*options: str) -> subprocess.CompletedProcess[str]:
    """Collects the checks as a user would, without running them."""
    command = [sys.executable, "-m", "pytest", "--pyargs", "dowdyboy_conformance.checks", "--collect-only", "-q"]
    return subprocess.run([*command, *options], capture_output=True, text=True, check=False)


def test_the_clauses_are_those_of_the_spec() -> None:
    spec = SPEC.read_text(encoding="utf-8")
    assert sorted(re.findall(r"^- \*\*([A-Z]-\d+)\*\*", spec, re.MULTILINE)) == sorted(CLAUSES)
    assert re.findall(r"^## ([A-Z]) (.+)", spec, re.MULTILINE) == [(topic, TOPICS[topic][0]) for topic in TOPICS]


def test_every_clause_has_a_check_or_a_reason() -> None:
    checked = set().union(*checks().values())
    assert checked <= CLAUSES.keys()
    assert checked | UNCHECKED.keys() == CLAUSES.keys()
    assert not checked & UNCHECKED.keys()


def test_the_checks_that_pytest_collects_are_those_of_the_manifest() -> None:
    done = collect("--backend", "torch")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if "::" in line]
    collected = {
        Path(line.partition("::")[0]).name + "::" + line.partition("::")[2].partition("[")[0] for line in lines
    }
    assert sorted(collected) == MANIFEST.read_text(encoding="utf-8").splitlines(), "if meant, write the manifest anew"
    assert collected == checks().keys()


def test_a_failure_names_its_clauses() -> None:
    options = ["--backend", "dowdyboy_conformance.mutants:NoZeroGrad", "-k", "cleared_between_windows", "-q"]
    command = [sys.executable, "-m", "pytest", "--pyargs", "dowdyboy_conformance.checks", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert re.search(r"^-+ Clauses of docs/spec\.md that this check is about -+\nL-2, O-1$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "the conformance checks need --backend"),
        (["--backend", "jax"], "--backend jax: give torch, paddle, numpy, or a harness as package.module:Class"),
        (["--backend", "no_such_module:Harness"], "No module named 'no_such_module'"),
        (["--backend", "json:JSONDecoder"], "is no subclass of dowdyboy_conformance.Harness"),
    ],
    ids=["missing", "unknown", "not there", "no harness"],
)
def test_a_wrong_backend_is_a_usage_error(options: list[str], says: str) -> None:
    done = collect(*options)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert says in done.stdout + done.stderr

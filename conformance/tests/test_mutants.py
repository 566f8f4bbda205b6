"""Every mutant is caught, by the checks that are about the clause it breaks, and every check catches one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dowdyboy_conformance.mutants import CONTROL, EXPECTED, Spoilt, backend_of

CHECKS = Path(sys.modules[Spoilt.__module__].__file__ or "").parents[1] / "checks"
MANIFEST = Path(__file__).with_name("manifest.txt")
Outcomes = dict[str, dict[str, list[str]]]

CRASH = re.compile(r"^E +(\w+\.)*(Attribute|Import|Name|Type|UnboundLocal)Error\b", re.MULTILINE)

UNBROKEN: dict[str, str] = {}
"""Checks that no mutant fails, each with the reason."""


def checks_of(mutant: type[Spoilt]) -> set[str]:
    return {check for checks in EXPECTED[mutant].values() for check in checks}


def test_every_check_catches_a_mutant() -> None:
    known = {line.partition("::")[2] for line in MANIFEST.read_text(encoding="utf-8").splitlines()}
    catching = set().union(*map(checks_of, EXPECTED))
    assert catching <= known
    assert sorted(known - catching) == sorted(UNBROKEN), "write a mutant that fails it; docs/new-backend.md says how"


def test_every_mutant_has_a_name_of_its_own() -> None:
    names = [mutant.__name__ for mutant in EXPECTED]
    assert sorted(names) == sorted(set(names))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcomes]:
    """For each backend and check what came of it: '' or the text of the failure, for each set of parameters.

    Once a mutant was caught by a check, the other parameters of that are skipped.
    """
    report = tmp_path_factory.mktemp("mutants") / "report.xml"
    backends = ",".join(backend_of(mutant) for mutant in (CONTROL, *EXPECTED))
    command = [sys.executable, "-m", "pytest", str(CHECKS), "-q", "--backend", backends, f"--junitxml={report}"]
    # In one check the control's processes run everything, which may take minutes where others use the machine, too.
    patience = ["-o", "timeout=900", "-o", "faulthandler_timeout=890"]
    plugins = ["-p", "dowdyboy_conformance.mutants", "-p", "no:cacheprovider", "-W", "ignore", *patience]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *plugins], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and report.exists(), f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    found: Outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name, _, parameters = case.attrib["name"].partition("[")
        backend = parameters.rstrip("]").split("-")[0]
        problems = [f"{item.tag}: {item.text}" for item in case if item.tag in ("failure", "error", "skipped")]
        found.setdefault(backend, {}).setdefault(name, []).append("\n".join(problems))
    yield found


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_control_passes(outcomes: Outcomes) -> None:
    passed = outcomes[backend_of(CONTROL)]
    assert set(passed) == set().union(*map(checks_of, EXPECTED))
    assert {name: texts for name, texts in passed.items() if any(texts)} == {}


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("mutant", EXPECTED, ids=lambda mutant: mutant.__name__)
def test_a_mutant_is_caught(mutant: type[Spoilt], outcomes: Outcomes) -> None:
    for clause, checks in EXPECTED[mutant].items():
        for check in checks:
            texts = outcomes[backend_of(mutant)][check]
            caught = any(text.startswith("failure") for text in texts)
            assert caught, f"{check}, which is about {clause}, does not notice: {mutant.__doc__}"
            assert not any("BrokenMutant" in text for text in texts), texts
            # A crash would show that the mutant is broken, not that the check sees what it should.
            assert [text for text in texts if CRASH.search(text)] == []

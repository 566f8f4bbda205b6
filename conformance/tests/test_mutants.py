"""Every mutant is caught, by the check that is about the clause it breaks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dowdyboy_conformance.mutants import CONTROL, EXPECTED, Spoilt, backend_of

CHECKS = Path(sys.modules[Spoilt.__module__].__file__ or "").parent / "checks"
Outcomes = dict[str, dict[str, list[str]]]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # all mutants run in the first test, some in two processes


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcomes]:
    """For each backend and check what came of it: '' or the text of the failure, for each set of parameters."""
    report = tmp_path_factory.mktemp("mutants") / "report.xml"
    backends = ",".join(backend_of(mutant) for mutant in (CONTROL, *EXPECTED))
    command = [sys.executable, "-m", "pytest", str(CHECKS), "-q", "--backend", backends, f"--junitxml={report}"]
    plugins = ["-p", "dowdyboy_conformance.mutants", "-p", "no:cacheprovider", "-W", "ignore"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *plugins], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    found: Outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name, _, parameters = case.attrib["name"].partition("[")
        backend = parameters.rstrip("]").split("-")[0]
        problems = [item.text or item.tag for item in case if item.tag in ("failure", "error", "skipped")]
        found.setdefault(backend, {}).setdefault(name, []).append("\n".join(problems))
    yield found


def test_the_control_passes(outcomes: Outcomes) -> None:
    passed = outcomes[backend_of(CONTROL)]
    assert set(passed) == {check for checks in EXPECTED.values() for check in checks.values()}
    assert {name: texts for name, texts in passed.items() if any(texts)} == {}


@pytest.mark.parametrize("mutant", EXPECTED, ids=lambda mutant: mutant.__name__)
def test_a_mutant_is_caught(mutant: type[Spoilt], outcomes: Outcomes) -> None:
    for clause, check in EXPECTED[mutant].items():
        texts = outcomes[backend_of(mutant)][check]
        assert any(texts), f"{check}, which is about {clause}, does not notice: {mutant.__doc__}"
        assert not any("BrokenMutant" in text for text in texts), texts
        # A crash would show that the mutant is broken, not that the check sees what it should.
        crashes = [text for text in texts if "E   AttributeError" in text or "E   TypeError" in text]
        assert crashes == []

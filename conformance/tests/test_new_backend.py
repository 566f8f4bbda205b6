"""docs/new-backend.md: its steps name everything there is to write, and each makes the checks pass that it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from dowdyboy_conformance import Harness
from dowdyboy_core import Backend
from dowdyboy_core.backend import Vocabulary

PAGE = Path(__file__).parents[2] / "docs" / "new-backend.md"
COMMAND = "$ pytest --pyargs dowdyboy_conformance --backend mypkg.testing:MyHarness"


class Step(NamedTuple):
    """What a step has one write, and the checks that it says will pass, as pytest's ``-k`` takes them."""

    backend: list[str]
    harness: list[str]
    selection: str


def read_steps() -> list[Step]:
    steps = []
    for section in re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE):
        if section.startswith("Step "):
            backend, harness = (
                re.findall(r"`(\w+)`", line)
                for line in re.findall(r"^- (?:Backend|Harness): (.+)$", section, re.MULTILINE)
            )
            [command] = [line for line in section.splitlines() if line.startswith(COMMAND)]
            [selection] = re.findall(r'-k "(.+)"$', command) or [""]
            steps.append(Step(backend, harness, selection))
    return steps


STEPS = read_steps()

# A backend and a harness that are written as far as a step: the reference, with what comes later cut out.
STAGED = """
from dowdyboy_conformance import Harness
from dowdyboy_conformance.harnesses.numpy import NumpyHarness
from dowdyboy_conformance.reference._backend import NumpyBackend
from dowdyboy_core import Backend, Trainer

STEPS = {steps}


def unwritten(name):
    def method(*args, **named):
        raise NotImplementedError(f"{{name}} comes in a later step")
    return method


def cut(kind, base, place, written):
    later = {{name for step in STEPS[written:] for name in step[place]}} & kind.__abstractmethods__
    return type(base.__name__, (base,), {{name: unwritten(name) for name in later}})


def harness(written):
    backend = cut(Backend, NumpyBackend, 0, written)
    kind = cut(Harness, NumpyHarness, 1, written)
    kind.make_trainer = lambda self, config: Trainer(config, backend())
    return kind


for number in range(len(STEPS) + 1):
    globals()[f"Step{{number}}"] = harness(number)
"""


def methods(kind: type) -> set[str]:
    return {name for name, member in vars(kind).items() if callable(member) and not name.startswith("_")}


def test_the_steps_name_every_method_once() -> None:
    assert len(STEPS) == 8
    backend = [name for step in STEPS for name in step.backend]
    assert sorted(backend) == sorted(methods(Backend))
    harness = [name for step in STEPS for name in step.harness]
    assert sorted(harness) == sorted(Harness.__abstractmethods__)


def test_the_page_names_all_that_lets_runs_cross() -> None:
    page = PAGE.read_text(encoding="utf-8")
    wanted = {"vocabulary", "register_exchange", *Vocabulary.__abstractmethods__}
    assert [name for name in sorted(wanted) if f"`{name}`" not in page] == []


def test_the_example_sets_what_has_no_default() -> None:
    needed = [name for name in Harness.__annotations__ if not hasattr(Harness, name)]
    [example] = re.findall(
        r"^```python\nfrom dowdyboy_conformance import Harness\n(.+?)^```", PAGE.read_text(), re.M | re.S
    )
    assert re.findall(r"^    (\w+) = ", example, re.MULTILINE) == needed
    said = [name for name in Harness.__annotations__ if hasattr(Harness, name)]
    assert [name for name in said if f"`{name}`" not in PAGE.read_text()] == []


def test_the_files_that_it_links_to_are_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", PAGE.read_text(encoding="utf-8"))
    assert len(links) > 5
    assert [link for link in links if not (PAGE.parent / link).exists()] == []


def test_the_checks_that_it_shows_are_those_of_the_suite() -> None:
    sources = Path(sys.modules[Harness.__module__].__file__ or "").parents[1]
    suite = "".join(path.read_text(encoding="utf-8") for path in sources.rglob("*.py"))
    [section] = re.findall(r"^## Add a clause.+", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    shown = [
        line
        for block in re.findall(r"^   ```python\n(.+?)^   ```", section, re.M | re.S)
        for line in block.splitlines()
    ]
    assert len(shown) > 10
    assert [line for line in shown if line[3:].strip() not in ("...", "") and line[3:] not in suite] == []


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, 8))
def test_a_step_makes_its_checks_pass(tmp_path: Path, number: int) -> None:
    steps = [step[:2] for step in STEPS]
    (tmp_path / "staged.py").write_text(STAGED.format(steps=json.dumps(steps)), encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    # The last selection takes half a minute, and the whole suite runs anyway: it only has to fail without the step.
    harnesses = [f"staged:Step{number - 1}", *([f"staged:Step{number}"] if number < 7 else [])]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--pyargs",
        "dowdyboy_conformance",
        "-q",
        "-rf",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        [*command, "--backend", ",".join(harnesses), "-k", STEPS[number - 1].selection, *["-x"][: number // 7]],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert [line for line in failed if f"staged:Step{number}" in line] == []
    assert re.search(r"\d+ passed", done.stdout) or number == 7, done.stdout + done.stderr
    assert any(f"staged:Step{number - 1}" in line for line in failed) or number == 1, "the step was not needed"

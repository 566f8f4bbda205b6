"""A backend of somebody else's, as they would have it: from built wheels, in an environment without any framework."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from dowdyboy_core import __version__

pytestmark = [pytest.mark.packaging, pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[1]
DISK = Path("/var/tmp") if Path("/var/tmp").is_dir() else None
PROJECTS = [ROOT / "packages/dowdyboy-core", ROOT / "conformance"]

# A package that knows of dowdyboy what docs/new-backend.md says. Its framework is that of the reference.
THIRD_PARTY = {
    "pyproject.toml": f"""
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "thirdparty"
version = "1.0"
dependencies = ["dowdyboy-core=={__version__}"]

[project.optional-dependencies]
test = ["dowdyboy-conformance=={__version__}"]
""",
    "thirdparty/__init__.py": """
from dowdyboy_conformance.reference import spawn
from dowdyboy_core import Trainer as _Trainer
from dowdyboy_conformance.reference._backend import NumpyBackend


class Backend(NumpyBackend):
    name = "thirdparty"


class Trainer(_Trainer):
    def __init__(self, config):
        super().__init__(config, Backend())
""",
    "thirdparty/testing.py": """
import thirdparty
from dowdyboy_conformance.harnesses.numpy import NumpyHarness


class Harness(NumpyHarness):
    name = "thirdparty"
    module = "thirdparty"

    def make_trainer(self, config):
        return thirdparty.Trainer(config)


class Broken(Harness):
    def make_trainer(self, config):
        trainer = super().make_trainer(config)
        trainer._backend.set_training = lambda model, training: None
        return trainer
""",
}
# Of one process and of several, but for those that have two and three processes run everything.
SELECTION = "(test_records and not test_records_of_samples) or test_loop or test_an_error_in_one_process"


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command, away from the repository's own sources."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HATCH_ENV"))}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def must_run(*command: str | Path, cwd: Path) -> None:
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"


def build(project: Path, dist: Path) -> None:
    must_run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", dist, cwd=project)


@pytest.fixture(scope="module")
def python(constraints: Path) -> Iterator[Path]:
    """The interpreter of an environment with core, conformance and the third-party package, built and installed."""
    # Not where pytest keeps its folders, which may be in memory, where no program can be run.
    with tempfile.TemporaryDirectory(prefix="third_party", dir=DISK) as folder:
        yield install(Path(folder), constraints)


def install(folder: Path, constraints: Path) -> Path:
    for project in PROJECTS:
        source = folder / project.name
        shutil.copytree(project, source, ignore=shutil.ignore_patterns("__pycache__", "dist"))
        build(source, folder / "dist")
    for name, content in THIRD_PARTY.items():
        path = folder / "theirs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    build(folder / "theirs", folder / "dist")
    venv.create(folder / "environment", with_pip=False)
    python = folder / "environment" / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)
    wheels = sorted((folder / "dist").glob("*.whl"))
    assert len(wheels) == 3
    must_run(*pip, "install", "--quiet", "--constraint", constraints, *wheels, cwd=folder)
    must_run(*pip, "check", cwd=folder)
    return python


def check(python: Path, cwd: Path, harness: str, *options: str) -> subprocess.CompletedProcess[str]:
    suite = ("-m", "pytest", "--pyargs", "dowdyboy_conformance", "--backend", f"thirdparty.testing:{harness}")
    return run(python, *suite, "-q", "-rf", "-k", SELECTION, *options, cwd=cwd)


def test_neither_framework_is_there(python: Path, tmp_path: Path) -> None:
    for name in ("torch", "paddle", "dowdyboy_torch", "dowdyboy_paddle"):
        assert f"No module named '{name}'" in run(python, "-c", f"import {name}", cwd=tmp_path).stderr


def test_it_passes(python: Path, tmp_path: Path) -> None:
    done = check(python, tmp_path, "Harness")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "thirdparty.testing:Harness" in check(python, tmp_path, "Harness", "--collect-only").stdout


def test_what_is_broken_fails_and_names_the_clause(python: Path, tmp_path: Path) -> None:
    done = check(python, tmp_path, "Broken")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert len(failed) == 1 and "test_modes_and_gradients_in_each_hook[thirdparty.testing:Broken]" in failed[0]
    assert "\nH-4, L-10, L-11\n" in done.stdout


def test_the_command_of_the_readme_that_needs_no_framework_runs(python: Path, tmp_path: Path) -> None:
    text = (ROOT / "conformance/README.md").read_text(encoding="utf-8")
    [command] = [line[2:] for line in text.splitlines() if line.startswith("$ pytest") and "--backend numpy" in line]
    done = run(python, "-m", *command.split(), "-q", "-k", SELECTION, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr

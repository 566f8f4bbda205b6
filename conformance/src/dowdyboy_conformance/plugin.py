"""The pytest plugin: ``--backend``, the ``harness`` fixture, and the ``clause`` marker."""

from __future__ import annotations

import importlib
from collections.abc import Generator
from typing import Any

import pytest

from ._clauses import CLAUSES
from ._harness import Harness
from ._together import SCENARIOS, Together

pytest.register_assert_rewrite("dowdyboy_conformance.checks")

BUILT_IN = {
    "torch": "dowdyboy_conformance.harnesses.torch:TorchHarness",
    "paddle": "dowdyboy_conformance.harnesses.paddle:PaddleHarness",
    "numpy": "dowdyboy_conformance.harnesses.numpy:NumpyHarness",
}
_CHECKS = "dowdyboy_conformance.checks."
_HARNESSES = pytest.StashKey[dict[str, Harness]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--backend``."""
    parser.getgroup("dowdyboy conformance").addoption(
        "--backend",
        action="append",
        default=[],
        metavar="NAME",
        help="what to check: torch, paddle, numpy (the reference), or the harness of another framework as "
        "package.module:Class; "
        "may be given several times, or with commas",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Makes the harnesses that were asked for, so that a wrong name ends the run before it begins."""
    config.addinivalue_line("markers", "clause(*ids): the clauses of docs/spec.md that a check is about")
    names = [name for given in config.getoption("backend") for name in given.split(",") if name]
    config.stash[_HARNESSES] = {name: load_harness(name) for name in names}


def load_harness(name: str) -> Harness:
    """The harness of a built-in name or of ``package.module:Class``.

    Raises:
        pytest.UsageError: there is none of that name, or it can't be imported.
    """
    module, _, attribute = BUILT_IN.get(name, name).partition(":")
    if not attribute:
        known = ", ".join(BUILT_IN)
        raise pytest.UsageError(f"--backend {name}: give {known}, or a harness as package.module:Class")
    try:
        kind = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise pytest.UsageError(f"--backend {name}: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, Harness)):
        raise pytest.UsageError(f"--backend {name}: {kind!r} is no subclass of dowdyboy_conformance.Harness")
    made: Harness = kind()
    return made


@pytest.fixture(scope="session")
def together(harness: Harness, tmp_path_factory: pytest.TempPathFactory) -> Together:
    """Runs of 1, 2 and 3 processes, which all checks of several processes share."""
    only = getattr(harness, "scenario", None)
    chosen = {name: place for name, place in SCENARIOS.items() if only in (None, name)}
    return Together(harness, tmp_path_factory.mktemp("together"), chosen)


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Together:
    """The same of the reference, as far as other backends are compared with it."""
    chosen = {"long_training": SCENARIOS["long_training"]}
    return Together(load_harness("numpy"), tmp_path_factory.mktemp("reference"), chosen)


def _is_check(module: Any) -> bool:
    return str(getattr(module, "__name__", "")).startswith(_CHECKS)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs every check once for each backend."""
    if "harness" in metafunc.fixturenames and _is_check(metafunc.module):
        found = metafunc.config.stash[_HARNESSES]
        # Without a backend the collection is refused below; one empty place keeps the check in it until then.
        metafunc.parametrize("harness", list(found.values()) or [None], ids=list(found) or ["none"], scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuses checks without a backend or with a clause that the contract doesn't have."""
    checks = [item for item in items if _is_check(getattr(item, "module", None))]
    if checks and not config.stash[_HARNESSES]:
        raise pytest.UsageError("the conformance checks need --backend, for example --backend torch")
    problems = [problem for item in checks for problem in _problems(item)]
    if problems:
        raise pytest.UsageError("\n".join(sorted(set(problems))))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Says with each failure which clauses are not kept."""
    report = yield
    if report.failed and _is_check(getattr(item, "module", None)):
        report.sections.append(
            ("Clauses of docs/spec.md that this check is about", ", ".join(sorted(clauses_of(item))))
        )
    return report


def clauses_of(item: pytest.Item) -> set[str]:
    """The clauses that a check is marked with."""
    return {clause for marker in item.iter_markers("clause") for clause in marker.args}


def _problems(item: pytest.Item) -> list[str]:
    name, clauses = item.nodeid.partition("[")[0], clauses_of(item)
    if not clauses:
        return [f"{name} is marked with no clause"]
    return [f"{name} is marked with {clause!r}, which is no clause" for clause in clauses - CLAUSES]

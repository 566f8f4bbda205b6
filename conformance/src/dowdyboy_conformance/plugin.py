"""The pytest plugin: ``--backend``, ``--report``, the ``harness`` fixture, and the markers."""

from __future__ import annotations

import importlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from dowdyboy_conformance.harnesses.harness import Harness

from ._clauses import CLAUSES
from ._golden import Golden
from ._report import WRITERS
from ._reporting import TOGETHER, Reporting, Worker
from ._together import SCENARIOS, Together

pytest.register_assert_rewrite("dowdyboy_conformance.checks")

BUILT_IN = {
    "torch": "dowdyboy_conformance.harnesses.torch:TorchHarness",
    "paddle": "dowdyboy_conformance.harnesses.paddle:PaddleHarness",
    "numpy": "dowdyboy_conformance.harnesses.numpy:NumpyHarness",
}
_CHECKS = "dowdyboy_conformance.checks."
_HARNESSES = pytest.StashKey[dict[str, Harness]]()
SELECTED = pytest.StashKey[dict[str, set[str]]]()
"""For a backend of which not all checks are wanted, the names of those that are; another plugin says so."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--backend``, ``--report`` and ``--rewrite-golden``."""
    group = parser.getgroup("dowdyboy conformance")
    group.addoption(
        "--report",
        action="append",
        default=[],
        type=Path,
        metavar="PATH",
        help="write which clauses each backend keeps to a .html, .json or .md file, and print a summary; "
        "may be given several times",
    )
    group.addoption(
        "--rewrite-golden",
        action="store_true",
        help="store what the reference gives as what all backends have to give; needs --backend numpy",
    )
    group.addoption(
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
    config.addinivalue_line("markers", "processes(number): how many a check starts that has no such parameter")
    names = [name for given in config.getoption("backend") for name in given.split(",") if name]
    config.stash[_HARNESSES] = {name: load_harness(name) for name in names}
    if config.getoption("rewrite_golden") and names != ["numpy"]:
        raise pytest.UsageError("--rewrite-golden needs --backend numpy: the reference says what is right")
    paths = [] if hasattr(config, "workerinput") else config.getoption("report")  # of pytest-xdist the main process
    for path in paths:
        if path.suffix not in WRITERS:
            raise pytest.UsageError(f"--report {path}: its name must end with one of {', '.join(WRITERS)}")
    if paths:
        modules = {name: harness.module for name, harness in config.stash[_HARNESSES].items()}
        config.pluginmanager.register(Reporting(paths, modules), "dowdyboy_conformance_report")
    output = getattr(config, "workeroutput", None)  # of pytest-xdist, in a worker
    if output is not None:
        config.pluginmanager.register(Worker(output), "dowdyboy_conformance_worker")


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
def golden(pytestconfig: pytest.Config) -> Golden:
    """The texts that are stored once for all backends."""
    return Golden(rewrites=pytestconfig.getoption("rewrite_golden"))


@pytest.fixture(scope="session")
def together(harness: Harness, tmp_path_factory: pytest.TempPathFactory) -> Together:
    """Runs of 1, 2 and 3 processes, which all checks of several processes share."""
    only = getattr(harness, "scenario", None)
    chosen = {name: place for name, place in SCENARIOS.items() if only in (None, name)}
    if type(harness) is type(load_harness("numpy")):
        del chosen["long_training"]  # which others are compared with it by
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
        selected = metafunc.config.stash.get(SELECTED, {})
        check = metafunc.function.__name__
        given = metafunc.config.stash[_HARNESSES]
        found = {name: harness for name, harness in given.items() if check in selected.get(name, {check})}
        # Without a backend the collection is refused below; one empty place keeps the check in it until then. So does
        # a check that none of the backends is selected for.
        metafunc.parametrize("harness", list(found.values()) or [None], ids=list(found) or ["none"], scope="session")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks for groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuses checks without a backend or with a clause that the contract doesn't have."""
    checks = [item for item in items if _is_check(getattr(item, "module", None))]
    if checks and not config.stash[_HARNESSES]:
        raise pytest.UsageError("the conformance checks need --backend, for example --backend torch")
    unwanted = {item for item in checks if item.callspec.params["harness"] is None}  # type: ignore[attr-defined]
    items[:] = [item for item in items if item not in unwanted]
    checks = [item for item in checks if item not in unwanted]
    problems = [problem for item in checks for problem in _problems(item)]
    if problems:
        raise pytest.UsageError("\n".join(sorted(set(problems))))
    for item in checks:
        properties = _properties(item)
        item.user_properties += properties
        if "together" in getattr(item, "fixturenames", ()) and config.pluginmanager.hasplugin("xdist"):
            # What several processes saw together is seen once: so its checks are for one worker of pytest-xdist.
            item.add_marker(pytest.mark.xdist_group(f"{TOGETHER}{dict(properties)['backend']}"))


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


def _properties(item: pytest.Item) -> list[tuple[str, str]]:
    """What the report tells of a check besides its outcome; pytest takes it along from one process to another."""
    parameters: dict[str, Any] = getattr(item, "callspec").params  # noqa: B009 # an Item has none, a check has
    names = {id(harness): name for name, harness in item.config.stash[_HARNESSES].items()}
    marker = item.get_closest_marker("processes")
    processes = parameters.get("processes", marker.args[0] if marker else 1)
    return [
        ("backend", names[id(parameters["harness"])]),
        ("processes", str(processes)),
        ("clauses", " ".join(sorted(clauses_of(item)))),
    ]


def _problems(item: pytest.Item) -> list[str]:
    name, clauses = item.nodeid.partition("[")[0], clauses_of(item)
    if not clauses:
        return [f"{name} is marked with no clause"]
    return [f"{name} is marked with {clause!r}, which is no clause" for clause in clauses - CLAUSES.keys()]

"""Backends that are deliberately wrong in one point each, and the checks that must notice.

A mutant is a harness like any other, in one of the modules of this folder, by topic. To run what must notice one:

    pytest --pyargs dowdyboy_conformance -p dowdyboy_conformance.mutants --backend dowdyboy_conformance.mutants:NoStep
"""

from __future__ import annotations

import importlib
import multiprocessing
import pkgutil
from collections.abc import Generator
from typing import Any

import pytest

from dowdyboy_conformance.plugin import SELECTED

from .mutant import EXPECTED, Mutant, Spoilt

__all__ = ["CONTROL", "EXPECTED", "Spoilt", "backend_of"]

CONTROL = Mutant

if multiprocessing.parent_process() is None:  # one that a check starts needs its own mutant alone, and so no PyTorch
    for _module in sorted(found.name for found in pkgutil.iter_modules(__path__)):
        importlib.import_module(f"{__name__}.{_module}")
_all: list[type[Spoilt]] = [CONTROL, *EXPECTED]
globals().update({mutant.__name__: mutant for mutant in _all})


def backend_of(mutant: type[Spoilt]) -> str:
    """What ``--backend`` calls a mutant."""
    return f"{__name__}:{mutant.__name__}"


def pytest_configure(config: pytest.Config) -> None:
    """Says which checks a mutant must fail, and for the control all of those.

    Before any is collected: each check once for every mutant would be some hundred thousand, and a minute and a half.
    """
    wanted = {backend_of(mutant): set().union(*checks.values()) for mutant, checks in EXPECTED.items()}
    config.stash[SELECTED] = {**wanted, backend_of(CONTROL): set().union(*wanted.values())}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leaves out three processes, which are slow: two show it as well. And other backends, which no mutant is."""
    kept = []
    for item in items:
        parameters = _parameters(item)
        if isinstance(parameters.get("harness"), Spoilt) and parameters.get("processes", 2) == 2:
            kept.append(item)
    items[:] = kept


def _parameters(item: pytest.Item) -> dict[str, Any]:
    callspec = getattr(item, "callspec", None)
    return {} if callspec is None else callspec.params


_CAUGHT: set[tuple[type[Spoilt], str]] = set()
"""Which mutant was caught by which check, in this process."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Has a mutant's alterations last for the time of one check, since other harnesses have checks in this process.

    A check that has caught a mutant with some of its parameters need not be run with the others.
    """
    harness = _parameters(item).get("harness")
    if not isinstance(harness, Spoilt):
        return (yield)
    place = type(harness), item.name.partition("[")[0]
    if place in _CAUGHT:
        pytest.skip("caught already, with other parameters")
    with pytest.MonkeyPatch.context() as patch:
        harness.alter(patch)
        try:
            return (yield)
        except AssertionError:
            _CAUGHT.add(place)
            raise

"""Backends that are deliberately wrong in one point each, and the checks that must notice.

A mutant is a harness like any other, in one of the modules of this folder, by topic. To run what must notice one:

    pytest --pyargs dowdyboy_conformance -p dowdyboy_conformance.mutants --backend dowdyboy_conformance.mutants:NoStep
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Generator, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from dowdyboy_conformance.plugin import SELECTED

from . import mutant
from .mutant import Mutant, Spoilt

if TYPE_CHECKING:
    from .mutant import EXPECTED

__all__ = ["CONTROL", "EXPECTED", "Spoilt", "backend_of"]

CONTROL = Mutant


def _modules() -> Iterator[ModuleType]:
    """Those of this folder, one after the other: most are asked for one mutant alone."""
    found = [module.name for module in pkgutil.iter_modules(__path__)]
    for name in sorted(found, key=lambda name: (name == "torch", name)):  # which takes the longest to import
        yield importlib.import_module(f"{__name__}.{name}")


def __getattr__(name: str) -> Any:
    if name == "EXPECTED":
        for _ in _modules():
            pass  # each enters its mutants
        return mutant.EXPECTED
    for module in _modules() if name[:1].isupper() else ():
        found = getattr(module, name, None)
        if isinstance(found, type) and issubclass(found, Spoilt):
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def backend_of(mutant: type[Spoilt]) -> str:
    """What ``--backend`` calls a mutant."""
    return f"{__name__}:{mutant.__name__}"


def pytest_configure(config: pytest.Config) -> None:
    """Says which checks a mutant must fail, and for the control all of those.

    Before any is collected: each check once for every mutant would be some hundred thousand, and a minute and a half.
    """
    # Through the module, whose __getattr__ has all of them imported.
    expected = sys.modules[__name__].EXPECTED
    wanted = {backend_of(mutant): set().union(*checks.values()) for mutant, checks in expected.items()}
    config.stash[SELECTED] = {**wanted, backend_of(CONTROL): set().union(*wanted.values())}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leaves out three processes, which are slow: two show it as well. And other backends, which no mutant is.

    The control has each check with one set of parameters: with all of them the reference has it, which it is.
    """
    kept, of_control = [], set()
    for item in items:
        parameters = _parameters(item)
        harness = parameters.get("harness")
        if not isinstance(harness, Spoilt) or parameters.get("processes", 2) != 2:
            continue
        if type(harness) is CONTROL:
            check = item.nodeid.partition("[")[0]
            if check in of_control:
                continue
            of_control.add(check)
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

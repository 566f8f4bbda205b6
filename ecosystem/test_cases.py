"""Every case, in every way."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from ecosystem.harness import CASES, Case, judge
from ecosystem.operators import declare_operators

MODULES = sorted(path.stem for path in Path(__file__).parent.glob("cases_*.py"))
# What each life would import anew, with the first optimizer that it makes.
_AHEAD = ("dowdyboy_torch", "dowdyboy_paddle", "numpy.random", "torch._dynamo", "torch.distributed")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what other libraries warn of on import is their own
    declare_operators()
    for _module in (*_AHEAD, *(f"ecosystem.{name}" for name in MODULES)):
        importlib.import_module(_module)


class KnownFault(Exception):
    """A case fails in the way that is known, and for the reason that it gives."""


def _known(case: Case) -> pytest.MarkDecorator | tuple[()]:
    if case.fails is None:
        return ()
    return pytest.mark.xfail(strict=True, raises=KnownFault, reason=f"{case.fails[0]}: {case.fails[1]}")


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"{case.framework}: {case.name}", marks=_known(case)) for case in CASES]
)
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
def test_case(case: Case, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    verdict = judge(case, tmp_path)
    failed = verdict.failed()
    record_property("case", {"name": case.name, "tried": list(verdict.problems), "failed": list(failed)})
    told = "\n".join(f"{aspect}: {text}" for aspect, text in failed.items())
    expected = [] if case.fails is None else [case.fails[0]]
    if failed and list(failed) == expected:
        raise KnownFault(told)
    assert not failed, told

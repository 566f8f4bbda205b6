"""C-39: scripts that nobody thought of, drawn from a number, end as if nothing had interrupted them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from dowdyboy_conformance._playing import play_all
from dowdyboy_conformance._problem import build
from dowdyboy_conformance._scripts import VARIABLE, numbers
from dowdyboy_conformance._together import Together, start
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_conformance.scenarios.scripts import play_together

COUNT = 9


@pytest.mark.clause("C-39", "C-7", "C-19")
def test_random_scripts_end_as_without_a_stop(harness: Harness, tmp_path: Path) -> None:
    print(f"scripts {numbers(harness, COUNT)} of {harness.name}")
    problems = play_all(harness, tmp_path, COUNT)
    assert not problems, "\n\n".join(problems)


@pytest.mark.clause("C-39", "W-17")
@pytest.mark.parametrize("processes", [2])
def test_random_scripts_of_several_processes_end_as_without_a_stop(
    request: pytest.FixtureRequest, harness: Harness, tmp_path: Path, processes: int
) -> None:
    if os.environ.get(VARIABLE):
        start(harness, processes, play_together, str(tmp_path))
        seen: Any = [(tmp_path / f"rank_{rank}.txt").read_text() for rank in range(processes)]
    else:
        together: Together = request.getfixturevalue("together")
        seen = ["\n\n".join(problems) for problems in together(processes, "scripts")]
    assert seen == [""] * processes, "\n\n".join(seen)


@pytest.mark.clause("C-5")
def test_slots_stand_in_the_order_of_the_parameters(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, optimizer="adam", epoch=2, enable_save_checkpoint=True)
    first = [item for path, item in harness.native_parameters(run.model) if path.startswith("fc0")]

    def on_epoch_begin(trainer: Any, ep: int) -> None:
        for parameter in first:
            trainer._backend.set_wants_gradient(parameter, ep == 2)

    run.trainer.fit(run.train_step, on_epoch_begin=on_epoch_begin)
    stored = json.loads((tmp_path / "checkpoint" / "epoch_2" / "optimizer_0.json").read_text())
    assert list(stored["state"]) == stored["param_groups"][0]["params"]
    assert len(stored["state"]) == 4

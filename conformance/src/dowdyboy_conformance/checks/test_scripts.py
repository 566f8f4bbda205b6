"""C-39: scripts that nobody thought of, drawn from a number, end as if nothing had interrupted them.

And the faults that they have found, each by itself.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
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


@pytest.mark.clause("O-3")
@pytest.mark.parametrize("auto", [True, False])
def test_clipping_does_not_count_what_was_frozen_since(harness: Harness, tmp_path: Path, auto: bool) -> None:
    bound, lr = 1e-3, 0.1
    run = build(harness, tmp_path, epoch=2, batch_size=12, lr=lr, clip_grad_norm=bound, auto_optimize=auto)
    ends: list[dict[str, Any]] = []

    def on_epoch_begin(trainer: Any, ep: int) -> None:
        for path, parameter in harness.native_parameters(run.model):
            trainer._backend.set_wants_gradient(parameter, ep == 1 or path.startswith("fc1"))

    def train_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        loss = run.train_step(trainer, bat, bat_idx, global_step)
        if not auto:
            trainer.zero_grad(run.optimizer)
        assert not harness.gradients(run.model)
        if not auto:
            trainer.backward(loss)
            trainer.step(run.optimizer)
        return loss

    note = lambda trainer, ep: ends.append(run.parameters())  # noqa: E731
    run.trainer.fit(train_step, None, note, on_epoch_begin=on_epoch_begin)
    first, second = ends
    moved = {path: second[path] - first[path] for path in first}
    assert not any(moved[path].any() for path in moved if path.startswith("fc0"))
    total = sum(float(np.square(item, dtype=np.float64).sum()) for item in moved.values()) ** 0.5
    assert total == pytest.approx(lr * bound, rel=0.02)


@pytest.mark.clause("H-1")
@pytest.mark.parametrize("processes", [2, 3])
def test_validation_counts_alike_in_all_processes(together: Together, processes: int) -> None:
    first, *others = together(processes, "counts")
    assert first == [0, 1, 2, 3]
    assert others == [[0, 2]] * (processes - 1)

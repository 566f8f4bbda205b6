"""What each of several processes does, where the question is what a hook may do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dowdyboy_conformance._data import Indexed
from dowdyboy_conformance._problem import Run, build, data
from dowdyboy_conformance.harnesses.harness import Harness

from .numbers import state

TESTED = 7
"""How many batches a test has."""


def interludes(harness: Harness, out_dir: Path) -> Any:
    """Tests in the midst of training and in validation; what they saw, and what was left of them."""
    with_tests = _amid_training(harness, out_dir / "with", calls=True)
    without = _amid_training(harness, out_dir / "without", calls=False)
    return {**with_tests, "without": without["end"], **_in_validation(harness, out_dir / "val")}


def _build(harness: Harness, out_dir: Path, **settings: Any) -> Run:
    run = build(harness, out_dir, batch_norm=True, dropout=0.3, samples=48, **settings)
    tested = Indexed(TESTED, lambda index: data(TESTED)[0][index])
    run.trainer.set_test_dataloader(harness.loader(tested, 1, shuffle=True, workers=1))
    return run


def _amid_training(harness: Harness, out_dir: Path, *, calls: bool) -> Any:
    run = _build(harness, out_dir, accumulate_steps=2)
    found: dict[str, Any] = {"first": [], "records": [], "left": []}

    def train_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        loss = run.train_step(trainer, bat, bat_idx, global_step)
        if calls and bat_idx in (0, 1):  # in the midst of a window, and where one closes
            before = state(harness, run.model)
            found["first"].append(trainer._backend.gather(before[harness.running_variance])[0])
            found["records"].append(_tested(run))
            found["left"].append(state(harness, run.model) == before)
        return loss

    run.trainer.fit(train_step, run.val_step)
    return {**found, "end": [state(harness, run.model), run.losses, harness.draw()]}


def _tested(run: Run) -> Any:
    """The running variance as each batch of a test found it, all that there are by their numbers."""
    found: list[Any] = []

    def test_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        trainer.set_records({"variance": run.harness.state(run.model)[run.harness.running_variance]})
        return run.trainer.get_models()[0](bat).sum()

    run.trainer.test(test_step, lambda trainer: found.append(trainer.get_records()["variance"]))
    return run.harness.numpy(found[0]).tolist()


def _in_validation(harness: Harness, out_dir: Path) -> Any:
    run = _build(harness, out_dir)
    run.trainer.set_val_dataloader(harness.loader(harness.dataset(np.arange(run.trainer.world_size + 1)), 1))
    found: dict[str, Any] = {"in_val": [], "refused": None}

    def val_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        try:
            found["in_val"].append(len(_tested(run)))
        except Exception as error:
            found["refused"] = [type(error).__name__, str(error)]

    run.trainer.fit(run.train_step, val_step)
    return found

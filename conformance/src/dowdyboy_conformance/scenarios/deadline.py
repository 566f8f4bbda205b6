"""What each of several processes does where the time of a fit is up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dowdyboy_conformance._inside import inside
from dowdyboy_conformance._problem import Run, build
from dowdyboy_conformance._resuming import read_index
from dowdyboy_conformance.harnesses.harness import Harness

_stopping = inside("_run.stopping")


def on_a_clock(run: Run, seconds: float = 10.0) -> list[float]:
    """Has each batch of a run take so many seconds on a clock of its own; gives the time, in a list."""
    now = [0.0]
    train_step, val_step = run.train_step, run.val_step

    def timed(step: Any) -> Any:
        def call(*given: Any) -> Any:
            now[0] += seconds
            return step(*given)

        return call

    changed: Any = run
    changed.train_step, changed.val_step = timed(train_step), timed(val_step)
    trainer: Any = run.trainer
    trainer._stopping._deadline._clock = lambda: now[0]
    return now


def deadline(harness: Harness, out_dir: Path) -> Any:
    """A fit whose time is up, by a clock that is slower in the first process, and one that goes on."""
    period, _stopping.PERIOD = _stopping.PERIOD, 0.0  # they ask one another after each batch
    try:
        seen: dict[str, Any] = {}
        run = _run(harness, out_dir, stop_after="45s")
        on_a_clock(run, 10.0 if run.trainer.rank == 0 else 1000.0)
        try:
            run.fit()
        except SystemExit as error:
            index = read_index(out_dir / "checkpoint" / "last_epoch_1")
            seen["code"] = error.code
            seen["stands"] = [index["epoch"], index["batch"], index["val_batch"]]
        run = _run(harness, out_dir, resume="auto")
        steps: list[int] = []

        def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
            steps.append(global_step)
            return run.train_step(trainer, bat, bat_idx, global_step)

        run.trainer.fit(step)
        return {**seen, "goes_on_with": steps[0]}
    finally:
        _stopping.PERIOD = period


def _run(harness: Harness, out_dir: Path, **settings: Any) -> Run:
    world_size = harness.make_trainer(build(harness, out_dir).trainer.config).world_size
    common: dict[str, Any] = {"epoch": 1, "enable_save_checkpoint": True, "batch_size": 1}
    return build(harness, out_dir, samples=7 * world_size, **common, **settings)

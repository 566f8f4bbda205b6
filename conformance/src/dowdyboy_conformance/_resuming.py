"""A run with everything in it that is random or has a state, stopped in every way, and what it leaves."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any, NamedTuple

from dowdyboy_conformance.harnesses.harness import Harness

from ._data import Augmented
from ._problem import Run, build


class Killed(Exception):
    """Stops a run where a kill would have."""


class Place(NamedTuple):
    """A moment of a run: within ``batch`` of ``phase`` (``"train"``, ``"val"``), or ``"end"`` for on_epoch_end."""

    phase: str
    epoch: int
    batch: int = 0


def start(harness: Harness, out_dir: Path, workers: int = 0, **changed: Any) -> Run:
    """The run, over 3 epochs of 3 batches of training and 3 of validation."""
    settings: dict[str, Any] = {
        "epoch": 3,
        "optimizer": "adam",
        "schedule": "step",
        "shuffle": True,
        "dropout": 0.3,
        "batch_norm": True,
        "enable_save_checkpoint": True,
        "save_best": True,
        "dataset": Augmented(harness, 12),
        "workers": workers,
        **changed,
    }
    return build(harness, out_dir, **settings)


def go(run: Run, kill_at: int | None = None, signal_at: Place | None = None, signum: int = signal.SIGTERM) -> None:
    """Fits, logging at each step of training.

    Args:
        run: the run.
        kill_at: the training step within which it is killed.
        signal_at: where it gets a signal.
        signum: which one.
    """

    def pass_by(*place: Any) -> None:
        if place == signal_at:
            os.kill(os.getpid(), signum)

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        loss = run.train_step(trainer, bat, bat_idx, global_step)
        trainer.log({"loss": loss}, global_step)
        trainer.set_records({"seen": loss})
        if global_step == kill_at:
            raise Killed
        pass_by("train", trainer.epoch, bat_idx)
        return loss

    def val_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        trainer.set_records({"val_step": global_step, "val_draw": run.harness.draw()})
        pass_by("val", trainer.epoch, bat_idx)
        return run.val_step(trainer, bat, bat_idx, global_step)

    def end(trainer: Any, ep: int) -> None:
        records = trainer.get_records()
        sums = {name: records[name].sum() for name in sorted(records)}
        trainer.log({"end": ep, "count": len(records["seen"]), **sums}, trainer.global_step)
        pass_by("end", ep, 0)

    try:
        run.trainer.fit(step, val_step, end)
    except Killed:
        assert kill_at is not None


def outcome(out_dir: Path, epoch: int = 3) -> dict[str, Any]:
    """All that a run leaves, to be compared bit by bit."""
    found: dict[str, Any] = {"metrics": (out_dir / "metrics.jsonl").read_text()}
    folders = sorted(path.name for path in (out_dir / "checkpoint").iterdir())
    found["folders"] = folders
    for folder in folders:
        for path in (out_dir / "checkpoint" / folder).iterdir():
            found[f"{folder}/{path.name}"] = path.read_bytes()
    assert f"last_epoch_{epoch}" in folders
    return found


def read_index(folder: Path) -> dict[str, Any]:
    """What ``checkpoint.json`` says."""
    found: dict[str, Any] = json.loads((folder / "checkpoint.json").read_text())
    return found


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compares two outcomes, and names what differs."""
    assert sorted(found) == sorted(expected), sorted(found.keys() ^ expected.keys())
    unequal = [name for name in expected if found[name] != expected[name]]
    assert unequal == [], unequal

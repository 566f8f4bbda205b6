"""What each of several processes does with state of the user's own."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from dowdyboy_conformance._inside import inside
from dowdyboy_conformance._problem import Run, build
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core import CheckpointError

_stopping = inside("_run.stopping")


class Statistics:
    """Keeps what one process has seen, as a metric does."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.kept: dict[str, Any] = {"means": [], "sum": np.zeros(4), "tensor": harness.tensor(np.zeros(4, np.float32))}

    def update(self, features: Any) -> None:
        """Takes a batch in."""
        values = self.harness.numpy(features)
        self.kept["means"].append(float(values.mean()))
        self.kept["sum"] = self.kept["sum"] + values.sum(0)
        self.kept["tensor"] = self.harness.tensor(self.harness.numpy(self.kept["tensor"]) * np.float32(0.5) + values[0])

    def state_dict(self) -> dict[str, Any]:
        """What it keeps."""
        return dict(self.kept)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes it up."""
        self.kept = dict(state)

    def plain(self) -> Any:
        """The same for JSON."""
        tensor = self.harness.numpy(self.kept["tensor"]).tolist()
        return [self.kept["means"], self.kept["sum"].tolist(), tensor]


class Unstorable(Statistics):
    """Has a state that no file has a word for, in one process."""

    def state_dict(self) -> dict[str, Any]:
        """That state."""
        return {"kept": {"of": object()}}


def own_state(harness: Harness, out_dir: Path) -> Any:
    """What it keeps at the end of a run, of one that was stopped in a validation and goes on; and how saving fails."""
    period, _stopping.PERIOD = _stopping.PERIOD, 0.0  # they ask one another after each batch
    try:
        seen: dict[str, Any] = {"whole": _go(harness, out_dir / "whole")}
        seen["stopped"] = _go(harness, out_dir / "cut", stop_at=4)
        seen["resumed"] = _go(harness, out_dir / "cut", resume="auto")
        seen["refused"] = _refused(harness, out_dir / "refused")
        return seen
    finally:
        _stopping.PERIOD = period


def _run(harness: Harness, out_dir: Path, statistics: list[Any], **settings: Any) -> Run:
    run = build(harness, out_dir, samples=30, batch_size=5, epoch=2, enable_save_checkpoint=True, **settings)
    run.trainer.set_components(statistics)
    return run


def _go(harness: Harness, out_dir: Path, stop_at: int | None = None, **settings: Any) -> Any:
    statistics = [Statistics(harness), Statistics(harness)]
    run = _run(harness, out_dir, statistics, **settings)

    def train(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        statistics[0].update(bat[0])
        return run.train_step(trainer, bat, bat_idx, global_step)

    def val(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        statistics[1].update(bat[0])
        if global_step == stop_at and trainer.rank == trainer.world_size - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with suppress(SystemExit):
        run.trainer.fit(train, val)
    return [item.plain() for item in statistics]


def _refused(harness: Harness, out_dir: Path) -> Any:
    """The error in this process where the last one has what can't be stored, and how many batches were trained."""
    probe = build(harness, out_dir).trainer
    last = probe.rank == probe.world_size - 1
    run = _run(harness, out_dir, [(Unstorable if last else Statistics)(harness)])
    try:
        run.fit(val=False)
    except CheckpointError as error:
        return [str(error), len(run.losses)]
    return None

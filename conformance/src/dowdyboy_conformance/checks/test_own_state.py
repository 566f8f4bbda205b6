"""C: state of the user's own is part of a run."""

from __future__ import annotations

import enum
import os
import signal
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from dowdyboy_conformance._problem import Run, build
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core import CheckpointError


class Mood(enum.Enum):
    """Where a counter has come to."""

    FRESH = 1
    USED = 2


class Pair(NamedTuple):
    """Two numbers."""

    low: int
    high: int


class Counter:
    """Keeps some of everything that a state may hold."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.kept: dict[str, Any] = {
            "count": 0,
            "mood": Mood.FRESH,
            "pair": Pair(0, 0),
            "last": deque(maxlen=3),
            "seen": set(),
            "sums": np.zeros((2, 2), np.float64),
            "mean": np.float32(0),
            "tensor": harness.tensor(np.zeros(3, np.float32)),
        }

    def update(self, number: int) -> None:
        """Counts a batch."""
        kept = self.kept
        kept["count"] += number
        kept["mood"] = Mood.USED
        kept["pair"] = Pair(number, kept["count"])
        kept["last"].append(number)
        kept["seen"].add(number)
        kept["sums"] += number / 3
        kept["mean"] = np.float32(kept["mean"] * np.float32(0.9) + np.float32(number))
        kept["tensor"] = self.harness.tensor(self.harness.numpy(kept["tensor"]) + np.float32(number / 3))

    def state_dict(self) -> dict[str, Any]:
        """What it keeps."""
        return dict(self.kept)

    def plain(self) -> dict[str, Any]:
        """The same to be compared, types and all."""
        said = {name: (type(value).__name__, repr(value)) for name, value in self.kept.items() if name != "tensor"}
        return {**said, "tensor": self.harness.numpy(self.kept["tensor"]).tolist()}


class Loading(Counter):
    """Takes a state up as modules of PyTorch do."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes it up."""
        self.kept = dict(state)


class Setting(Counter):
    """Takes a state up as layers of PaddlePaddle do."""

    def set_state_dict(self, state: dict[str, Any]) -> None:
        """Takes it up."""
        self.kept = dict(state)


def _start(harness: Harness, out_dir: Path, components: list[Any], **changed: Any) -> Run:
    run = build(harness, out_dir, epoch=2, enable_save_checkpoint=True, save_steps=1, **changed)
    run.trainer.set_components(components)
    return run


def _go(run: Run, counters: list[Any], stop_at: int | None = None) -> None:
    def train(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        counters[0].update(global_step)
        return run.train_step(trainer, bat, bat_idx, global_step)

    def val(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        counters[1].update(global_step)
        if global_step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    run.trainer.fit(train, val)


@pytest.mark.clause("C-28", "C-7")
def test_state_of_the_users_own_is_kept_within_a_validation(harness: Harness, tmp_path: Path) -> None:
    whole = [Loading(harness), Setting(harness)]
    _go(_start(harness, tmp_path / "whole", [*whole, "a text"]), whole)
    stopped = [Loading(harness), Setting(harness)]
    with pytest.raises(SystemExit):
        _go(_start(harness, tmp_path / "cut", [*stopped, "a text"]), stopped, stop_at=4)
    resumed = [Loading(harness), Setting(harness)]
    _go(_start(harness, tmp_path / "cut", [*resumed, "a text"], resume="auto"), resumed)
    assert [item.plain() for item in resumed] == [item.plain() for item in whole]
    assert resumed[1].plain() != stopped[1].plain()
    names = {path.name for path in (tmp_path / "cut" / "checkpoint" / "last_epoch_2").iterdir() if "compo" in path.name}
    assert names == {f"component_{place}.{end}" for place in (0, 1) for end in ("json", "safetensors")}


@pytest.mark.clause("C-28", "C-9")
def test_a_state_on_one_side_only_is_refused(harness: Harness, tmp_path: Path) -> None:
    counters: list[Any] = [Loading(harness), Loading(harness)]
    _go(_start(harness, tmp_path, counters), counters)
    folder = tmp_path / "checkpoint" / "last_epoch_2"
    for components, said in (([], "not in the trainer"), ([*counters, Loading(harness)], "component_2")):
        run = _start(harness, tmp_path / "other", components)
        before = run.parameters()
        with pytest.raises(CheckpointError, match=said):
            run.trainer.load_checkpoint(folder)
        for name, value in run.parameters().items():
            np.testing.assert_array_equal(value, before[name])

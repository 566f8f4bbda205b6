"""C: what a model holds under several paths is stored once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from dowdyboy_conformance._checkpoints import forge, refuse, rewrite_index
from dowdyboy_conformance._problem import Run, build, layers
from dowdyboy_conformance._resuming import read_index
from dowdyboy_conformance.harnesses.harness import Harness

PATHS = {"fc0.weight", "fc0.bias", "fc1.weight", "fc1.bias"}
TIED = {"model_0": {"fc1.weight": "fc0.weight"}}


def _build(harness: Harness, out_dir: Path, *, seed: int = 1, tied: bool = True, **settings: Any) -> Run:
    """A run of a model with two layers, of which the second has the weight of the first."""
    run = build(harness, out_dir, enable_save_checkpoint=True, optimizer="adam", **settings)
    run.model = harness.branched_model([*layers(4, 3, seed=seed), *layers(4, 3, seed=seed + 1)])
    if tied:
        run.model.fc1.weight = run.model.fc0.weight
    run.trainer.set_model(run.model)
    run.trainer.set_optimizer(*harness.optimizer("adam", [run.model], 0.1))
    return run


def _train(run: Run) -> dict[str, np.ndarray[Any, Any]]:
    """Trains, and gives what the model holds then, under each path."""
    run.trainer.fit(lambda trainer, bat, *_: run.loss(trainer.get_models()[0](bat[0], True), bat[1]))
    found = {path: array.copy() for path, array in run.harness.state(run.model).items()}
    assert found.keys() == PATHS
    return found


def _assert_same(one: dict[str, np.ndarray[Any, Any]], other: dict[str, np.ndarray[Any, Any]]) -> None:
    assert one.keys() == other.keys()
    for path, array in one.items():
        np.testing.assert_array_equal(array, other[path], err_msg=path)


@pytest.mark.clause("C-33")
def test_tied_weights_are_stored_once_and_resumed(harness: Harness, tmp_path: Path) -> None:
    whole = _train(_build(harness, tmp_path / "whole", epoch=2, ema_decay=0.5))
    run = _build(harness, tmp_path / "parts", ema_decay=0.5)
    trained = _train(run)
    folder = tmp_path / "parts" / "checkpoint" / "epoch_1"
    assert read_index(folder)["tied"] == {**TIED, "ema_0": TIED["model_0"]}
    stored = load_file(folder / "model_0.safetensors")
    assert stored.keys() == load_file(folder / "ema_0.safetensors").keys() == PATHS - {"fc1.weight"}
    _assert_same(stored, {path: trained[path] for path in stored})

    resumed = _build(harness, tmp_path / "parts", seed=5, epoch=2, ema_decay=0.5, resume="auto")
    _assert_same(_train(resumed), whole)


@pytest.mark.clause("C-33")
def test_weights_are_taken_up_under_each_path_however_they_were_stored(harness: Harness, tmp_path: Path) -> None:
    trained = _train(_build(harness, tmp_path))
    folder = tmp_path / "checkpoint" / "epoch_1"
    untied = _build(harness, tmp_path, seed=5, tied=False)
    untied.trainer.load_checkpoint(folder, weights_only=True)
    _assert_same(harness.state(untied.model), trained)

    stored = load_file(folder / "model_0.safetensors")
    forge(folder, "model_0.safetensors", save({**stored, "fc1.weight": stored["fc0.weight"]}))
    rewrite_index(folder, tied={})
    tied = _build(harness, tmp_path, seed=5)
    tied.trainer.load_checkpoint(folder)
    _assert_same(harness.state(tied.model), trained)


@pytest.mark.clause("C-21", "C-33")
def test_a_note_that_does_not_fit_is_refused(harness: Harness, tmp_path: Path) -> None:
    trained = _train(_build(harness, tmp_path))
    folder = tmp_path / "checkpoint" / "epoch_1"
    run = _build(harness, tmp_path, seed=5)
    before = {path: array.copy() for path, array in harness.state(run.model).items()}
    assert any((before[path] != trained[path]).any() for path in PATHS)
    for others in ({"fc1.weight": "other"}, {"fc1.weight": 5}, {"fc0.bias": "fc1.bias"}):
        rewrite_index(folder, tied={"model_0": others})
        assert "The index says that" in refuse(run.trainer, folder)
    for note in (None, {"model_0": ["fc1.weight"]}):
        rewrite_index(folder, tied=note)
        assert "What the index says of tied weights" in refuse(run.trainer, folder)
    rewrite_index(folder, tied={})
    assert "missing: fc1.weight" in refuse(run.trainer, folder)
    _assert_same(harness.state(run.model), before)

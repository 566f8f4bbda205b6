"""C: an average of the weights is saved, taken up again and loaded."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from dowdyboy_conformance._averages import DECAY, Values, averaged, close, equal, of_average, trained
from dowdyboy_conformance._problem import build
from dowdyboy_conformance._resuming import Place, assert_equal, go, outcome, read_index, start
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core import CheckpointError, ConfigError, SetupError


@pytest.mark.clause("C-26", "C-4", "C-22")
def test_a_checkpoint_holds_weights_and_average(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, ema_decay=DECAY, enable_save_checkpoint=True, batch_norm=True)
    run.fit()
    folder = tmp_path / "checkpoint" / "epoch_1"
    weights, average = (load_file(folder / f"{name}_0.safetensors") for name in ("model", "ema"))
    [copied] = run.trainer.get_ema_models()
    assert equal(weights, harness.state(run.model))
    assert equal(average, harness.state(copied))
    told = json.loads((folder / "ema.json").read_text())
    assert (told["decay"], told["updates"]) == (DECAY, 3)
    assert sorted(told["parameters"]) == sorted(f"0/{path}" for path in trained(harness.parameters(run.model)))


@pytest.mark.clause("C-26", "C-8")
def test_the_average_can_be_loaded(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path / "one", ema_decay=DECAY, enable_save_checkpoint=True, batch_norm=True).fit()
    folder = tmp_path / "one" / "checkpoint" / "last_epoch_1"
    other = build(harness, tmp_path / "other", batch_norm=True, enable_save_checkpoint=True)
    with pytest.raises(ConfigError, match="ema=True and weights_only=False"):
        other.trainer.load_checkpoint(folder, ema=True)
    other.trainer.load_checkpoint(folder, weights_only=True, ema=True)
    assert equal(harness.state(other.model), harness.state(run.trainer.get_ema_models()[0]))
    other.trainer.load_checkpoint(folder, weights_only=True)
    assert equal(harness.state(other.model), harness.state(run.model))
    other.fit()
    with pytest.raises(CheckpointError, match="holds no average of the weights"):
        other.trainer.load_checkpoint(tmp_path / "other" / "checkpoint" / "epoch_1", weights_only=True, ema=True)


@pytest.mark.clause("C-26", "C-7", "C-19")
@pytest.mark.parametrize(
    ("window", "signal_at", "kill_at"),
    [(1, None, 4), (2, None, 5), (1, Place("val", 1, 0), None), (1, Place("val", 2, 1), None)],
    ids=["killed", "in-a-window", "in-validation", "later"],
)
def test_a_resumed_run_goes_on_with_its_average(
    harness: Harness, tmp_path: Path, window: int, signal_at: Place | None, kill_at: int | None
) -> None:
    changed: dict[str, Any] = {"ema_decay": DECAY, "save_steps": 1, "accumulate_steps": window, "optimizer": "momentum"}
    go(start(harness, tmp_path / "whole", **changed))
    stopped = start(harness, tmp_path / "stopped", **changed)
    if signal_at is None:
        go(stopped, kill_at)
    else:
        usual = signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with pytest.raises(SystemExit):
            go(stopped, signal_at=signal_at)
        signal.signal(signal.SIGTERM, usual)
        last = max((tmp_path / "stopped" / "checkpoint").glob("last_epoch_*"))
        assert read_index(last)["val_batch"] == signal_at.batch + 1
        assert equal(load_file(last / "model_0.safetensors"), harness.state(stopped.model))
        assert equal(load_file(last / "ema_0.safetensors"), harness.state(stopped.trainer.get_ema_models()[0]))
        assert not equal(harness.state(stopped.model), harness.state(stopped.trainer.get_ema_models()[0]))
    resumed = start(harness, tmp_path / "stopped", resume="auto", **changed)
    go(resumed)
    assert 0 < len(resumed.losses) < 9
    assert_equal(outcome(tmp_path / "stopped"), outcome(tmp_path / "whole"))


@pytest.mark.clause("C-26")
def test_an_average_on_one_side_only_is_told(
    harness: Harness, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(harness, tmp_path / "with", ema_decay=DECAY, enable_save_checkpoint=True).fit()
    build(harness, tmp_path / "without", enable_save_checkpoint=True).fit()
    capsys.readouterr()
    folder = tmp_path / "with" / "checkpoint" / "epoch_1"
    build(harness, tmp_path / "drops", epoch=2, resume=folder).fit()
    said = capsys.readouterr().out
    assert said.count(f"{str(folder)!r} holds an average of the weights, and this run keeps none") == 1
    folder = tmp_path / "without" / "checkpoint" / "epoch_1"
    run = build(harness, tmp_path / "begins", epoch=2, resume=folder, ema_decay=DECAY)
    loaded: list[Values] = []

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        loaded.append(run.parameters())
        return run.train_step(trainer, bat, bat_idx, global_step)

    run.trainer.fit(step)
    said = capsys.readouterr().out
    assert said.count(f"{str(folder)!r} holds no average of the weights") == 1
    assert close(of_average(run), averaged([*loaded, run.parameters()]))


@pytest.mark.clause("C-26")
def test_a_bad_average_replaces_no_good_one(harness: Harness, tmp_path: Path) -> None:
    changed: dict[str, Any] = {"ema_decay": DECAY, "enable_save_checkpoint": True, "nonfinite": "stop"}
    run = build(harness, tmp_path, epoch=3, auto_optimize=False, **changed)
    [(_, parameter), *_] = harness.native_parameters(run.model)

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        loss = run.train_step(trainer, bat, bat_idx, global_step)
        trainer.zero_grad(run.optimizer)
        trainer.backward(loss)
        trainer.step(run.optimizer)
        if global_step == 4:
            harness.overwrite(parameter, float("inf"))
        return loss

    with pytest.raises(SetupError, match="of ema_0 is not finite in epoch 2"):
        run.trainer.fit(step, on_step_end=lambda trainer, global_step: harness.overwrite(parameter, 0.5))
    last = tmp_path / "checkpoint" / "last_epoch_1"
    assert all(np.isfinite(array).all() for array in load_file(last / "ema_0.safetensors").values())
    assert sorted(path.name for path in last.parent.iterdir()) == ["epoch_1", "last_epoch_1"]

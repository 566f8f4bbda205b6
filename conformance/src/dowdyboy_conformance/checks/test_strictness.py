"""C: what doesn't fit is refused as a whole, with all its differences, and nothing of it is left in the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from dowdyboy_conformance._checkpoints import forge, refuse
from dowdyboy_conformance._problem import Run, build, layers
from dowdyboy_conformance._resuming import assert_equal, outcome
from dowdyboy_conformance.harnesses.harness import Harness


def saved_with(harness: Harness, out_dir: Path, **parts: Any) -> Path:
    """A checkpoint of a run of these parts."""
    build(harness, out_dir, enable_save_checkpoint=True, **parts).fit()
    return out_dir / "checkpoint" / "epoch_1"


def other_run(harness: Harness, out_dir: Path, **parts: Any) -> Run:
    """A run that goes on for 2 epochs, with a past: an epoch of training that has filled its optimizer."""
    settings: dict[str, Any] = {"optimizer": "adam", "schedule": "step", "dropout": 0.3, **parts}
    run = build(harness, out_dir, enable_save_checkpoint=True, initial=layers(4, 4, 3, seed=9), epoch=2, **settings)
    return run.fit()


def goes_on_as_if_nothing_had_been(harness: Harness, tmp_path: Path, folder: Path, **parts: Any) -> str:
    """Has a run refuse a checkpoint, and compares all that it does afterwards with one that never saw it."""
    twins = [other_run(harness, tmp_path / name, **parts) for name in ("refused", "never asked")]
    text = refuse(twins[0].trainer, folder)
    for run in twins:
        run.trainer.log({"begins": 1}, 0)
        run.fit()
    assert twins[0].losses == twins[1].losses
    assert_equal(*(outcome(tmp_path / name, 2) for name in ("refused", "never asked")))
    return text


KINDS = [
    ({"optimizer": "adam"}, {"optimizer": "momentum", "schedule": None}),
    ({"optimizer": "momentum"}, {"optimizer": "adam", "schedule": None}),
    ({"optimizer": "adam", "schedule": "step"}, {"schedule": "plateau"}),
    ({"optimizer": "adam", "schedule": "plateau"}, {"schedule": "step"}),
]


@pytest.mark.clause("C-9")
@pytest.mark.parametrize(("stored", "wanted"), KINDS, ids=["adam", "momentum", "step", "plateau"])
def test_another_kind_of_optimizer_or_scheduler_is_refused(
    harness: Harness, tmp_path: Path, stored: dict[str, Any], wanted: dict[str, Any]
) -> None:
    folder = saved_with(harness, tmp_path / "saved", **stored)
    text = goes_on_as_if_nothing_had_been(harness, tmp_path, folder, **wanted)
    assert "The scheduler is not the one that was saved." in text or "he optimizer" in text


@pytest.mark.clause("C-9", "X-2")
@pytest.mark.parametrize("weights_only", [False, True])
def test_all_differences_are_told_at_once(harness: Harness, tmp_path: Path, weights_only: bool) -> None:
    folder = saved_with(harness, tmp_path / "saved", optimizer="adam")
    stored = load_file(folder / "model_0.safetensors")
    stored["fc9.bias"] = stored.pop("fc1.bias")
    stored["fc0.weight"] = stored["fc0.weight"].astype(np.float64)
    stored["fc0.bias"] = np.zeros(7, np.float32)
    forge(folder, "model_0.safetensors", save(stored))
    run = build(harness, tmp_path, optimizer="adam")
    before = run.parameters()
    text = refuse(run.trainer, folder, weights_only=weights_only)
    assert text.split("\n  ")[1:] == [
        "model_0: missing: fc1.bias",
        "model_0: not in the model: fc9.bias",
        "model_0: shape of fc0.bias: stored (7,), wanted (4,)",
        "model_0: type of fc0.weight: stored F64, wanted F32",
    ]
    for name, array in before.items():
        np.testing.assert_array_equal(run.parameters()[name], array, err_msg=name)


def _wrong_slot(folder: Path) -> None:
    arrays = load_file(folder / "optimizer_0.safetensors")
    name = next(name for name in arrays if "fc0.weight" in name and arrays[name].size > 1)
    forge(folder, "optimizer_0.safetensors", save({**arrays, name: np.zeros((2, 2), np.float32)}))


def _no_slots(folder: Path) -> None:
    forge(folder, "optimizer_0.json", b'{"state": {"0/fc0.weight": 5}, "param_groups": []}')


def _no_schedule(folder: Path) -> None:
    forge(folder, "lr_scheduler_0.json", b"[1, 2]")


def _no_streams(folder: Path) -> None:
    forge(folder, "rng.json", b"[5]")


def _no_scale(folder: Path) -> None:
    forge(folder, "scaler.json", b'{"scale": "x"}')


def _no_records(folder: Path) -> None:
    forge(folder, "records.json", b'{"x": 1}')


def _cut_weights(folder: Path) -> None:
    path = folder / "model_0.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


SPOILT = [_wrong_slot, _no_slots, _no_schedule, _no_streams, _no_scale, _no_records, _cut_weights]


@pytest.mark.clause("C-9", "C-10", "C-21")
@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__.strip("_"))
def test_nothing_of_what_is_refused_is_left(harness: Harness, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    folder = saved_with(harness, tmp_path / "saved", optimizer="adam", schedule="step")
    spoil(folder)
    goes_on_as_if_nothing_had_been(harness, tmp_path, folder)

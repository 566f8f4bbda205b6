"""W: several processes make one run: one schedule, one of every file, checkpoints for any number, one end."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from dowdyboy_conformance._problem import build
from dowdyboy_conformance._resuming import assert_equal, outcome
from dowdyboy_conformance._together import Together, start
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_conformance.scenarios import runs as scenarios

several = pytest.mark.parametrize("processes", [2, 3])


@pytest.mark.clause("W-10", "L-4", "L-5", "B-2")
@several
@pytest.mark.parametrize("schedule", ["step", "plateau"])
def test_schedules_and_the_best_are_those_of_one_process(together: Together, processes: int, schedule: str) -> None:
    [alone] = together(1, "schedules")
    rates = {"step": [0.05, 0.025, 0.0125, 0.00625], "plateau": [0.1, 0.05, 0.025, 0.025]}
    assert alone[schedule] == pytest.approx(rates[schedule])
    for seen in together(processes, "schedules"):
        assert seen[schedule] == alone[schedule]
    assert "best_epoch_4" in _checkpoints(together.of(processes) / "schedules" / schedule)


@pytest.mark.clause("W-10")
@several
def test_all_follow_the_value_of_the_first_process(together: Together, processes: int) -> None:
    for seen in together(processes, "own_values"):
        assert seen == pytest.approx([0.1] * 3), "its values get smaller"
    assert "best_epoch_3" in _checkpoints(together.of(processes) / "own_values")


@pytest.mark.clause("W-12", "G-1", "G-2", "G-3")
@several
def test_there_is_one_of_everything(harness: Harness, together: Together, processes: int) -> None:
    printed = together(processes, "files")
    assert "printed by 0" in printed[0]
    assert printed[1:] == [""] * (processes - 1)
    out_dir = together.of(processes) / "files"
    log = (out_dir / "default_run.log").read_text(encoding="utf-8")
    assert [log.count(text) for text in ("printed by", "epoch 1/2 begin", "epoch 2/2 begin")] == [1, 1, 1]
    lines = [json.loads(line) for line in (out_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = 2 * 6 // processes
    assert [(line["step"], line["values"]) for line in lines] == [(step, {"rank": 0.0}) for step in range(steps)]
    assert harness.read_curves(out_dir / "log") == {"rank": [(step, 0.0) for step in range(steps)]}
    assert _checkpoints(out_dir) == ["epoch_1", "epoch_2", "last_epoch_2"]


@pytest.mark.clause("W-13")
@several
def test_weights_that_differ_are_an_error_and_are_not_saved(together: Together, processes: int) -> None:
    for error in together(processes, "divergence"):
        assert error is not None, "nobody has noticed"
        assert error[0] == "SetupError"
        assert "fc1.bias" in error[1]
    assert _checkpoints(together.of(processes) / "divergence") == ["epoch_1", "last_epoch_1"]


@pytest.mark.clause("W-20", "W-5")
@several
def test_neither_batches_nor_names_need_exchanges_of_their_own(together: Together, processes: int) -> None:
    for few, more_batches, more_names in together(processes, "exchanges"):
        assert few == more_batches == more_names > 0


@pytest.mark.clause("W-14")
@pytest.mark.processes(2)
@pytest.mark.parametrize("every", [1, 2])
def test_a_branch_that_some_skip_is_an_error_without_it(harness: Harness, tmp_path: Path, every: int) -> None:
    with pytest.raises(Exception, match="SetupError") as caught:
        start(harness, 2, scenarios.skipped_branch, str(tmp_path), every)
    assert "fc1." in str(caught.value)
    assert "find_unused_parameters=True" in str(caught.value)
    assert not list((tmp_path / "checkpoint").glob("*_1"))


@pytest.mark.clause("W-18")
def test_an_error_in_one_process_ends_all(harness: Harness, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(Exception, match="ArithmeticError: raised on purpose") as caught:
        start(harness, 2, scenarios.failing, str(tmp_path))
    assert str(caught.value).startswith("Process 1 failed:\n\nTraceback (most recent call last):")
    assert time.monotonic() - began < 60  # of which 30 are for starting up on a busy machine


@pytest.mark.clause("W-16", "C-7", "G-4")
@several
@pytest.mark.parametrize("kind", scenarios.RESUMED)
def test_a_resumed_run_of_several_is_bitwise_the_uninterrupted_one(
    together: Together, processes: int, kind: str
) -> None:
    ranks = [seen[kind] for seen in together(processes, "resuming")]
    assert all(seen == ranks[0] for seen in ranks)
    whole, parts = (together.of(processes) / "resuming" / kind / name for name in ("whole", "parts"))
    assert ranks[0]["steps"] == 3 * -(-13 // processes)
    assert (parts / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    for path in sorted((whole / "checkpoint/last_epoch_3").iterdir()):
        assert (parts / "checkpoint/last_epoch_3" / path.name).read_bytes() == path.read_bytes(), path.name
    assert "resumed from" in (parts / "default_run.log").read_text(encoding="utf-8")


@pytest.mark.clause("W-19", "C-18", "C-19")
@several
def test_a_signal_to_one_process_stops_all_at_the_same_batch(together: Together, processes: int) -> None:
    ranks = together(processes, "stopping")
    batches = -(-7 // processes)
    assert ranks[0] == {"train": [143, 1, 2, None], "val": [143, 1, batches, 1]}
    assert all(seen == ranks[0] for seen in ranks)
    out_dir = together.of(processes) / "stopping"
    whole = outcome(out_dir / "whole")
    for name in ranks[0]:
        assert_equal(outcome(out_dir / name), whole)


@pytest.mark.clause("W-19", "C-18")
@pytest.mark.processes(2)
def test_spawn_ends_as_its_processes_were_stopped(harness: Harness, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        start(harness, 2, scenarios.signalled, str(tmp_path))
    assert caught.value.code == 143
    [last] = (tmp_path / "checkpoint").glob("last_epoch_*")
    assert last.name != "last_epoch_500"


@pytest.mark.clause("W-17", "C-4")
@several
def test_a_checkpoint_serves_more_processes(harness: Harness, together: Together, processes: int) -> None:
    ranks = together(processes, "elsewhere")
    [folder] = (together.of(processes - 1) / "elsewhere/own/checkpoint").glob("last_epoch_*")
    stored = _weights(harness, folder)
    for seen in ranks:
        assert seen["loaded"] == stored
        assert seen["ends"] == [ranks[0]["ends"][0]] * 2
    log = (together.of(processes) / "elsewhere/once/default_run.log").read_text(encoding="utf-8")
    assert f"saved by {processes - 1} processes and this run has {processes}" in log


@pytest.mark.clause("W-17")
@several
def test_a_checkpoint_serves_one_process(harness: Harness, together: Together, tmp_path: Path, processes: int) -> None:
    together(processes, "elsewhere")
    [folder] = (together.of(processes) / "elsewhere/own/checkpoint").glob("last_epoch_*")
    reader = build(harness, tmp_path / "reader")
    reader.trainer.load_checkpoint(folder, weights_only=True)
    assert {name: array.tolist() for name, array in reader.parameters().items()} == _weights(harness, folder)
    ends = [scenarios.go_on(harness, tmp_path / name, folder) for name in ("once", "again")]
    assert ends[0] == ends[1]
    log = (tmp_path / "once/default_run.log").read_text(encoding="utf-8")
    assert f"saved by {processes} processes and this run has 1" in log


@pytest.mark.clause("W-17", "C-11")
@several
def test_processes_go_on_from_one_checkpoint_or_not_at_all(together: Together, processes: int) -> None:
    for errors in together(processes, "own_disks"):
        assert [kind for kind, _ in errors] == ["CheckpointError"] * 2
        missing, other = (text for _, text in errors)
        assert "process 1 can't" in missing and "last_epoch_2" in missing
        assert "process 1 can't: it finds another checkpoint there." in other


def _checkpoints(out_dir: Path) -> list[str]:
    return sorted(path.name for path in (out_dir / "checkpoint").iterdir())


def _weights(harness: Harness, folder: Path) -> dict[str, Any]:
    """The stored weights by plain paths, in the common layout."""
    from safetensors.numpy import load_file

    return {name: harness.common(array).tolist() for name, array in load_file(folder / "model_0.safetensors").items()}

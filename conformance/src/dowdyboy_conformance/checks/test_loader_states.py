"""D: loaders that have a state of their own."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dowdyboy_conformance._data import Indexed, Stateful
from dowdyboy_conformance._problem import build, data
from dowdyboy_conformance._resuming import Killed
from dowdyboy_conformance._together import Together
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_conformance.scenarios.loader_states import CASES, SAMPLES, kills, seen_and_read
from dowdyboy_core import CheckpointError


@pytest.mark.clause("D-21", "C-7", "L-16")
@pytest.mark.parametrize(
    "settings", [{"epoch": 3}, {"epoch": 3, "steps_per_epoch": 5}], ids=["epochs", "periods of five steps"]
)
def test_a_loader_goes_on_from_its_own_state(harness: Harness, tmp_path: Path, settings: dict[str, Any]) -> None:
    whole, indices = seen_and_read(harness, tmp_path / "whole", None, **settings)
    assert len(indices) == len(whole)
    assert sorted(indices[:SAMPLES]) == list(range(SAMPLES)) != indices[:SAMPLES]
    for kill_at in (2, 6, 7, 8, len(whole) - 1):
        folder = tmp_path / str(kill_at)
        before, _ = seen_and_read(harness, folder, kill_at, **settings)
        after, again = seen_and_read(harness, folder, None, **settings)
        assert before + after == whole
        assert again == indices[kill_at:], "and no index is read again"


@pytest.mark.clause("D-21", "C-30")
def test_a_batch_that_opens_a_window_is_not_ahead_of_the_state(harness: Harness, tmp_path: Path) -> None:
    class Losses(Stateful):
        def __iter__(self) -> Any:
            return (features for features, *_ in super().__iter__())

    def fit(folder: Path, kill_at: int | None) -> tuple[list[int], list[int]]:
        read: list[int] = []
        settings: dict[str, Any] = {
            "accumulate_steps": 3,
            "save_steps": 3,
            "enable_save_checkpoint": True,
            "resume": "auto",
        }
        run = build(harness, folder, epoch=2, **settings)
        features, classes = data(SAMPLES)

        def sample(index: int) -> Any:
            read.append(index)
            return [(harness.tensor(features[index : index + 1]), harness.tensor(classes[index : index + 1]))]

        run.trainer.set_train_dataloader(Losses(Indexed(SAMPLES, sample)))

        def step(*given: Any) -> Any:
            if given[3] == kill_at:
                raise Killed
            return run.train_step(*given)

        try:
            run.trainer.fit(step)
        except Killed:
            assert kill_at is not None
        return [round(1e6 * loss) for loss in run.losses], read

    losses, indices = fit(tmp_path / "whole", None)
    for kill_at, saved in ((4, 3), (7, 7), (11, 10)):
        fit(tmp_path / str(kill_at), kill_at)
        after, again = fit(tmp_path / str(kill_at), None)
        assert after == losses[saved:]
        assert again == indices[saved:]


@pytest.mark.clause("D-21")
def test_a_state_that_cannot_be_stored_is_told_and_the_loader_run_on(harness: Harness, tmp_path: Path) -> None:
    def raises(state: dict[str, Any]) -> Any:
        raise ArithmeticError("raised on purpose")

    for name, spoil in (("object", lambda state: {**state, "object": object()}), ("raises", raises)):
        make = partial(Stateful, state=spoil)
        whole, _ = seen_and_read(harness, tmp_path / name / "whole", None, make=make, epoch=2)
        before, _ = seen_and_read(harness, tmp_path / name, 4, make=make, epoch=2)
        after, again = seen_and_read(harness, tmp_path / name, None, make=make, epoch=2)
        assert before + after == whole
        assert len(again) == len(after) + 4
        log = (tmp_path / name / "default_run.log").read_text(encoding="utf-8")
        assert log.count("The state of the train loader can't be stored: ") == 1
        assert not list((tmp_path / name).glob("checkpoint/*/loader.*"))


@pytest.mark.clause("D-21", "C-9")
def test_a_state_that_a_loader_refuses_is_an_error(harness: Harness, tmp_path: Path) -> None:
    class Refusing(Stateful):
        def load_state_dict(self, state: dict[str, Any]) -> None:
            raise KeyError("another data set")

    seen_and_read(harness, tmp_path, 3, epoch=1)
    with pytest.raises(CheckpointError, match=r"^Refusing\.load_state_dict doesn't take the state .* KeyError"):
        seen_and_read(harness, tmp_path, None, make=Refusing, epoch=1)


@pytest.mark.clause("D-21", "C-2")
def test_a_state_is_stored_within_the_data_alone(harness: Harness, tmp_path: Path) -> None:
    seen_and_read(harness, tmp_path, 10, epoch=2, save_interval=1, save_steps=10)
    [last] = (tmp_path / "checkpoint").glob("last_epoch_*")
    [stored] = json.loads((last / "loader.json").read_text(encoding="utf-8"))
    assert stored["number"] == 10 - SAMPLES
    assert stored["place"] == [1, 10]
    assert not (tmp_path / "checkpoint" / "epoch_1" / "loader.json").exists()


@pytest.mark.clause("D-21", "W-16", "W-28")
@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_each_process_goes_on_from_its_own_state(together: Together, processes: int, case: str) -> None:
    for rank, seen in enumerate(together(processes, "own_states")):
        found = seen[case]
        dealt, in_passes = "dealt" in case, "passes" in case
        for kill_at, (same, steps, read) in zip(kills(found["length"]), found["parts"], strict=True):
            assert same, f"process {rank}, killed at {kill_at}"
            # Of data that is not dealt out each process reads all, and a last round is filled up from the start.
            most = steps * (1 if dealt else processes) + (0 if in_passes or dealt else 3 * (processes - 1))
            assert read <= most, f"process {rank}, killed at {kill_at}: something is read again"

"""C: a checkpoint says what its tensors are, and a run goes on with one of another framework, and comes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from dowdyboy_conformance._checkpoints import forge
from dowdyboy_conformance._crossing import (
    KINDS,
    WAYS,
    assert_alike,
    assert_close,
    begin,
    elsewhere,
    pair,
    said_in,
    statistics,
)
from dowdyboy_conformance._problem import CLASSES, FEATURES, Run, layers
from dowdyboy_conformance._resuming import read_index
from dowdyboy_conformance.harnesses.harness import Harness


@pytest.mark.clause("C-40")
def test_a_checkpoint_says_what_its_tensors_are(harness: Harness, tmp_path: Path) -> None:
    run = begin(harness, tmp_path, 1, "step", optimizer="adam", initial=layers(FEATURES, 5, CLASSES)).fit()
    folder = tmp_path / "checkpoint" / "epoch_1"
    said, stored = said_in(folder), load_file(folder / "model_0.safetensors")
    [model] = said["models"]
    kinds = {layer["path"]: layer["kind"] for layer in model["layers"]}
    assert kinds == {"fc0": "linear", "norm0": "batch_norm", "fc1": "linear"}
    parameters = {name: array for name, array in harness.parameters(run.model).items() if "norm" not in name}
    places = {f"{layer['path']}.{role}": place for layer in model["layers"] for role, place in layer["roles"].items()}
    for name, wanted in parameters.items():
        place = places[name]
        array = stored[place["array"]]
        assert list(array.shape) == place["stored"]
        np.testing.assert_array_equal(array.transpose(place.get("axes", range(array.ndim))), wanted, err_msg=name)
    running = stored[places["norm0.running_var"]["array"]]
    np.testing.assert_array_equal(running, harness.state(run.model)[harness.running_variance])
    assert {place["array"] for place in places.values()} == stored.keys(), "each tensor is said what it is"
    [optimizer] = said["optimizers"]
    assert (optimizer["kind"], optimizer["made"], optimizer["rates"]) == ("adam", 5, [0.025])
    assert set(optimizer["steps"].values()) == {5}
    meanings = {slot["meaning"] for slot in optimizer["slots"]}
    assert meanings == {"step", "first_moment", "second_moment"}
    [schedule] = said["schedules"]
    assert (schedule["kind"], schedule["position"], schedule["rate"]) == ("step", 1, 0.025)


@pytest.mark.clause("C-41")
@pytest.mark.parametrize(
    ("optimizer", "schedule", "way"), [(*kind, WAYS[number % 2]) for number, kind in enumerate(KINDS)]
)
def test_a_run_goes_on_in_another_framework(
    harness: Harness, tmp_path: Path, optimizer: str, schedule: str | None, way: str
) -> None:
    origin, target = pair(harness, way)
    whole = begin(origin, tmp_path / "whole", 4, schedule, optimizer=optimizer).fit()
    first = begin(origin, tmp_path / "first", 2, schedule, optimizer=optimizer).fit()
    resume = tmp_path / "first" / "checkpoint" / "epoch_2"
    second = elsewhere(target, tmp_path / "second", 4, schedule, optimizer=optimizer, resume=resume).fit()
    assert len(second.losses) == 10, "two epochs were over"
    assert_close(first.losses + second.losses, whole.losses, 2e-5)
    assert_alike(target, second.model, origin, whole.model, 5e-5)
    rates = target.learning_rate(second.optimizer), origin.learning_rate(whole.optimizer)
    assert rates[0] == pytest.approx(rates[1], rel=1e-12)
    if optimizer in ("sgd", "momentum"):  # with the others fc0.bias moves by its rounding, and the mean with it
        assert_close(statistics(target, second.model)[0], statistics(origin, whole.model)[0], 5e-5)
    best, wanted_best = second.trainer.best, whole.trainer.best
    assert best is not None and wanted_best is not None
    (value, epoch), (wanted, wanted_epoch) = best, wanted_best
    assert epoch == wanted_epoch and value == pytest.approx(wanted, abs=2e-5)
    index, expected = (read_index(tmp_path / name / "checkpoint" / "epoch_4") for name in ("second", "whole"))
    assert [index[name] for name in ("epoch", "train_step", "val_step", "backend")] == [
        4, 20, expected["val_step"], target.name
    ]  # fmt: skip
    said, wanted_said = (said_in(tmp_path / name / "checkpoint" / "epoch_4") for name in ("second", "whole"))
    assert said["optimizers"][0]["made"] == wanted_said["optimizers"][0]["made"] == 20
    assert set(said["optimizers"][0]["steps"].values()) <= {20}
    if schedule is not None:
        assert said["schedules"][0]["position"] == wanted_said["schedules"][0]["position"] == 4


@pytest.mark.clause("C-41")
@pytest.mark.parametrize("way", WAYS)
def test_a_run_goes_on_elsewhere_within_an_epoch(harness: Harness, tmp_path: Path, way: str) -> None:
    origin, target = pair(harness, way)

    def train(run: Run) -> dict[int, Any]:
        """Trains, with a checkpoint after the eighth step; gives the records of each epoch."""
        seen: dict[int, Any] = {}

        def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
            if global_step == 7:
                trainer.save_checkpoint("mid")
            return run.train_step(trainer, bat, bat_idx, global_step)

        def end(trainer: Any, ep: int) -> None:
            seen[ep] = [float(run.harness.numpy(value)) for value in trainer.get_records()["train_loss"]]

        run.trainer.fit(step, None, end)
        return seen

    settings: dict[str, Any] = {"optimizer": "adam", "ema_decay": 0.9, "accumulate_steps": 2, "samples": 24}
    whole = begin(origin, tmp_path / "whole", 2, **settings)
    expected = train(whole)
    [resume] = (tmp_path / "whole" / "checkpoint").glob("chk_mid_step_*")
    index = read_index(resume)
    assert (index["epoch"], index["batch"]) == (1, 2), "it is within the second epoch"
    second = elsewhere(target, tmp_path / "second", 2, resume=resume, **settings)
    found = train(second)
    assert [*found] == [2]
    assert_close(found[2], expected[2], 2e-5, "records of before the crossing are among them")
    assert_alike(target, second.model, origin, whole.model, 5e-5)
    [average], [wanted] = second.trainer.get_ema_models(), whole.trainer.get_ema_models()
    assert_alike(target, average, origin, wanted, 5e-5)


@pytest.mark.clause("C-41")
@pytest.mark.parametrize("way", WAYS)
def test_the_weights_of_all_models_and_components_cross(harness: Harness, tmp_path: Path, way: str) -> None:
    origin, target = pair(harness, way)

    def start(of: Harness, seed: int) -> tuple[Run, list[Any]]:
        run = begin(of, tmp_path / of.name, 1, optimizer="adam", initial=layers(4, 4, 3, seed=seed))
        second, third = (of.model(layers(4, 4, 3, seed=seed + more), batch_norm=True) for more in (1, 2))
        run.trainer.set_models([run.model, second])
        run.trainer.set_optimizers([run.optimizer, of.optimizer("momentum", [second], 0.01).optimizer])
        of.freeze(third)
        run.trainer.set_component(third)
        return run, [run.model, second, third]

    first, given = start(origin, 1)
    origin.freeze(given[1].fc0)

    def step(trainer: Any, bat: Any, *_: Any) -> Any:
        first.trainer.set_records({"train_loss": 1.0})
        given[2](bat[0])
        return first.loss(given[0](bat[0]), bat[1]) + first.loss(given[1](bat[0]), bat[1])

    first.trainer.fit(step)
    for weights_only in (False, True):
        run, taken = start(target, 9)
        run.trainer.load_checkpoint(tmp_path / origin.name / "checkpoint" / "epoch_1", weights_only=weights_only)
        for mine, theirs in zip(taken, given, strict=True):
            assert_alike(target, mine, origin, theirs)
            np.testing.assert_array_equal(statistics(target, mine), statistics(origin, theirs))
        trained = {name for name, item in target.native_parameters(taken[1]) if _is_trained(run, item)}
        assert ("fc0.weight" in trained) is weights_only, "what isn't trained crosses with a run"
        assert "fc1.weight" in trained


def _is_trained(run: Run, parameter: Any) -> bool:
    return bool(run.trainer._backend.wants_gradient(parameter))


@pytest.mark.clause("C-41")
@pytest.mark.parametrize("way", WAYS)
def test_streams_begin_anew_from_the_seed_and_that_is_told(harness: Harness, tmp_path: Path, way: str) -> None:
    origin, target = pair(harness, way)
    begin(origin, tmp_path / "first", 1, dropout=0.3).fit()
    draws: list[list[float]] = []
    for name in ("one", "two"):
        resume = tmp_path / "first" / "checkpoint" / "epoch_1"
        run = begin(target, tmp_path / name, 2, dropout=0.3, resume=resume)
        for _ in range(len(draws)):
            target.draw()  # which changes nothing of what the run draws
        draws.append(run.fit().losses)
        log = (tmp_path / name / "default_run.log").read_text()
        assert log.count(f"crossed from {origin.name} to {target.name}: random streams begin anew from the seed") == 1
    assert draws[0] == draws[1]


def _passed_on(harness: Harness, out_dir: Path, folder: Path, schedule: str | None, **settings: Any) -> Path:
    """The checkpoint that one framework makes of another's, without a step."""
    run = elsewhere(harness, out_dir, 4, schedule, **settings)
    run.trainer.load_checkpoint(folder)
    run.trainer.save_checkpoint("passed")
    [found] = (out_dir / "checkpoint").glob("chk_passed_step_*")
    return found


@pytest.mark.clause("C-43")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("optimizer", "schedule"), KINDS)
def test_there_and_back_again_every_file_is_equal_to_the_byte(
    harness: Harness, tmp_path: Path, optimizer: str, schedule: str | None, way: str
) -> None:
    origin, target = pair(harness, way)
    settings: dict[str, Any] = {"optimizer": optimizer, "ema_decay": 0.9}
    begin(origin, tmp_path / "first", 2, schedule, **settings).fit()
    folder = tmp_path / "first" / "checkpoint" / "epoch_2"
    there = _passed_on(target, tmp_path / "there", folder, schedule, **settings)
    back = _passed_on(origin, tmp_path / "back", there, schedule, **settings)
    before, after = (
        {path.name: path.read_bytes() for path in at.iterdir() if not path.name.startswith(("rng", "checkpoint"))}
        for at in (folder, back)
    )
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] != after[name]] == []
    assert "exchange.json" in before and "model_0.safetensors" in before
    own = ("files", "sha256", "run", "metrics_bytes")
    now, then = ({name: value for name, value in read_index(at).items() if name not in own} for at in (back, folder))
    assert now == then


@pytest.mark.clause("C-38")
@pytest.mark.parametrize("way", WAYS)
def test_what_can_not_agree_is_said_once(harness: Harness, tmp_path: Path, way: str) -> None:
    origin, target = pair(harness, way)
    begin(origin, tmp_path / "first", 1, optimizer="momentum", batch_norm=False).fit()
    folder = tmp_path / "first" / "checkpoint" / "epoch_1"

    def told(out_dir: Path) -> str:
        begin(target, out_dir, 2, optimizer="momentum", batch_norm=False, resume=folder).fit()
        [line] = [part for part in (out_dir / "default_run.log").read_text().split("\n20") if "crossed from" in part]
        return line

    assert "momentum" not in told(tmp_path / "equal")
    said = said_in(folder)
    said["optimizers"][0]["settings"]["momentum"] = 0.8
    forge(folder, "exchange.json", json.dumps(said).encode())
    assert "optimizer 0: momentum is 0.8 in the checkpoint and 0.9 here, which is in force" in told(tmp_path / "other")

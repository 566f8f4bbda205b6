"""C: a checkpoint says what its tensors are, and one of another framework is taken up.

The other framework is the reference, and that of the reference one that keeps everything otherwise.
"""

from __future__ import annotations

import importlib
import json
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from dowdyboy_conformance._checkpoints import forge, refuse
from dowdyboy_conformance._problem import CLASSES, FEATURES, HIDDEN, Run, build, layers
from dowdyboy_conformance._resuming import read_index
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_conformance.harnesses.numpy import NumpyHarness
from dowdyboy_conformance.harnesses.turned import TurnedHarness
from dowdyboy_core import ConfigError

WAYS = ("there", "back")
KINDS = [("sgd", None), ("momentum", "cosine"), ("adam", "step"), ("adamw", "plateau")]


def _pair(harness: Harness, way: str) -> tuple[Harness, Harness]:
    """The framework that gives and the one that takes up."""
    other = TurnedHarness() if isinstance(harness, NumpyHarness) else NumpyHarness()
    return (harness, other) if way == "there" else (other, harness)


def _start(harness: Harness, out_dir: Path, epoch: int, schedule: str | None = None, **changed: Any) -> Run:
    settings: dict[str, Any] = {
        "samples": 20,
        "shuffle": True,
        "batch_norm": True,
        "lr": 0.05,
        "enable_save_checkpoint": True,
        "save_best": True,
        "save_best_rec": "train_loss",
        "save_interval": 1,
        **changed,
    }
    if schedule == "plateau":  # which a loss that falls lets fall at each epoch
        settings |= {"mode": "max", "save_best_type": "max"}
    return build(harness, out_dir, epoch=epoch, schedule=schedule, **settings)


def _elsewhere(harness: Harness, out_dir: Path, epoch: int, schedule: str | None = None, **changed: Any) -> Run:
    """The same with other weights, which are to be replaced."""
    return _start(
        harness, out_dir, epoch, schedule, **{"initial": layers(FEATURES, HIDDEN, CLASSES, seed=9), **changed}
    )


def _statistics(harness: Harness, model: Any) -> NDArray[Any]:
    mean = harness.running_variance.replace("variance", "mean").replace("running_var", "running_mean")
    return np.stack([harness.state(model)[name] for name in (mean, harness.running_variance)])


def _said(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "exchange.json").read_text())
    return found


def _assert_close(found: Any, expected: Any, tolerance: float, what: str = "") -> None:
    assert np.shape(found) == np.shape(expected), what
    assert np.abs(np.subtract(found, expected)).max() <= tolerance, what


def _assert_alike(one: Harness, model: Any, other: Harness, other_model: Any, tolerance: float = 0.0) -> None:
    found, expected = one.parameters(model), other.parameters(other_model)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        if not tolerance or name != "fc0.bias":  # without influence before BatchNorm: its gradient is rounding
            _assert_close(found[name], array, tolerance, name)


@pytest.mark.clause("C-40")
def test_a_checkpoint_says_what_its_tensors_are(harness: Harness, tmp_path: Path) -> None:
    run = _start(harness, tmp_path, 1, "step", optimizer="adam", initial=layers(FEATURES, 5, CLASSES)).fit()
    folder = tmp_path / "checkpoint" / "epoch_1"
    said, stored = _said(folder), load_file(folder / "model_0.safetensors")
    [model] = said["models"]
    kinds = {layer["path"]: layer["kind"] for layer in model["layers"]}
    assert kinds == {"fc0": "linear", "norm0": "batch_norm", "fc1": "linear"}
    parameters = {name: array for name, array in harness.parameters(run.model).items() if "norm" not in name}
    places = {
        f"{layer['path']}.{role}": place
        for layer in model["layers"]
        for role, place in layer["roles"].items()
    }
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
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("optimizer", "schedule"), KINDS)
def test_a_run_goes_on_in_another_framework(
    harness: Harness, tmp_path: Path, optimizer: str, schedule: str | None, way: str
) -> None:
    origin, target = _pair(harness, way)
    whole = _start(origin, tmp_path / "whole", 4, schedule, optimizer=optimizer).fit()
    first = _start(origin, tmp_path / "first", 2, schedule, optimizer=optimizer).fit()
    resume = tmp_path / "first" / "checkpoint" / "epoch_2"
    second = _elsewhere(target, tmp_path / "second", 4, schedule, optimizer=optimizer, resume=resume).fit()
    assert len(second.losses) == 10, "two epochs were over"
    _assert_close(first.losses + second.losses, whole.losses, 2e-5)
    _assert_alike(target, second.model, origin, whole.model, 5e-5)
    rates = target.learning_rate(second.optimizer), origin.learning_rate(whole.optimizer)
    assert rates[0] == pytest.approx(rates[1], rel=1e-12)
    if optimizer in ("sgd", "momentum"):  # with the others fc0.bias moves by its rounding, and the mean with it
        _assert_close(_statistics(target, second.model)[0], _statistics(origin, whole.model)[0], 5e-5)
    (value, epoch), (wanted, wanted_epoch) = second.trainer.best, whole.trainer.best
    assert epoch == wanted_epoch and value == pytest.approx(wanted, abs=2e-5)
    index, expected = (
        read_index(tmp_path / name / "checkpoint" / "epoch_4") for name in ("second", "whole")
    )
    assert [index[name] for name in ("epoch", "train_step", "val_step", "backend")] == [
        4, 20, expected["val_step"], target.name
    ]  # fmt: skip
    said, wanted_said = (_said(tmp_path / name / "checkpoint" / "epoch_4") for name in ("second", "whole"))
    assert said["optimizers"][0]["made"] == wanted_said["optimizers"][0]["made"] == 20
    if optimizer != "sgd":  # which some keep nothing of
        assert set(said["optimizers"][0]["steps"].values()) == {20}
    if schedule is not None:
        assert said["schedules"][0]["position"] == wanted_said["schedules"][0]["position"] == 4


@pytest.mark.clause("C-41")
@pytest.mark.parametrize("way", WAYS)
def test_a_run_goes_on_elsewhere_within_an_epoch(harness: Harness, tmp_path: Path, way: str) -> None:
    origin, target = _pair(harness, way)

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
    whole = _start(origin, tmp_path / "whole", 2, **settings)
    expected = train(whole)
    [resume] = (tmp_path / "whole" / "checkpoint").glob("chk_mid_step_*")
    index = read_index(resume)
    assert (index["epoch"], index["batch"]) == (1, 2), "it is within the second epoch"
    second = _elsewhere(target, tmp_path / "second", 2, resume=resume, **settings)
    found = train(second)
    assert [*found] == [2]
    _assert_close(found[2], expected[2], 2e-5, "records of before the crossing are among them")
    _assert_alike(target, second.model, origin, whole.model, 5e-5)
    [average], [wanted] = second.trainer.get_ema_models(), whole.trainer.get_ema_models()
    _assert_alike(target, average, origin, wanted, 5e-5)


@pytest.mark.clause("C-41")
@pytest.mark.parametrize("way", WAYS)
def test_the_weights_of_all_models_and_components_cross(harness: Harness, tmp_path: Path, way: str) -> None:
    origin, target = _pair(harness, way)

    def start(of: Harness, seed: int) -> tuple[Run, list[Any]]:
        run = _start(of, tmp_path / of.name, 1, optimizer="adam", initial=layers(4, 4, 3, seed=seed))
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
    for options in ({}, {"weights_only": True}):
        run, taken = start(target, 9)
        run.trainer.load_checkpoint(tmp_path / origin.name / "checkpoint" / "epoch_1", **options)
        for mine, theirs in zip(taken, given, strict=True):
            _assert_alike(target, mine, origin, theirs)
            np.testing.assert_array_equal(_statistics(target, mine), _statistics(origin, theirs))
        trained = {name for name, item in target.native_parameters(taken[1]) if _is_trained(run, item)}
        assert ("fc0.weight" in trained) is bool(options), "what isn't trained crosses with a run"
        assert "fc1.weight" in trained


def _is_trained(run: Run, parameter: Any) -> bool:
    return bool(run.trainer._backend.wants_gradient(parameter))


@pytest.mark.clause("C-41")
@pytest.mark.parametrize("way", WAYS)
def test_streams_begin_anew_from_the_seed_and_that_is_told(harness: Harness, tmp_path: Path, way: str) -> None:
    origin, target = _pair(harness, way)
    _start(origin, tmp_path / "first", 1, dropout=0.3).fit()
    draws = []
    for name in ("one", "two"):
        resume = tmp_path / "first" / "checkpoint" / "epoch_1"
        run = _start(target, tmp_path / name, 2, dropout=0.3, resume=resume)
        for _ in range(len(draws)):
            target.draw()  # which changes nothing of what the run draws
        draws.append(run.fit().losses)
        log = (tmp_path / name / "default_run.log").read_text()
        assert log.count(f"crossed from {origin.name} to {target.name}: random streams begin anew from the seed") == 1
    assert draws[0] == draws[1]


@pytest.mark.clause("C-42")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", ["names", "resume_names", "function"])
def test_names_say_which_layer_is_which(harness: Harness, tmp_path: Path, how: str, way: str) -> None:
    origin, target = _pair(harness, way)
    names: Any = {"fc0.": "fc1.", "fc1.": "fc0."}
    if how == "function":
        swap = {"fc0": "fc1", "fc1": "fc0"}
        names = swap.__getitem__

    def start(of: Harness, folder: str, epoch: int, initial: Any, **changed: Any) -> Run:
        run = _start(of, tmp_path / folder, epoch, batch_norm=False, **changed)
        run.model = of.branched_model(initial)
        run.trainer.set_model(run.model)
        run.trainer.set_optimizer(of.optimizer("momentum", [run.model], 0.05).optimizer)
        return run

    def fit(run: Run) -> list[float]:
        def step(trainer: Any, bat: Any, *_: Any) -> Any:
            loss = run.loss(trainer.get_models()[0](bat[0], True), bat[1])
            trainer.set_records({"train_loss": loss})
            run.losses.append(float(run.harness.numpy(loss)))
            return loss

        run.trainer.fit(step)
        return run.losses

    parts = [*layers(FEATURES, CLASSES), *layers(FEATURES, CLASSES, seed=2)]
    whole, first = start(origin, "whole", 4, parts), start(origin, "first", 2, parts)
    expected = fit(whole)
    fit(first)
    folder = tmp_path / "first" / "checkpoint" / "epoch_2"
    other = [*layers(FEATURES, CLASSES, seed=3), *layers(FEATURES, CLASSES, seed=4)]
    if how == "names":
        second = start(target, "second", 4, other)
        second.trainer.load_checkpoint(folder, names=names)
    else:
        second = start(target, "second", 4, other, resume=folder, resume_names=names)
    _assert_close(fit(second), expected[10:], 2e-5)
    found, wanted = target.parameters(second.model), origin.parameters(whole.model)
    for name, array in wanted.items():
        swapped = name.replace("fc0", "fcx").replace("fc1", "fc0").replace("fcx", "fc1")
        _assert_close(found[swapped], array, 5e-5, name)


@pytest.mark.clause("C-42")
def test_names_rename_in_a_framework_of_its_own_and_lose_nothing(harness: Harness, tmp_path: Path) -> None:
    def start(folder: str, epoch: int, seed: int, **changed: Any) -> Run:
        initial = layers(4, 4, 4, seed=seed)
        return _start(harness, tmp_path / folder, epoch, initial=initial, batch_norm=False, dropout=0.3, **changed)

    whole, first = start("whole", 4, 1, optimizer="adam").fit(), start("first", 2, 1, optimizer="adam").fit()
    second = start("second", 4, 9, optimizer="adam")
    second.trainer.load_checkpoint(tmp_path / "first" / "checkpoint" / "epoch_2", names={"fc0": "fc0"})
    assert first.losses + second.fit().losses == whole.losses, "with the random streams of the checkpoint"
    assert "crossed" not in (tmp_path / "second" / "default_run.log").read_text()


@pytest.mark.clause("C-42", "F-1")
@pytest.mark.parametrize("names", [5, "fc0", ["fc0"], {"fc0": 1}, {1: "fc0"}])
def test_names_of_another_kind_are_refused(harness: Harness, tmp_path: Path, names: Any) -> None:
    run = _start(harness, tmp_path, 1).fit()
    for call in (
        lambda: run.trainer.load_checkpoint(tmp_path / "checkpoint" / "epoch_1", names=names),
        lambda: _start(harness, tmp_path, 1, resume_names=names),
    ):
        with pytest.raises(ConfigError, match=r"names=.* says not how paths are called here"):
            call()


@pytest.mark.clause("C-42")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("weights_only", [False, True])
def test_what_has_no_pair_is_listed_and_nothing_is_loaded(
    harness: Harness, tmp_path: Path, way: str, weights_only: bool
) -> None:
    origin, target = _pair(harness, way)
    _start(origin, tmp_path / "first", 1, optimizer="adam").fit()
    folder = tmp_path / "first" / "checkpoint" / "epoch_1"
    run = _start(
        target, tmp_path / "second", 1, batch_norm=False, optimizer="adam", initial=layers(4, 4, 4, 3, seed=9)
    )
    before = run.parameters()
    text = refuse(run.trainer, folder, weights_only=weights_only)
    head, *lines = text.split("\n  ")
    assert "nothing was loaded" in head and 'names={"old.": "new."}' in head and "register_exchange" in head
    assert [line.partition(")")[0].partition(", as")[0] + ")" * ("(" in line) for line in lines] == [
        "model_0: fc1: bias (linear)",
        "model_0: fc1: weight (linear)",
        "model_0: fc2: bias (linear)",
        "model_0: fc2: weight (linear)",
        "model_0: norm0: bias (batch_norm)",
        "model_0: norm0: running_mean (batch_norm)",
        "model_0: norm0: running_var (batch_norm)",
        "model_0: norm0: weight (batch_norm)",
    ]
    assert lines[1].endswith("has shape (3, 4) there and (4, 4) here")
    assert "is here only" in lines[2] and "is there only" in lines[4]
    for name, array in before.items():
        np.testing.assert_array_equal(run.parameters()[name], array, err_msg=name)
    renamed = refuse(run.trainer, folder, weights_only=weights_only, names={"fc0": "fc1"})
    assert "'fc0' and 'fc1' are both called 'fc1' by the names that were given" in renamed


@pytest.mark.clause("C-42")
@pytest.mark.parametrize("way", WAYS)
def test_a_class_of_the_users_own_crosses_when_it_is_registered(harness: Harness, tmp_path: Path, way: str) -> None:
    origin, target = _pair(harness, way)
    made = {}
    for of in (origin, target):
        run = _start(of, tmp_path / of.name, 1, optimizer="adam", initial=layers(4, 4, 3, seed=len(made)))
        own = type("Gate", (type(run.model.fc0),), {})
        run.model.fc0.__class__ = own
        made[of.name] = run, own
    run, own = made[origin.name]
    register = {of.name: importlib.import_module(of.module).register_exchange for of in (origin, target)}

    def tensors(of: Harness) -> dict[str, Any]:
        return {"weight": ("kernel", (1, 0)) if of.linear_is_transposed else "kernel", "bias": "offset"}

    register[origin.name](own, "gate", tensors(origin))
    run.fit()
    folder = tmp_path / origin.name / "checkpoint" / "epoch_1"
    other, other_own = made[target.name]
    text = refuse(other.trainer, folder)
    assert "model_0: 'fc0' is a gate (Gate) there and a linear (Gate) here" in text
    register[target.name](other_own, "gate", tensors(target))
    other.trainer.load_checkpoint(folder)
    _assert_alike(target, other.model, origin, run.model)


@pytest.mark.clause("C-42")
@pytest.mark.parametrize(
    ("cls", "kind", "tensors"),
    [(5, "gate", {"weight": "kernel"}), (dict, "gate", {"weight": "kernel"}), (None, "", {"weight": "kernel"}),
     (None, "gate", {}), (None, "gate", {"weight": 5}), (None, "gate", {"weight": ("kernel", (0, 2))})],
)  # fmt: skip
def test_a_rule_of_another_kind_is_refused(harness: Harness, cls: Any, kind: str, tensors: Any) -> None:
    given = type(harness.model(layers(2, 2)).fc0) if cls is None else cls
    own = type("Gate", (given,), {}) if cls is None else cls
    with pytest.raises(ConfigError, match="register_exchange got"):
        importlib.import_module(harness.module).register_exchange(own, kind, tensors)


@pytest.mark.clause("C-42")
@pytest.mark.parametrize("way", WAYS)
def test_a_class_without_a_rule_is_refused_by_name(harness: Harness, tmp_path: Path, way: str) -> None:
    origin, target = _pair(harness, way)
    _start(origin, tmp_path / "first", 1).fit()
    run = _start(target, tmp_path / "second", 1)
    cls = type(run.model.fc0)
    run.model.fc0.__class__ = type("Odd", (cls.__mro__[-2],), {"__module__": cls.__module__})
    text = refuse(run.trainer, tmp_path / "first" / "checkpoint" / "epoch_1")
    for name in ("weight", "bias"):
        assert f"model_0: 'fc0.{name}' is a {cls.__module__}.Odd here, of which no rule is known" in text


@pytest.mark.clause("C-41", "C-42")
@pytest.mark.parametrize("way", WAYS)
def test_another_kind_of_optimizer_or_schedule_is_refused(harness: Harness, tmp_path: Path, way: str) -> None:
    origin, target = _pair(harness, way)
    _start(origin, tmp_path / "first", 1, "step", optimizer="adam").fit()
    folder = tmp_path / "first" / "checkpoint" / "epoch_1"
    for optimizer, schedule, expected in (
        ("momentum", "step", r"Optimizer 0 is a \w+ \(adam\) in the checkpoint and a \w+ \(momentum\) here\."),
        ("adam", "plateau", r"Scheduler 0 is a \w+ \(step\) in the checkpoint and a \w+ \(plateau\) here\."),
        ("adam", None, r"Optimizer 0 has a scheduler in the checkpoint and none in this run\."),
    ):
        run = _elsewhere(target, tmp_path / "second", 1, schedule, optimizer=optimizer)
        before = run.parameters()
        assert re.search(expected, refuse(run.trainer, folder))
        for name, array in before.items():
            np.testing.assert_array_equal(run.parameters()[name], array, err_msg=name)


def _passed_on(harness: Harness, out_dir: Path, folder: Path, schedule: str | None, **settings: Any) -> Path:
    """The checkpoint that one framework makes of another's, without a step."""
    run = _elsewhere(harness, out_dir, 4, schedule, **settings)
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
    origin, target = _pair(harness, way)
    settings: dict[str, Any] = {"optimizer": optimizer, "ema_decay": 0.9}
    _start(origin, tmp_path / "first", 2, schedule, **settings).fit()
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
    now, then = (
        {name: value for name, value in read_index(at).items() if name not in ("files", "sha256", "run", "metrics_bytes")}
        for at in (back, folder)
    )
    assert now == then


@pytest.mark.clause("C-44")
@pytest.mark.parametrize("way", WAYS)
def test_what_can_not_agree_is_said_once(harness: Harness, tmp_path: Path, way: str) -> None:
    origin, target = _pair(harness, way)
    _start(origin, tmp_path / "first", 1, optimizer="momentum", batch_norm=False).fit()
    folder = tmp_path / "first" / "checkpoint" / "epoch_1"

    def told(out_dir: Path) -> str:
        _start(target, out_dir, 2, optimizer="momentum", batch_norm=False, resume=folder).fit()
        [line] = [part for part in (out_dir / "default_run.log").read_text().split("\n20") if "crossed from" in part]
        return line

    assert "momentum" not in told(tmp_path / "equal")
    said = _said(folder)
    said["optimizers"][0]["settings"]["momentum"] = 0.8
    forge(folder, "exchange.json", json.dumps(said).encode())
    assert "optimizer 0: momentum is 0.8 in the checkpoint and 0.9 here, which is in force" in told(tmp_path / "other")


Spoil = Callable[[dict[str, Any]], Any]


def _first(said: dict[str, Any]) -> Any:
    return said["models"][0]["layers"][0]


def _weight(said: dict[str, Any]) -> Any:
    return _first(said)["roles"]["weight"]


SPOILS: dict[str, Spoil] = {
    "no models": lambda said: said.pop("models"),
    "models of no kind": lambda said: said.update(models=5),
    "layers of no kind": lambda said: said["models"][0].update(layers={}),
    "layer of no kind": lambda said: said["models"][0]["layers"].append(5),
    "path of no text": lambda said: _first(said).update(path=5),
    "kind of no text": lambda said: _first(said).update(kind=[]),
    "no roles": lambda said: _first(said).pop("roles"),
    "array of no text": lambda said: _weight(said).update(array=None),
    "shape of no numbers": lambda said: _weight(said).update(stored=["4", 4]),
    "negative shape": lambda said: _weight(said).update(stored=[-4, 4]),
    "axes of another rank": lambda said: _weight(said).update(axes=[0, 1, 2]),
    "axes twice": lambda said: _weight(said).update(axes=[0, 0]),
    "rows beyond the end": lambda said: _weight(said).update(rows=[0, 2**40]),
    "rows backwards": lambda said: _weight(said).update(rows=[3, 1]),
    "tied to no text": lambda said: said["models"][0].update(tied={"fc0.weight": 5}),
    "components of no kind": lambda said: said.update(components=[]),
    "optimizer of no kind": lambda said: said.update(optimizers=[None]),
    "steps of no kind": lambda said: said["optimizers"][0].update(steps={"0/fc0.weight": 1.5}),
    "negative steps": lambda said: said["optimizers"][0].update(steps={"0/fc0.weight": -1}),
    "more steps than any": lambda said: said["optimizers"][0].update(steps={"0/fc0.weight": 7**400}),
    "made of no kind": lambda said: said["optimizers"][0].update(made=True),
    "made more than any": lambda said: said["optimizers"][0].update(made=2**60),
    "slots of no kind": lambda said: said["optimizers"][0].update(slots=[5]),
    "slot of no form": lambda said: said["optimizers"][0]["slots"][0].pop("form"),
    "settings of no kind": lambda said: said["optimizers"][0].update(settings=[]),
    "rates of no kind": lambda said: said["optimizers"][0].update(rates=["0.1"]),
    "rates that are none": lambda said: said["optimizers"][0].update(rates=[{"$float": "nan"}]),
    "position of no kind": lambda said: said["schedules"][0].update(position="1"),
    "position of none": lambda said: said["schedules"][0].update(position=7**400),
    "rate of no kind": lambda said: said["schedules"][0].update(rate="0.1"),
    "follows nothing": lambda said: said["schedules"][0].update(follows={}),
    "follows a text": lambda said: said["schedules"][0].update(follows={"best": "x", "bad": 0, "cooldown": 0}),
    "cycle of no kind": lambda said: said["schedules"][0].update(cycle=["a", "b"]),
    "parts of no kind": lambda said: said["schedules"][0].update(parts=5),
}
"""What is refused by every backend, that which wrote it included."""

FOREIGN: dict[str, Spoil] = {
    "huge shape": lambda said: _weight(said).update(stored=[2**40, 2**40]),
    "huge rows": lambda said: _weight(said).update(stored=[2**40, 4], rows=[0, 2**39]),
    "another shape": lambda said: _weight(said).update(stored=[2, 8]),
    "an array that is not there": lambda said: _weight(said).update(array="fc7.weight"),
    "a layer left out": lambda said: said["models"][0]["layers"].pop(0),
    "a layer twice": lambda said: said["models"][0]["layers"].append(_first(said)),
    "a role left out": lambda said: _first(said)["roles"].pop("weight"),
    "a tensor of two layers": lambda said: _weight(said).update(array="fc0.bias"),
    "a tensor that nothing is said of": lambda said: said["models"][0]["layers"][1]["roles"].popitem(),
    "no model": lambda said: said.update(models=[]),
    "no optimizer": lambda said: said.update(optimizers=[]),
    "no schedule": lambda said: said.update(schedules=[]),
    "a slot that is not there": lambda said: said["optimizers"][0]["slots"][-1].update(name="x"),
    "a slot of another meaning": lambda said: said["optimizers"][0]["slots"][-1].update(meaning="x"),
    "rates too many": lambda said: said["optimizers"][0].update(rates=[0.1, 0.1]),
    "another kind of schedule": lambda said: said["schedules"][0].update(kind="warmup"),
    "no description": lambda said: said.clear(),
}
"""What is refused by the backend that would have to go by it."""


@pytest.mark.clause("C-21", "C-40")
def test_a_hostile_description_is_refused(harness: Harness, tmp_path: Path) -> None:
    wrong = []
    for way in WAYS:
        origin, target = _pair(harness, way)
        _start(origin, tmp_path / way, 1, "step", optimizer="adam").fit()
        folder = tmp_path / way / "checkpoint" / "epoch_1"
        whole = (folder / "exchange.json").read_bytes()
        takers = [_elsewhere(of, tmp_path / "other", 1, "step", optimizer="adam") for of in (origin, target)]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for name, spoil in {**SPOILS, **FOREIGN}.items():
            said = json.loads(whole)
            spoil(said)
            forge(folder, "exchange.json", json.dumps(said).encode())
            for run in takers if name in SPOILS else takers[1:]:
                before = run.parameters()
                try:
                    refuse(run.trainer, folder)
                except BaseException as error:
                    wrong.append(f"{name} from {origin.name} by {run.harness.name}: {type(error).__name__}: {error}")
                now = run.parameters()
                if any(not np.array_equal(now[at], array) for at, array in before.items()):
                    wrong.append(f"{name} from {origin.name} by {run.harness.name}: weights were changed")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 2**19, "in KiB: it has made what is huge"
        forge(folder, "exchange.json", whole)
        takers[1].trainer.load_checkpoint(folder)
    assert wrong == []


PASSENGERS = [
    b"5", b'{"tensors": 5}', b'{"tensors": {"model_0": {"norm0/batches": 5}}}', b'{"exact": {"slots": []}}',
    b'{"exact": {"slots": {}, "origin": 5, "at": 0}}', b'{"exact": {"slots": {}, "origin": "x", "at": "0"}}',
    b'{"tensors": {"model_0": {"norm0/batches": {"$array": "x"}}}}',
]  # fmt: skip


@pytest.mark.clause("C-21", "C-43")
@pytest.mark.parametrize("content", PASSENGERS)
def test_hostile_passengers_are_refused(harness: Harness, tmp_path: Path, content: bytes) -> None:
    for way in WAYS:
        origin, target = _pair(harness, way)
        _start(origin, tmp_path / way, 1).fit()
        folder = tmp_path / way / "checkpoint" / "epoch_1"
        forge(folder, "passengers.json", content)
        for of in (origin, target):
            run = _elsewhere(of, tmp_path / "other", 1)
            before = run.parameters()
            refuse(run.trainer, folder)
            for name, array in before.items():
                np.testing.assert_array_equal(run.parameters()[name], array, err_msg=name)


@pytest.mark.clause("C-40")
def test_a_checkpoint_without_a_description_is_for_its_own_backend(harness: Harness, tmp_path: Path) -> None:
    origin, target = _pair(harness, "there")
    _start(origin, tmp_path / "first", 1).fit()
    folder = tmp_path / "first" / "checkpoint" / "epoch_1"
    forge(folder, "exchange.json", b"null")
    run = _elsewhere(target, tmp_path / "second", 1)
    for options in ({}, {"weights_only": True}):
        text = refuse(run.trainer, folder, **options)
        assert f"was saved by {origin.name!r} and this is {target.name!r}" in text
        assert "doesn't say what its tensors are" in text
    own = _elsewhere(origin, tmp_path / "own", 1)
    own.trainer.load_checkpoint(folder)

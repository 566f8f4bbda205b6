"""C: which layer of one framework's model is which of another's, and what is done with what has no pair."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance._checkpoints import refuse
from dowdyboy_conformance._crossing import (
    WAYS,
    assert_alike,
    assert_close,
    begin,
    elsewhere,
    pair,
)
from dowdyboy_conformance._problem import CLASSES, FEATURES, Run, layers
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core import ConfigError


@pytest.mark.clause("C-42")
@pytest.mark.parametrize(("how", "way"), [("names", "there"), ("resume_names", "back"), ("function", "there")])
def test_names_say_which_layer_is_which(harness: Harness, tmp_path: Path, how: str, way: str) -> None:
    origin, target = pair(harness, way)
    names: Any = {"fc0.": "fc1.", "fc1.": "fc0."}
    if how == "function":
        swap = {"fc0": "fc1", "fc1": "fc0"}
        names = swap.__getitem__

    def start(of: Harness, folder: str, epoch: int, initial: Any, **changed: Any) -> Run:
        run = begin(of, tmp_path / folder, epoch, batch_norm=False, **changed)
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
    assert_close(fit(second), expected[10:], 2e-5)
    found, wanted = target.parameters(second.model), origin.parameters(whole.model)
    for name, array in wanted.items():
        swapped = name.replace("fc0", "fcx").replace("fc1", "fc0").replace("fcx", "fc1")
        assert_close(found[swapped], array, 5e-5, name)


@pytest.mark.clause("C-42")
def test_names_rename_in_a_framework_of_its_own_and_lose_nothing(harness: Harness, tmp_path: Path) -> None:
    def start(folder: str, epoch: int, seed: int, **changed: Any) -> Run:
        initial = layers(4, 4, 4, seed=seed)
        return begin(harness, tmp_path / folder, epoch, initial=initial, batch_norm=False, dropout=0.3, **changed)

    whole, first = start("whole", 4, 1, optimizer="adam").fit(), start("first", 2, 1, optimizer="adam").fit()
    second = start("second", 4, 9, optimizer="adam")
    second.trainer.load_checkpoint(tmp_path / "first" / "checkpoint" / "epoch_2", names={"fc0": "fc0"})
    assert first.losses + second.fit().losses == whole.losses, "with the random streams of the checkpoint"
    assert "crossed" not in (tmp_path / "second" / "default_run.log").read_text()


@pytest.mark.clause("C-42", "F-1")
def test_names_of_another_kind_are_refused(harness: Harness, tmp_path: Path) -> None:
    run = begin(harness, tmp_path, 1).fit()
    wrong: list[Any] = [5, "fc0", ["fc0"], {"fc0": 1}, {1: "fc0"}]
    calls: list[Callable[[], Any]] = [
        *(partial(run.trainer.load_checkpoint, tmp_path / "checkpoint" / "epoch_1", names=names) for names in wrong),
        *(partial(begin, harness, tmp_path, 1, resume_names=names) for names in wrong),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match=r"names=.* says not how paths are called here"):
            call()


@pytest.mark.clause("C-42")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("weights_only", [False, True])
def test_what_has_no_pair_is_listed_and_nothing_is_loaded(
    harness: Harness, tmp_path: Path, way: str, weights_only: bool
) -> None:
    origin, target = pair(harness, way)
    begin(origin, tmp_path / "first", 1, optimizer="adam").fit()
    folder = tmp_path / "first" / "checkpoint" / "epoch_1"
    run = begin(target, tmp_path / "second", 1, batch_norm=False, optimizer="adam", initial=layers(4, 4, 4, 3, seed=9))
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
    origin, target = pair(harness, way)
    made: dict[str, tuple[Run, Any]] = {}
    for of in (origin, target):
        run = begin(of, tmp_path / of.name, 1, optimizer="adam", initial=layers(4, 4, 3, seed=len(made)))
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
    assert_alike(target, other.model, origin, run.model)


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
    origin, target = pair(harness, way)
    begin(origin, tmp_path / "first", 1).fit()
    run = begin(target, tmp_path / "second", 1)
    cls = type(run.model.fc0)
    run.model.fc0.__class__ = type("Odd", (cls.__mro__[-2],), {"__module__": cls.__module__})
    text = refuse(run.trainer, tmp_path / "first" / "checkpoint" / "epoch_1")
    for name in ("weight", "bias"):
        assert f"model_0: 'fc0.{name}' is a {cls.__module__}.Odd here, of which no rule is known" in text


@pytest.mark.clause("C-41", "C-42")
@pytest.mark.parametrize("way", WAYS)
def test_another_kind_of_optimizer_or_schedule_is_refused(harness: Harness, tmp_path: Path, way: str) -> None:
    origin, target = pair(harness, way)
    begin(origin, tmp_path / "first", 1, "step", optimizer="adam").fit()
    folder = tmp_path / "first" / "checkpoint" / "epoch_1"
    for optimizer, schedule, expected in (
        ("momentum", "step", r"Optimizer 0 is a \w+ \(adam\) in the checkpoint and a \w+ \(momentum\) here\."),
        ("adam", "plateau", r"Scheduler 0 is a \w+ \(step\) in the checkpoint and a \w+ \(plateau\) here\."),
        ("adam", None, r"Optimizer 0 has a scheduler in the checkpoint and none in this run\."),
    ):
        run = elsewhere(target, tmp_path / "second", 1, schedule, optimizer=optimizer)
        before = run.parameters()
        assert re.search(expected, refuse(run.trainer, folder))
        for name, array in before.items():
            np.testing.assert_array_equal(run.parameters()[name], array, err_msg=name)

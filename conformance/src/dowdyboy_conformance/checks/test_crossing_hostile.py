"""C: a description that is made to do harm, or is none, is refused, and nothing of it is loaded."""

from __future__ import annotations

import itertools
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from dowdyboy_conformance._checkpoints import forge, refuse
from dowdyboy_conformance._crossing import (
    WAYS,
    begin,
    elsewhere,
    pair,
)
from dowdyboy_conformance._resuming import read_index
from dowdyboy_conformance.harnesses.harness import Harness

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
    "position before all": lambda said: said["schedules"][0].update(position=-2),
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
        origin, target = pair(harness, way)
        begin(origin, tmp_path / way, 1, "step", optimizer="adam").fit()
        folder = tmp_path / way / "checkpoint" / "epoch_1"
        whole = (folder / "exchange.json").read_bytes()
        takers = [elsewhere(of, tmp_path / "other", 1, "step", optimizer="adam") for of in (origin, target)]
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
def test_hostile_passengers_are_refused(harness: Harness, tmp_path: Path) -> None:
    for way in WAYS:
        origin, target = pair(harness, way)
        begin(origin, tmp_path / way, 1).fit()
        folder = tmp_path / way / "checkpoint" / "epoch_1"
        takers = [elsewhere(of, tmp_path / "other", 1) for of in (origin, target)]
        for content, run in itertools.product(PASSENGERS, takers):
            forge(folder, "passengers.json", content)
            before = run.parameters()
            refuse(run.trainer, folder)
            for name, array in before.items():
                np.testing.assert_array_equal(run.parameters()[name], array, err_msg=name)


@pytest.mark.clause("C-21", "C-43")
def test_passengers_of_another_shape_are_refused(harness: Harness, tmp_path: Path) -> None:
    for way in WAYS:
        origin, target = pair(harness, way)
        begin(origin, tmp_path / way, 1).fit()
        folder = tmp_path / way / "checkpoint" / "epoch_1"
        there = elsewhere(target, tmp_path / f"{way} there", 1)
        there.trainer.load_checkpoint(folder)
        there.trainer.save_checkpoint("x")
        [passed] = (tmp_path / f"{way} there" / "checkpoint").glob("chk_x_step_*")
        if "passengers.safetensors" not in read_index(passed)["files"]:
            continue  # the other framework has a place for everything
        arrays = {
            name: np.stack([array, array]) for name, array in load_file(passed / "passengers.safetensors").items()
        }
        forge(passed, "passengers.safetensors", save(arrays))
        run = elsewhere(origin, tmp_path / f"{way} back", 1)
        before = run.parameters()
        assert "passengers.json has" in refuse(run.trainer, passed)
        for name, array in before.items():
            np.testing.assert_array_equal(run.parameters()[name], array, err_msg=name)


@pytest.mark.clause("C-16", "C-40")
def test_a_checkpoint_without_a_description_is_for_its_own_backend(harness: Harness, tmp_path: Path) -> None:
    origin, target = pair(harness, "there")
    begin(origin, tmp_path / "first", 1).fit()
    folder = tmp_path / "first" / "checkpoint" / "epoch_1"
    forge(folder, "exchange.json", b"null")
    run = elsewhere(target, tmp_path / "second", 1)
    for options in ({}, {"weights_only": True}):
        text = refuse(run.trainer, folder, **options)
        assert f"was saved by {origin.name!r} and this is {target.name!r}" in text
        assert "doesn't say what its tensors are" in text
    own = elsewhere(origin, tmp_path / "own", 1)
    own.trainer.load_checkpoint(folder)

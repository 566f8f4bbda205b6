"""W: a model is used, frozen and unfrozen in several processes as in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance._together import Together
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_conformance.scenarios import models as scenarios
from dowdyboy_conformance.scenarios.numbers import branched

several = pytest.mark.parametrize("processes", [2, 3])


def _assert_close(found: dict[str, Any], wanted: dict[str, Any], name: str) -> None:
    assert found.keys() == wanted.keys()
    for path, want in wanted.items():
        np.testing.assert_allclose(found[path], want, rtol=0, atol=2e-6, err_msg=f"{name}: {path}")


@pytest.mark.clause("W-24", "W-6", "W-8")
@several
def test_however_a_model_is_computed_it_trains_as_in_one_process(
    harness: Harness, together: Together, tmp_path: Path, processes: int
) -> None:
    ranks = together(processes, "uses")
    before = harness.state(branched(harness))
    for name in scenarios.USES:
        assert all(seen[name] == ranks[0][name] for seen in ranks), name
        wanted = scenarios.joined_use(harness, tmp_path / name, processes, name)
        assert np.abs(before["fc1.weight"] - wanted["fc1.weight"]).max() > 1e-4, "both layers must matter"
        _assert_close(ranks[0][name], wanted, name)


@pytest.mark.clause("W-24", "W-1", "A-7")
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_what_the_trainer_gives_is_the_model_to_whoever_looks(together: Together, processes: int) -> None:
    rounds = -(-3 // processes)
    for seen in together(processes, "disguise"):
        assert seen == {
            "kind": [True, True],
            "attributes": [True, True, True, False],
            "parts": [True, True, 2],
            "names": True,
            "the same": True,
            "deleted": False,
            "modes": [[True, True, True]] * rounds,
        }


@pytest.mark.clause("W-25", "W-6", "W-8")
@several
def test_what_is_frozen_may_change_from_epoch_to_epoch(
    harness: Harness, together: Together, tmp_path: Path, processes: int
) -> None:
    ranks = together(processes, "thawing")
    assert all(seen == ranks[0] for seen in ranks)
    expected = scenarios.joined_thawing(harness, tmp_path, processes)
    for epoch, (models, wanted) in enumerate(zip(ranks[0], expected, strict=True), start=1):
        for found, want in zip(models, wanted, strict=True):
            _assert_close(found, want, f"epoch {epoch}")
    frozen = [[states[number][path] for states in ranks[0]] for number, path in ((0, "fc1.bias"), (1, "fc0.bias"))]
    assert [states[1] != states[0] for states in frozen] == [True, True], "unfrozen after the first epoch"
    first = [states[0]["fc0.bias"] for states in ranks[0]]
    assert first[1] != first[0] and first[2] == first[1], "frozen after the second"


@pytest.mark.clause("W-26", "W-6", "W-8")
@several
def test_models_may_be_frozen_in_turn_within_a_step(
    harness: Harness, together: Together, tmp_path: Path, processes: int
) -> None:
    ranks = together(processes, "adversarial")
    assert all(seen == ranks[0] for seen in ranks)
    for found, wanted in zip(ranks[0], scenarios.joined_adversarial(harness, tmp_path, processes), strict=True):
        _assert_close(found, wanted, "adversarial")


@pytest.mark.clause("W-26")
@several
@pytest.mark.parametrize("kind", scenarios.CHANGES)
def test_what_is_frozen_may_not_change_within_an_epoch(together: Together, processes: int, kind: str) -> None:
    model, place = {"freeze": (0, "fc0"), "unfreeze": (1, "fc1"), "unfreeze a model": (2, "fc0")}[kind]
    for seen in together(processes, "refusals"):
        assert seen[kind]["error"] is not None, "nobody has noticed"
        name, text = seen[kind]["error"]
        assert name == "SetupError"
        assert f"{place}." in text and "on_epoch_end" in text, model
        assert not seen[kind]["moved"]


@pytest.mark.clause("W-25")
@several
def test_processes_that_train_different_parameters_are_an_error(together: Together, processes: int) -> None:
    for seen in together(processes, "refusals"):
        assert seen["apart"]["error"] is not None, "nobody has noticed"
        name, text = seen["apart"]["error"]
        assert name == "SetupError"
        assert "model 0, fc0." in text and "alike" in text


@pytest.mark.clause("W-13")
@several
@pytest.mark.parametrize("saved", ["nothing", "seldom"])
def test_weights_that_drift_are_noticed_in_the_first_epoch(together: Together, processes: int, saved: str) -> None:
    for seen in together(processes, "drifting"):
        assert seen[saved]["error"] is not None, "nobody has noticed"
        name, text = seen[saved]["error"]
        assert (name, seen[saved]["epochs"]) == ("SetupError", 1)
        assert "get_raw_models" in text

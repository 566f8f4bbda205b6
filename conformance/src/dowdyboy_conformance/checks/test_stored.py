"""C: what can be stored, when it is tried, and what is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance._problem import FEATURES, HIDDEN, Run, build, layers
from dowdyboy_conformance._resuming import read_index
from dowdyboy_conformance._together import Together
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core import CheckpointError


class Keeping:
    """A component that keeps what it is given."""

    def __init__(self, kept: Any) -> None:
        self.kept = kept

    def state_dict(self) -> Any:
        """What it keeps."""
        return {"kept": self.kept}

    def load_state_dict(self, state: Any) -> None:
        """Takes it up."""
        self.kept = state["kept"]


@pytest.mark.clause("C-35")
def test_what_can_not_be_stored_is_refused_before_the_first_batch(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, enable_save_checkpoint=True)
    run.trainer.set_component(Keeping([1, {"of": object()}]))
    said = r"component_0: the value at kept/1/of is a object .*No batch was trained.*enable_save_checkpoint=False"
    with pytest.raises(CheckpointError, match=said):
        run.trainer.fit(lambda *_: pytest.fail("a batch was trained"))
    assert not (tmp_path / "checkpoint").exists()
    unsaved = build(harness, tmp_path / "unsaved")
    unsaved.trainer.set_component(Keeping(object()))
    unsaved.fit()
    assert unsaved.losses


@pytest.mark.clause("C-35")
def test_what_comes_with_the_first_step_is_refused_after_it(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, enable_save_checkpoint=True, accumulate_steps=2, samples=24)
    component = Keeping(0)
    run.trainer.set_component(component)

    def train(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        component.kept = object()
        return run.train_step(trainer, bat, bat_idx, global_step)

    with pytest.raises(CheckpointError, match=r"at kept is a object .*One step was made"):
        run.trainer.fit(train)
    assert len(run.losses) == 2
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.clause("C-35")
def test_the_trial_is_made_twice_and_copies_nothing(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, enable_save_checkpoint=True, epoch=3, samples=24)
    asked: list[int] = []

    class Counting(Keeping):
        def state_dict(self) -> Any:
            asked.append(len(run.losses))
            return super().state_dict()

    run.trainer.set_component(Counting(0))
    run.fit()
    assert asked == [0, 1, 6, 12, 18]


@pytest.mark.clause("C-28", "C-35")
@pytest.mark.distributed
def test_state_of_the_users_own_is_each_processes_own(harness: Harness, together: Together) -> None:
    seen = together(2, "own_state")
    assert [rank["resumed"] for rank in seen] == [rank["whole"] for rank in seen]
    assert seen[0]["whole"] != seen[1]["whole"]
    assert all(rank["stopped"][1] != rank["whole"][1] for rank in seen)
    (first, none), (last, also_none) = (rank["refused"] for rank in seen)
    assert (none, also_none) == (0, 0)
    assert last.startswith("component_0: the value at kept/of is a object")
    assert first == f"Process 1 can't save what it has: {last}"


VALUES: dict[str, Any] = {
    "bytes": b"\0\xff",
    "complex": 1 - 2j,
    "wave": np.array([[1 + 2j, 3], [complex("nan"), -0.0]], np.complex128),
    "point": np.complex128(2j),
    **{name: np.array([0, 200], name) for name in ("uint16", "uint32", "uint64")},
}
TENSORS = {name: np.array([1 + 2j, 3, -1j], name) for name in ("complex64", "complex128")}


@pytest.mark.clause("C-36", "C-4")
def test_complex_tensors_and_bytes_come_back_as_what_they_were(harness: Harness, tmp_path: Path) -> None:
    def component(factor: int) -> Keeping:
        kept = {name: value if factor else None for name, value in VALUES.items()}
        return Keeping({**kept, **{name: harness.tensor(values * factor) for name, values in TENSORS.items()}})

    run = build(harness, tmp_path, enable_save_checkpoint=True)
    run.trainer.set_component(component(1))
    run.fit()
    loaded, taken = build(harness, tmp_path / "other"), component(0)
    loaded.trainer.set_component(taken)
    loaded.trainer.load_checkpoint(tmp_path / "checkpoint" / "last_epoch_1")
    for name, value in VALUES.items():
        assert (type(taken.kept[name]), repr(taken.kept[name])) == (type(value), repr(value))
    for name, values in TENSORS.items():
        found = harness.numpy(taken.kept[name])
        assert harness.is_tensor(taken.kept[name]) and found.dtype == values.dtype
        np.testing.assert_array_equal(found, values)


class TwoModels:
    """A frozen model with statistics in front of one that is trained."""

    def __init__(self, harness: Harness, out_dir: Path, *, seed: int = 1, **settings: Any) -> None:
        self.run: Run = build(harness, out_dir, enable_save_checkpoint=True, **settings)
        self.front = harness.model(layers(FEATURES, HIDDEN, FEATURES, seed=seed), batch_norm=True)
        harness.freeze(self.front)
        self.run.trainer.set_models([self.front, self.run.model])

    def fit(self) -> None:
        """Trains."""

        def train(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
            front, model = trainer.get_models()
            return self.run.loss(model(front(bat[0])), bat[1])

        self.run.trainer.fit(train)


def _names(folder: Path, stem: str) -> set[str]:
    from safetensors import safe_open

    with safe_open(folder / f"{stem}.safetensors", "numpy") as file:
        return set(file.keys())


@pytest.mark.clause("C-37")
def test_what_was_never_changed_is_left_out(harness: Harness, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"optimizer": "momentum", "save_trained_only": True, "ema_decay": 0.5}
    whole = TwoModels(harness, tmp_path / "whole", epoch=3, **settings)
    whole.fit()
    cut = TwoModels(harness, tmp_path / "cut", epoch=1, **settings)
    cut.fit()
    folder = tmp_path / "cut" / "checkpoint" / "last_epoch_1"
    left = {name for name in harness.state(cut.front) if name.startswith("fc")}
    assert left and not _names(folder, "model_0") & left
    assert harness.running_variance in _names(folder, "model_0")
    assert _names(folder, "model_1") == set(harness.state(cut.run.model))
    assert not _names(folder, "ema_0") & left
    for epoch in (2, 3):  # what was left out at first stays so, whoever saves
        resumed = TwoModels(harness, tmp_path / "cut", epoch=epoch, resume="auto", **settings)
        resumed.fit()
    assert not _names(folder.with_name("last_epoch_3"), "model_0") & left
    for one, other in ((resumed.front, whole.front), (resumed.run.model, whole.run.model)):
        expected = harness.state(other)
        assert harness.state(one).keys() == expected.keys()
        for name, value in harness.state(one).items():
            np.testing.assert_array_equal(value, expected[name])


@pytest.mark.clause("C-37", "C-9")
def test_another_beginning_is_refused_by_name(harness: Harness, tmp_path: Path) -> None:
    saved = TwoModels(harness, tmp_path, save_trained_only=True)
    saved.fit()
    folder = tmp_path / "checkpoint" / "last_epoch_1"
    other = TwoModels(harness, tmp_path / "other", seed=2)
    before = harness.state(other.run.model)
    for weights_only in (False, True):
        with pytest.raises(CheckpointError, match=r"model_0: fc0\.weight") as caught:
            other.run.trainer.load_checkpoint(folder, weights_only=weights_only)
        assert "model_1" not in str(caught.value)
    for name, value in harness.state(other.run.model).items():
        np.testing.assert_array_equal(value, before[name])
    same = TwoModels(harness, tmp_path / "same")
    same.run.trainer.load_checkpoint(folder, weights_only=True)
    for name, value in harness.state(same.run.model).items():
        np.testing.assert_array_equal(value, harness.state(saved.run.model)[name])


@pytest.mark.clause("C-37")
def test_a_run_that_does_not_know_its_beginning_saves_all(harness: Harness, tmp_path: Path) -> None:
    TwoModels(harness, tmp_path).fit()
    assert "untrained.json" not in read_index(tmp_path / "checkpoint" / "last_epoch_1")["files"]
    resumed = TwoModels(harness, tmp_path, epoch=2, resume="auto", save_trained_only=True)
    resumed.fit()
    folder = tmp_path / "checkpoint" / "last_epoch_2"
    assert _names(folder, "model_0") == set(harness.state(resumed.front))
    assert "was saved without save_trained_only" in (tmp_path / "default_run.log").read_text()

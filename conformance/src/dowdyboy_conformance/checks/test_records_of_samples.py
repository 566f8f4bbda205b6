"""R: records whose first axis counts samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance._problem import build, config, data
from dowdyboy_conformance._together import Together
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_conformance.scenarios.records import SAMPLES
from dowdyboy_core import ConfigError

JOINED: list[tuple[str, list[Any], str, Any]] = [
    ("vectors", [np.array([0.5, 1.5], np.float32), np.array([2.5], np.float32)], "float32", [0.5, 1.5, 2.5]),
    ("matrices", [np.ones((1, 2), np.float32), np.zeros((2, 2), np.float32)], "float32", [[1, 1], [0, 0], [0, 0]]),
    ("an empty batch", [np.zeros((0, 2), np.float32), np.ones((1, 2), np.float32)], "float32", [[1, 1]]),
    ("empty batches", [np.zeros((0,), np.int64), np.zeros((0,), np.int64)], "int64", []),
    ("half precision", [np.array([0.5], np.float16), np.array([1.5, 2.0], np.float16)], "float32", [0.5, 1.5, 2.0]),
    (
        "kinds that mix",
        [np.array([True], np.bool_), np.array([2, 3], np.int32), np.array([0.5], np.float32)],
        "float32",
        [1, 2, 3, 0.5],
    ),
    ("double precision", [np.array([0.5], np.float32), np.array([0.1, 0.2], np.float64)], "float64", [0.5, 0.1, 0.2]),
]


@pytest.mark.clause("R-8", "R-2", "R-3")
@pytest.mark.parametrize(("values", "dtype", "expected"), [case[1:] for case in JOINED], ids=[c[0] for c in JOINED])
@pytest.mark.parametrize("kind", ["tensors", "arrays", "lists", "mixed"])
def test_samples_are_joined(
    harness: Harness, tmp_path: Path, values: list[Any], dtype: str, expected: Any, kind: str
) -> None:
    kinds: dict[str, Any] = {"tensors": [harness.tensor], "arrays": [np.copy], "lists": [np.ndarray.tolist]}
    makers = kinds.get(kind, [harness.tensor, np.copy, np.copy])
    trainer = harness.make_trainer(config(tmp_path))
    if kind == "lists" and not all(value.size for value in values):
        return  # an empty list has neither a type nor further axes
    for number, value in enumerate(values):
        trainer.set_records({"x": makers[number % len(makers)](value)}, samples=True)
        harness.numpy(trainer.get_records()["x"])  # which must not end it
    found = harness.numpy(trainer.get_records()["x"])
    assert harness.is_tensor(trainer.get_records()["x"])
    assert found.dtype == ("float32" if kind == "lists" and dtype == "float64" else dtype)
    np.testing.assert_array_equal(found, np.array(expected, found.dtype).reshape(found.shape))
    assert found.shape == (sum(map(len, values)), *values[0].shape[1:])


@pytest.mark.clause("R-8", "R-4")
def test_samples_are_copies(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path)
    weight, array = dict(harness.native_parameters(run.model))["fc0.weight"], np.ones(2, np.float32)
    before = harness.numpy(weight)
    run.trainer.set_records({"weight": weight, "array": array}, samples=True)
    harness.overwrite(weight, 7.0)
    array[:] = 7.0
    found = run.trainer.get_records()
    assert not harness.has_graph(found["weight"])
    np.testing.assert_array_equal(harness.numpy(found["weight"]), before)
    assert harness.numpy(found["array"]).tolist() == [1.0, 1.0]


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    ([1], {"samples": True}, "set_records got [1], which is no dict. Give {name: value}."),
    (
        {"ok": [1], "x": 0.5},
        {"samples": True},
        "Record 'x' got a value of shape () with samples=True, which has no axis that counts samples. Give one number "
        "or array for each sample of the batch, or leave samples=True out.",
    ),
    (
        {"ok": [1], "old": [1, 2]},
        {"samples": True},
        "Record 'old' got a value with samples=True; its values so far came without it. Record a name always in one "
        "way, or give each way a name of its own.",
    ),
    (
        {"ok": [1], "rows": [1, 2]},
        {},
        "Record 'rows' got a value without samples=True; its values so far came with it. Record a name always in one "
        "way, or give each way a name of its own.",
    ),
    (
        {"ok": [1], "rows": [[1, 2, 3]]},
        {"samples": True},
        "Record 'rows' got samples of shape (3,); its samples so far have shape (2,). Record samples of one shape "
        "under a name.",
    ),
    (
        {"ok": [1]},
        {"samples": "ok"},
        "set_records got samples='ok'. Give True where the first axis of each value counts samples, or leave it out.",
    ),
]


@pytest.mark.clause("R-8", "X-2")
@pytest.mark.parametrize(("given", "named", "text"), REFUSED, ids=range(len(REFUSED)))
def test_what_are_no_samples_is_refused(
    harness: Harness, tmp_path: Path, given: Any, named: dict[str, Any], text: str
) -> None:
    trainer = harness.make_trainer(config(tmp_path))
    trainer.set_records({"old": [1, 2]})
    trainer.set_records({"rows": [[1, 2]]}, samples=True)
    with pytest.raises(ConfigError) as caught:
        trainer.set_records(given, **named)
    assert str(caught.value) == text
    assert list(trainer.get_records()) == ["old", "rows"], "nothing of the call may be recorded"


@pytest.mark.clause("R-9", "B-1")
def test_the_best_by_samples_is_the_mean_over_samples(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, epoch=2, save_best=True, save_best_rec="hit", save_best_type="max")
    run.trainer.set_val_dataloader(harness.loader(harness.dataset(np.arange(5)), 4))
    # By batches the first epoch has 0.5 * (3/4 + 1) and the second 0.5 * (1 + 0): by samples both have 4 of 5.
    missed = {1: 0, 2: 4}
    values: list[float] = []

    def val_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        trainer.set_records({"hit": harness.numpy(bat[0]) != missed[trainer.epoch]}, samples=True)

    def noted(own_value: Any) -> Any:
        def value(*given: Any) -> float:
            values.append(own_value(*given))
            return values[-1]

        return value

    run.trainer._following._own_value = noted(run.trainer._following._own_value)  # type: ignore[method-assign]
    run.trainer.fit(run.train_step, val_step)
    assert values == [0.8, 0.8]


@pytest.mark.clause("R-9", "W-5")
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_samples_are_in_the_order_of_one_process(together: Together, processes: int) -> None:
    [alone] = together(1, "samples")
    features, classes = data(SAMPLES)
    assert len(alone["whole"]) == 2
    for epoch in alone["whole"]:
        found = {name: values for name, _, values in epoch}
        numbers = found["number"][:SAMPLES]
        assert (sorted(numbers), found["number"][SAMPLES:]) == ([*range(SAMPLES)], [*range(SAMPLES)])
        np.testing.assert_array_equal(np.float32(found["row"]), features[numbers])
        np.testing.assert_array_equal(
            np.float32(found["chosen"]), features[[number for number in numbers if classes[number] == 1]]
        )
        assert found["seldom"] == [[1, 2], [3, 4]]
        assert found["whole"] == [5, 5, 5, 5, 2]
    for seen in together(processes, "samples"):
        assert seen["whole"] == alone["whole"]


@pytest.mark.clause("R-9", "C-7")
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_samples_are_whole_after_a_resume(together: Together, processes: int) -> None:
    [alone] = together(1, "samples")
    for seen in together(processes, "samples"):
        assert seen["parts"] == alone["whole"][1:]
        assert seen["best"] == 0.5
        if processes > 1:  # what one process fewer had of the first round, and then all of the epoch
            done = SAMPLES + 4 * (processes - 1)
            counts = dict(zip(("number", "row"), seen["elsewhere"], strict=False))
            assert counts == {"number": done + SAMPLES, "row": done}

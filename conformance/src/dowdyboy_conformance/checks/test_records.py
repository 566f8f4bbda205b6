"""R: records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance._problem import build, config
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core import ConfigError


def recorded(harness: Harness, out_dir: Path, *values: Any) -> Any:
    """What comes of values that are recorded one after another under one name."""
    trainer = harness.make_trainer(config(out_dir))
    for value in values:
        trainer.set_records({"x": value})
    found = trainer.get_records()["x"]
    assert harness.is_tensor(found)
    return harness.numpy(found)


CASES: list[tuple[str, list[Any], str, Any]] = [
    ("int", [1, 2], "int64", [1, 2]),
    ("large int", [2**53 + 1, -(2**63)], "int64", [2**53 + 1, -(2**63)]),
    ("bool", [True, False], "bool", [True, False]),
    ("float", [0.5, 1.5], "float32", [0.5, 1.5]),
    ("numpy float32", [np.float32(0.5)], "float32", [0.5]),
    ("numpy float64", [np.float64(0.1)], "float64", [0.1]),
    ("numpy float16", [np.float16(0.5)], "float32", [0.5]),
    ("numpy int", [np.int32(3), np.uint8(4)], "int64", [3, 4]),
    ("numpy bool", [np.bool_(True)], "bool", [True]),
    ("list of floats", [[0.5, 1.0], (1.5, 2.0)], "float32", [[0.5, 1.0], [1.5, 2.0]]),
    ("list of ints", [[1, 2]], "int64", [[1, 2]]),
    ("vector", [np.ones(3, np.float32)], "float32", [[1, 1, 1]]),
    ("matrix", [np.ones((2, 1), np.float64)], "float64", [[[1], [1]]]),
    ("bool and int", [True, 2], "int64", [1, 2]),
    ("int and float", [1, 0.5], "float32", [1, 0.5]),
    ("float and int", [0.5, 1], "float32", [0.5, 1]),
    ("bool and float", [True, 0.5], "float32", [1, 0.5]),
    ("all kinds", [True, 2, 0.5, np.float32(0.25), np.bool_(True), 7], "float32", [1, 2, 0.5, 0.25, 1, 7]),
    ("float and float64", [0.5, np.float64(0.1), 1], "float64", [0.5, 0.1, 1]),
]


@pytest.mark.clause("R-1", "R-2", "R-3")
@pytest.mark.parametrize(("values", "dtype", "expected"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_values_are_stacked(harness: Harness, tmp_path: Path, values: list[Any], dtype: str, expected: Any) -> None:
    found = recorded(harness, tmp_path, *values)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.array(expected, dtype))


TENSORS: list[tuple[Any, str]] = [
    (np.float32(0.5), "float32"),
    (np.float64(0.1), "float64"),
    (np.float16(0.5), "float32"),
    (np.int32(3), "int64"),
    (np.uint8(3), "int64"),
    (np.bool_(True), "bool"),
    (np.ones(1, np.float32), "float32"),
    (np.arange(6, dtype=np.float32).reshape(2, 3), "float32"),
    (np.zeros((0,), np.float32), "float32"),
]


@pytest.mark.clause("R-1", "R-2")
@pytest.mark.parametrize(("value", "dtype"), TENSORS, ids=[f"{v.dtype}{v.shape}" for v, _ in TENSORS])
def test_tensors_are_stacked(harness: Harness, tmp_path: Path, value: Any, dtype: str) -> None:
    found = recorded(harness, tmp_path, harness.tensor(value), harness.tensor(value))
    assert (found.dtype, found.shape) == (np.dtype(dtype), (2, *value.shape))
    np.testing.assert_array_equal(found, np.stack([value, value]))


@pytest.mark.clause("R-3")
def test_tensors_and_numbers_mix(harness: Harness, tmp_path: Path) -> None:
    found = recorded(harness, tmp_path, 1, harness.tensor(np.float32(0.5)), np.int64(2), True)
    assert found.dtype == np.float32
    assert found.tolist() == [1.0, 0.5, 2.0, 1.0]


@pytest.mark.clause("R-4")
def test_a_record_is_a_copy_without_a_graph(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path)
    found: list[float] = []
    array = np.ones(2, np.float32)

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        weight = dict(harness.native_parameters(run.model))["fc0.weight"]
        trainer.set_records({"weight": weight, "array": array})
        harness.overwrite(weight, 7.0)
        array[:] = 7.0
        found.append(float(harness.numpy(trainer.get_records()["weight"])[0, 0, 0]))
        assert harness.numpy(trainer.get_records()["array"])[0].tolist() == [1.0, 1.0]
        return run.loss(run.model(bat[0]), bat[1])

    start = float(harness.numpy(dict(harness.native_parameters(run.model))["fc0.weight"])[0, 0])
    run.trainer.fit(step)
    assert found == [start] * 3, "the first value is that of before the edit"


@pytest.mark.clause("R-4")
def test_a_recorded_loss_does_not_keep_its_graph(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path)

    def on_epoch_end(trainer: Any, ep: int) -> None:
        kept = trainer.get_records()["train_loss"]
        assert harness.has_graph(kept) is False

    run.fit(on_epoch_end=on_epoch_end)
    assert len(run.losses) == 3


@pytest.mark.clause("R-5", "R-6")
def test_records_are_of_one_epoch_and_of_some_batches(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, epoch=2, save_best=True, save_best_rec="both", save_best_type="max")
    seen: list[tuple[str, dict[str, list[Any]]]] = []

    def snapshot(where: str) -> None:
        found = {name: harness.numpy(item).tolist() for name, item in run.trainer.get_records().items()}
        seen.append((where, found))

    def train_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        if bat_idx == 0:
            snapshot("begin")
        trainer.set_records({"both": global_step})
        if bat_idx == 1:
            trainer.set_records({"some": [1, 2]})
            trainer.set_records({"some": [3, 4], "twice": 0})
            trainer.set_records({"twice": 1})
        return run.loss(run.model(bat[0]), bat[1])

    def val_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        trainer.set_records({"both": 100 + global_step})

    run.trainer.fit(train_step, val_step, lambda trainer, ep: snapshot("end"))
    some = {"some": [[1, 2], [3, 4]], "twice": [0, 1]}
    assert seen == [
        ("begin", {}),
        ("end", {"both": [0, 1, 2, 100, 101, 102], **some}),
        ("begin", {}),
        ("end", {"both": [3, 4, 5, 103, 104, 105], **some}),
    ]
    assert run.trainer.get_records() == {}


REFUSED: list[tuple[Any, str]] = [
    ([1], "set_records got [1], which is no dict. Give {name: value}."),
    ({3: 1}, "set_records got the name 3. Names of records are of type str."),
    (
        {"ok": 1, "x": "text"},
        "Record 'x' got 'text' of type str. Record numbers, bools, lists of them, NumPy arrays or tensors.",
    ),
    (
        {"ok": 1, "x": None},
        "Record 'x' got None of type NoneType. Record numbers, bools, lists of them, NumPy arrays or tensors.",
    ),
    ({"ok": 1, "x": [[1], [1, 2]]}, "Record 'x' got a ragged list: [[1], [1, 2]]."),
    (
        {"ok": 1, "x": np.complex64(1)},
        "Record 'x' got a value of type complex64. Record bools, integers or real floating-point numbers.",
    ),
    (
        {"ok": 1, "x": 2**63},
        "Record 'x' got 9223372036854775808, which is no int64. Record smaller integers, or floats.",
    ),
    (
        {"ok": 1, "old": -(2**63) - 1},
        "Record 'old' got -9223372036854775809, which is no int64. Record smaller integers, or floats.",
    ),
    (
        {"ok": 1, "old": [1, 2]},
        "Record 'old' got a value of shape (2,); its values so far have shape (). Record values of one shape under a "
        "name, for example one number a sample in a loop.",
    ),
]


@pytest.mark.clause("R-7", "X-2")
@pytest.mark.parametrize(("given", "text"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_recorded_is_refused(harness: Harness, tmp_path: Path, given: Any, text: str) -> None:
    trainer = harness.make_trainer(config(tmp_path))
    trainer.set_records({"old": 1})
    with pytest.raises(ConfigError) as caught:
        trainer.set_records(given)
    assert str(caught.value) == text
    assert list(trainer.get_records()) == ["old"], "nothing of the call may be recorded"

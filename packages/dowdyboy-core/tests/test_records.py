"""Records: values of every kind under one type, and those of several processes as one would have had them."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dowdyboy_core import ConfigError
from dowdyboy_core._run.records import Records, merge
from dowdyboy_core.backend.arrays import Array

NAME_OF_STORED = {"BOOL": "bool", "I64": "int64", "F32": "float32", "F64": "float64"}
STORED_OF_NAME = {name: stored for stored, name in NAME_OF_STORED.items()}


class Tensor:
    """A tensor of a framework, with types that NumPy may not have."""

    def __init__(self, values: Any, dtype: str) -> None:
        self.values = np.array(values)
        self.dtype = dtype

    def __repr__(self) -> str:
        return f"{self.values.tolist()} as {self.dtype}"


class Arrays:
    """What records ask of a backend, whose stacked tensors are NumPy arrays."""

    def __init__(self, world_size: int = 1) -> None:
        self.world_size = world_size

    def describe_tensor(self, value: Any) -> tuple[str, tuple[int, ...]] | None:
        return (value.dtype, value.values.shape) if isinstance(value, Tensor) else None

    def keep_tensor(self, value: Tensor) -> Any:
        return value.values.copy()

    def stack(self, values: Sequence[Any], dtype: str) -> Any:
        return np.asarray(values).astype(dtype)

    def cast(self, tensor: Any, dtype: str) -> Any:
        return tensor.astype(dtype)

    def concatenate(self, tensors: Sequence[Any]) -> Any:
        assert len({tensor.dtype for tensor in tensors}) == 1
        return np.concatenate(tensors)

    def tensor_state(self, tensor: Any) -> Array:
        return Array(STORED_OF_NAME[tensor.dtype.name], tensor.shape, tensor.tobytes())

    def tensor_from_state(self, array: Array) -> Any:
        return np.frombuffer(bytes(array.data), NAME_OF_STORED[array.dtype]).reshape(array.shape)


class Process(Arrays):
    """One of several processes, which are threads."""

    def __init__(self, rank: int, given: list[Any], meeting: threading.Barrier) -> None:
        super().__init__(len(given))
        self.rank, self.given, self.meeting = rank, given, meeting

    def gather(self, value: Any) -> list[Any]:
        self.given[self.rank] = value
        self.meeting.wait(30)
        found = list(self.given)
        self.meeting.wait(30)
        return found


def in_processes(world_size: int, job: Callable[[int, Records], Any]) -> list[Any]:
    """Runs ``job(rank, records)`` in every process, and gives what each gives."""
    given: list[Any] = [None] * world_size
    meeting = threading.Barrier(world_size)

    def run(rank: int) -> Any:
        backend: Any = Process(rank, given, meeting)
        try:
            return job(rank, Records(backend))
        except BaseException:
            meeting.abort()
            raise

    with ThreadPoolExecutor(world_size) as pool:
        running = [pool.submit(run, rank) for rank in range(world_size)]
    errors = [error for future in running if (error := future.exception()) is not None]
    if errors:
        raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), errors[0])
    return [future.result() for future in running]


def records_of(*rows: Mapping[str, Any]) -> Records:
    backend: Any = Arrays()
    records = Records(backend)
    for row in rows:
        records.add(row)
    return records


def plain(stacked: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """Types and values, which can be compared."""
    return {name: (tensor.dtype.name, tensor.tolist()) for name, tensor in stacked.items()}


def state_of(dtype: str, shape: list[int], positions: list[int], values: Any) -> dict[str, Any]:
    array = np.array(values, NAME_OF_STORED[dtype])
    stored = Array(dtype, array.shape, array.tobytes())
    named = {"dtype": NAME_OF_STORED[dtype], "shape": shape, "samples": False, "positions": positions}
    return named | {"counts": [], "values": stored}


def comparable(state: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """A state in the order of its names, with the data as bytes."""
    return [
        (name, {**stored, "values": stored["values"]._replace(data=bytes(stored["values"].data))})
        for name, stored in state.items()
    ]


@pytest.mark.parametrize(
    ("values", "dtype", "stacked"),
    [
        ([True, 2, False], "int64", [1, 2, 0]),
        ([1, 2, 0.5], "float32", [1.0, 2.0, 0.5]),
        ([0.1, np.float64(0.1)], "float64", [0.1, 0.1]),
        ([1, np.uint8(200), 3], "int64", [1, 200, 3]),
        ([np.int16(7), 0.25], "float32", [7.0, 0.25]),
        ([np.float16(0.5), np.float16(0.25)], "float32", [0.5, 0.25]),
        ([Tensor(1.5, "bfloat16"), 2, Tensor(3, "int32")], "float32", [1.5, 2.0, 3.0]),
        ([[1, 2], [3, 4]], "int64", [[1, 2], [3, 4]]),
        ([[1, 2], (0.5, 0.25), np.array([True, False])], "float32", [[1.0, 2.0], [0.5, 0.25], [1.0, 0.0]]),
        ([2**63 - 1, -(2**63)], "int64", [2**63 - 1, -(2**63)]),
    ],
    ids=repr,
)
def test_one_type_holds_all_values_of_a_name(values: list[Any], dtype: str, stacked: Any) -> None:
    records = records_of(*({"x": value} for value in values))
    assert plain(records.stacked()) == {"x": (dtype, stacked)}


def test_what_was_stacked_before_does_not_stay() -> None:
    records = records_of()
    assert records.stacked() == {}
    for number, value in enumerate((1, 2, 0.5, np.float64(0.25))):
        records.add(MappingProxyType({"x": value}))
        assert len(records.stacked()["x"]) == number + 1
    assert records.stacked() is records.stacked()
    records.clear()
    assert records.stacked() == {}


def test_an_array_is_kept_as_it_was() -> None:
    array = np.array([1.0, 2.0], "float32")
    records = records_of({"x": array})
    array += 1
    assert plain(records.stacked()) == {"x": ("float32", [[1.0, 2.0]])}


class Foreign:
    """Of a library that is neither the framework nor NumPy."""

    dtype = np.dtype("float32")
    shape = ()

    def __repr__(self) -> str:
        return "foreign"


@pytest.mark.parametrize(
    ("value", "kind"), [(Foreign(), "Foreign"), (np.add, "ufunc"), ("0.5", "str"), (None, "NoneType")], ids=repr
)
def test_a_value_that_is_none_is_refused_with_its_type(value: Any, kind: str) -> None:
    with pytest.raises(ConfigError, match=rf"^Record 'x' got .* of type {kind}\. Record numbers, bools"):
        records_of({"x": value})


@pytest.mark.parametrize("first", [1, 0.5, True])
@pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
def test_an_integer_of_more_than_64_bits_is_refused_whatever_came_before(first: Any, number: int) -> None:
    records = records_of({"x": first})
    with pytest.raises(ConfigError, match=rf"^Record 'x' got {number}, which is no int64"):
        records.add({"x": number})
    assert len(records.stacked()["x"]) == 1


def test_a_row_that_is_refused_leaves_nothing() -> None:
    records = records_of({"x": 1, "y": 2})
    for bad in ({"x": 3, "y": [1]}, {"x": 3.5, "y": "no"}, {"z": 1, 5: 2}):
        with pytest.raises(ConfigError):
            records.add(bad)  # type: ignore[arg-type]
    assert plain(records.stacked()) == {"x": ("int64", [1]), "y": ("int64", [2])}


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), 3, np.int64(3)], ids=repr)
def test_a_number_takes_about_eight_bytes(value: Any) -> None:
    count = 5_000
    records = records_of({"x": value}, {"x": value + 1})
    tracemalloc.start()
    try:
        for number in range(count):
            records.add({"x": value + 1000 + number})
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 16 * count, "Python's own numbers take 32, with the place in a list"


@pytest.mark.parametrize(
    ("rows", "more"),
    [
        ([1, 2], [3]),
        ([1, 2], [0.5]),
        ([True], [False]),
        ([0.5], [np.float64(0.1), 1]),
        ([[1, 2], [3, 4]], [[5, 6]]),
        ([[1, 2]], [[0.5, 0.25]]),
    ],
    ids=repr,
)
def test_a_checkpoint_goes_on_as_if_nothing_had_been(rows: list[Any], more: list[Any]) -> None:
    whole = records_of(*({"x": value} for value in [*rows, *more]))
    saved = records_of(*({"x": value} for value in rows))
    resumed = records_of({"old": 1})
    resumed.load_state(saved.state())
    assert plain(resumed.stacked()) == plain(saved.stacked())
    assert comparable(resumed.state()) == comparable(saved.state())
    for value in more:
        resumed.add({"x": value})
    assert plain(resumed.stacked()) == plain(whole.stacked())
    assert comparable(resumed.state()) == comparable(whole.state())


def test_the_shape_of_a_checkpoint_holds_for_what_follows() -> None:
    resumed = records_of()
    resumed.load_state(records_of({"x": [1, 2]}).state())
    with pytest.raises(ConfigError, match=r"got a value of shape \(\); its values so far have shape \(2,\)"):
        resumed.add({"x": 3})


VALUES = {
    "truth": st.booleans(),
    "number": st.integers(-50, 50) | st.sampled_from([0.5, -0.25]),
    "numbers": st.lists(st.integers(0, 9), min_size=2, max_size=2),
    "whole": st.integers(-50, 50) | st.booleans(),
}
ROWS = st.lists(st.sampled_from(sorted(VALUES)), unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: VALUES[name] for name in sorted(names)})
)


@settings(deadline=None)
@example([[], [{"number": 0, "truth": True}], [{"truth": True}]], 2)  # the lower process has only the second name
@given(st.lists(st.lists(ROWS, max_size=3), max_size=7), st.integers(2, 3))
def test_processes_together_record_what_one_would(batches: list[list[dict[str, Any]]], world_size: int) -> None:
    one = records_of(*(row for batch in batches for row in batch))

    def job(rank: int, records: Records) -> dict[str, Any]:
        for number, batch in enumerate(batches):
            if number % world_size == rank:
                records.position = number
                for row in batch:
                    records.add(row)
        records.gather()
        return plain(records.stacked())

    expected = plain(one.stacked())
    for found in in_processes(world_size, job):
        assert list(found.items()) == list(expected.items())


def test_many_values_of_one_batch_stay_in_their_order() -> None:
    def job(rank: int, records: Records) -> Any:
        for position in (rank, 2 + rank):
            records.position = position
            for number in range(100):
                records.add({"x": 1000 * position + number})
        records.gather()
        return plain(records.stacked())

    expected = {"x": ("int64", [1000 * position + number for position in range(4) for number in range(100)])}
    assert in_processes(2, job) == [expected, expected]


def test_the_state_of_several_processes_is_one_with_the_places_of_its_values() -> None:
    rows: dict[int, list[tuple[int, dict[str, Any]]]] = {
        0: [(0, {"loss": 1}), (2, {"loss": True, "pair": [1, 2]})],
        1: [(1, {"loss": np.float64(0.1), "pair": [0.5, 0.25]}), (3, {"once": True})],
    }

    def job(rank: int, records: Records) -> Any:
        for position, row in rows[rank]:
            records.position = position
            records.add(row)
        return comparable(records.state())

    expected = {
        "loss": state_of("F64", [], [0, 1, 2], [1.0, 0.1, 1.0]),
        "pair": state_of("F32", [2], [1, 2], [[0.5, 0.25], [1.0, 2.0]]),
        "once": state_of("BOOL", [], [3], [True]),
    }
    assert in_processes(2, job) == [comparable(expected)] * 2


def test_what_is_recorded_before_the_first_batch_comes_first() -> None:
    def job(rank: int, records: Records) -> Any:
        records.add({"x": rank})
        return records.state()["x"]["positions"]

    assert in_processes(2, job) == [[0, 0]] * 2


def test_a_state_of_one_process_comes_before_all_that_several_add() -> None:
    before = records_of({"x": 1}, {"x": 2}).state()

    def job(rank: int, records: Records) -> Any:
        records.load_state(before if rank == 0 else {})
        records.position = rank
        records.add({"x": 10 + rank})
        again = records.state()
        records.load_state(again if rank == 0 else {})
        records.position = 2 + rank
        records.add({"x": 10 + records.position})
        records.gather()
        return again["x"]["positions"], records.stacked()["x"].tolist()

    assert in_processes(2, job) == [([0, 0, 0, 1], [1, 2, 10, 11, 12, 13])] * 2

    def late(rank: int, records: Records) -> Any:
        records.load_state(before if rank == 0 else {})
        if rank == 1:  # at the place of the first batch
            records.add({"x": 3})
        records.gather()
        return records.stacked()["x"].tolist()

    assert in_processes(2, late) == [[1, 2, 3]] * 2


def test_a_name_without_values_is_no_obstacle() -> None:
    empty, one = state_of("I64", [], [], []), state_of("F32", [], [0], [0.5])
    merged = merge([{"none": empty, "some": empty}, {"first": one, "some": one}])
    assert list(merged) == ["none", "first", "some"]
    assert comparable(merged) == comparable({"none": empty, "first": one, "some": one})
    assert [type(position) for position in merged["some"]["positions"]] == [int]


def test_values_of_different_shapes_on_different_processes_are_refused() -> None:
    def job(rank: int, records: Records) -> None:
        records.add({"x": [0] * (rank + 1)})
        records.gather()

    with pytest.raises(ConfigError) as caught:
        in_processes(2, job)
    assert str(caught.value) == (
        "Record 'x' has values of the shapes [(1,), (2,)] on different processes. Record values of one shape under "
        "a name."
    )

"""Safetensors are written as the library reads them, and read as strictly as it reads them, each array by itself."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors.numpy import load, save

from dowdyboy_core._disk.safetensors import read, writer
from dowdyboy_core.backend.arrays import Array

TYPES = {
    "F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
    "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "?", "C64": "c8",
}  # fmt: skip
SHAPES = [(6,), (2, 3), (0, 3), (1, 6, 1)]
ARRAYS: dict[str, Any] = {
    name: np.arange(np.prod(SHAPES[number % 4])).astype(kind).reshape(SHAPES[number % 4])
    for number, (name, kind) in enumerate(TYPES.items())
}
ARRAYS["ä/0.weight"] = np.array(2.5, np.float32)


def plain(array: Any) -> Array:
    [name] = [name for name, kind in TYPES.items() if np.dtype(kind) == array.dtype]
    return Array(name, array.shape, np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def written(arrays: dict[str, Array]) -> bytes:
    return b"".join(bytes(piece) for piece in writer(arrays)())


def parse(content: bytes) -> dict[str, Array]:
    stream = io.BytesIO(content)

    def take(size: int) -> memoryview:
        assert size <= len(content) - stream.tell(), "there is not so much of it"
        return memoryview(stream.read(size))

    found = read(take, len(content))
    assert not stream.read(), "it has left something unread, which goes into the digest"
    return found


PLAIN = {name: plain(array) for name, array in ARRAYS.items()}
CONTENT = written(PLAIN)


def test_the_library_reads_what_is_written() -> None:
    found = load(written(PLAIN))
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("content", [CONTENT, save(ARRAYS, {"made by": "the library"})], ids=["ours", "library's"])
def test_what_is_written_is_read(content: bytes) -> None:
    found = parse(content)
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (found[name].dtype, found[name].shape) == plain(array)[:2]
        assert bytes(found[name].data) == array.tobytes()


def test_each_array_has_the_memory_that_was_taken_for_it() -> None:
    taken, stream = [], io.BytesIO(CONTENT)

    def take(size: int) -> memoryview:
        taken.append(memoryview(stream.read(size)))
        return taken[-1]

    found = list(read(take, len(CONTENT)).values())
    assert len(taken) == 2 + len(ARRAYS)
    assert all(array.data is memory for array, memory in zip(found, taken[2:], strict=True))


def test_each_array_lies_at_a_multiple_of_its_element() -> None:
    content = written(PLAIN)
    length = int.from_bytes(content[:8], "little")
    for name, entry in json.loads(content[8 : 8 + length]).items():
        assert entry["data_offsets"][0] % ARRAYS[name].itemsize == 0, name


@pytest.mark.parametrize("name", ["x" * length for length in range(8)])
def test_the_data_begin_at_a_multiple_of_the_widest_element(name: str) -> None:
    content = written({name: PLAIN["F64"]})
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    assert len(content) == 8 + length + ARRAYS["F64"].nbytes


def test_the_data_may_be_a_buffer_of_any_shape() -> None:
    arrays = {name: np.ones(shape, np.float32) for name, shape in {"a": (2, 3), "b": (0, 3), "c": ()}.items()}
    shaped = {name: Array("F32", array.shape, array) for name, array in arrays.items()}
    assert written(shaped) == written({name: plain(array) for name, array in arrays.items()})


def test_without_arrays() -> None:
    assert parse(written({})) == {}


def of_header(header: Any, data: bytes = bytes(8)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


DAMAGED = {
    "nothing": b"",
    "no header": b"\x01\x00\x00",
    "a header of no length": bytes(8),
    "a header without end": (2**63).to_bytes(8, "little") + b"{}",
    "a header that ends after the file": (11).to_bytes(8, "little") + b"{}",
    "no JSON": of_header(b"{'a': 1}"),
    "no text": of_header(b"\xff\xfe"),
    "nested": of_header(b'{"a":' * 100_000),
    "a list": of_header([]),
    "doubled": of_header(b'{"a": %s, "a": %s}' % ((json.dumps(entry()).encode(),) * 2)),
    "no entry": of_header({"a": 7}),
    "no type": of_header({"a": {"shape": [2], "data_offsets": [0, 8]}}),
    "another type": of_header({"a": entry(dtype="F31")}),
    "a type that is a list": of_header({"a": entry(dtype=[])}),
    "a shape that is a number": of_header({"a": entry(shape=2)}),
    "a negative axis": of_header({"a": entry(shape=[-1, -2])}),
    "an axis that is a bool": of_header({"a": entry("F64", [True])}),
    "an axis that is a float": of_header({"a": entry(shape=[2.0])}),
    "a huge shape": of_header({"a": entry(shape=[2**40], offsets=[0, 2**42])}),
    "a shape that takes hours": of_header({"a": entry("U8", [2**62] * 200_000 + [0], [0, 0])}, b""),
    "backwards": of_header({"a": entry(offsets=[8, 0])}),
    "too short": of_header({"a": entry(offsets=[0, 4])}, bytes(4)),
    "a gap": of_header({"a": entry(), "b": entry(offsets=[12, 20])}, bytes(20)),
    "an overlap": of_header({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12)),
    "twice the same": of_header({"a": entry(), "b": entry()}),
    "data missing": of_header({"a": entry()}, bytes(7)),
    "data left over": of_header({"a": entry()}, bytes(9)),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.timeout(10)
def test_what_is_none_is_refused(content: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        parse(content)


def test_arrays_may_stand_in_any_order_in_the_header() -> None:
    header = {"b": entry(offsets=[8, 16]), "none": entry(shape=[0], offsets=[8, 8]), "a": entry()}
    found = parse(of_header(header, bytes(range(16))))
    assert {name: bytes(array.data) for name, array in found.items()} == {
        "a": bytes(range(8)), "none": b"", "b": bytes(range(8, 16)),
    }  # fmt: skip


def test_arrays_have_at_most_as_many_axes_as_numpy_takes() -> None:
    assert parse(of_header({"a": entry("F64", [1] * 64)}))["a"].shape == (1,) * 64
    with pytest.raises(ValueError, match="of 'a'"):
        parse(of_header({"a": entry("F64", [1] * 65)}))


@given(place=st.integers(0, len(CONTENT) - 1), byte=st.integers(0, 255), end=st.integers(0, 40))
def test_what_the_library_refuses_is_refused(place: int, byte: int, end: int) -> None:
    content = bytearray(CONTENT)
    content[place] = byte
    content = content[: len(content) - end]
    try:
        ours = parse(bytes(content))
    except (ValueError, RecursionError):
        return
    try:
        theirs = dict(deserialize(bytes(content)))
    except SafetensorError:
        pytest.fail(f"the library refuses what is read here: {content!r:.2000}")
    assert {name: bytes(array.data) for name, array in ours.items()} == {
        name: bytes(value["data"]) for name, value in theirs.items()
    }

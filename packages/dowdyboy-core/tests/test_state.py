"""State as trees: what goes through JSON and arrays comes back equal, and nothing else is let through."""

from __future__ import annotations

import json
import math
from collections import Counter, OrderedDict, deque
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dowdyboy_core import CheckpointError
from dowdyboy_core.backend.arrays import Array, Member, from_numpy
from dowdyboy_core.backend.trees import (
    MAX_DEPTH,
    check_entries,
    check_groups,
    decode,
    describe_differences,
    encode,
    kind_of,
)

ARRAYS = st.builds(lambda data: Array("U8", (len(data),), data), st.binary(max_size=4))
KEYS = st.one_of(st.text(), st.text().map("$".__add__), st.integers(), st.none(), st.booleans())
KEYS = st.one_of(KEYS, st.tuples(st.integers(), st.text()))
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.floats(allow_nan=False))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
        st.dictionaries(st.sampled_from(["$array", "$tuple", "$dict", "$float"]), inner, max_size=1),
        st.dictionaries(st.one_of(st.text(), st.integers()), st.integers(), max_size=3).map(Counter),
    ),
    max_leaves=15,
)


def there_and_back(tree: Any) -> Any:
    value, arrays = encode(tree, "state")
    return decode(json.loads(json.dumps(value, allow_nan=False)), arrays)


def same(left: Any, right: Any) -> bool:
    """Equal, and of equal types all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        pairs = zip(left.items(), right.items(), strict=True) if len(left) == len(right) else None
        return pairs is not None and all(same(a, c) and same(b, d) for (a, b), (c, d) in pairs)
    if isinstance(left, (list, tuple)) and not isinstance(left, Array):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


@given(TREES)
def test_any_tree_comes_back(tree: Any) -> None:
    assert same(there_and_back(tree), tree)


@given(st.dictionaries(st.text(), ARRAYS, max_size=5), st.lists(ARRAYS, max_size=3))
def test_arrays_come_back(named: dict[str, Array], listed: list[Array]) -> None:
    tree = {"$named": named, 3: (listed, [{"x": listed}])}
    value, arrays = encode(tree, "state")
    assert len(arrays) == len(named) + 2 * len(listed)
    assert same(decode(json.loads(json.dumps(value)), arrays), tree)


def test_a_tree_that_is_one_array() -> None:
    array = Array("F32", (1,), b"\0\0\0\0")
    assert encode(array, "state") == ({"$array": "value"}, {"value": array})
    assert there_and_back(array) is array


def test_floats_that_json_lacks() -> None:
    back = there_and_back([math.inf, -math.inf, math.nan, -0.0, 5e-324])
    assert back[:2] == [math.inf, -math.inf]
    assert math.isnan(back[2])
    assert math.copysign(1, back[3]) == -1
    assert back[4] == 5e-324


def test_other_mappings_become_dicts_and_keys_of_numpy_plain() -> None:
    assert same(there_and_back(OrderedDict(b=0.1, a=3)), {"b": 0.1, "a": 3})
    assert same(there_and_back({np.int64(3): True}), {3: True})


def test_what_numpy_and_python_have_besides_comes_back_as_it_is() -> None:
    big = np.arange(6, dtype=">i4").reshape(2, 3).T
    back = there_and_back({"a": big, "n": np.float32(0.1), "d": deque([1, (2,)], 5), "s": {3, "x"}, "m": Member(1)})
    np.testing.assert_array_equal(back["a"], big)
    assert (type(back["n"]), back["n"], back["a"].flags.writeable) == (np.float32, np.float32(0.1), True)
    assert (back["d"], back["d"].maxlen, back["s"], back["m"]) == (deque([1, (2,)]), 5, {3, "x"}, Member(1))
    assert type(there_and_back(np.zeros((), np.uint16))) is np.ndarray


class Point(NamedTuple):
    x: int


class Text(str):
    pass


@pytest.mark.parametrize("value", [object(), bytearray(b"x"), np.array([object()]), Point(1), Text("x"), range(2)])
def test_what_is_not_plain_is_refused_with_its_path(value: Any) -> None:
    with pytest.raises(CheckpointError) as caught:
        encode({"groups": [{}, {"rate": value}]}, "optimizer_0")
    text = str(caught.value)
    assert text.startswith(f"optimizer_0: the value at groups/1/rate is a {type(value).__name__} (")
    assert "without pickle" in text


@pytest.mark.parametrize(
    ("tree", "path"),
    [
        (range(2), "the top"),
        (([], range(2)), "1"),
        ({"a": range(2)}, "a"),
        ({3: [range(2)]}, "3/0"),
        ({"$a": range(2)}, "$a"),
        ({(1, range(2)): 2}, "key/1"),
    ],
)
def test_the_path_is_said_wherever_it_lies(tree: Any, path: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        encode(tree, "optimizer_0")
    assert str(caught.value) == (
        f"optimizer_0: the value at {path} is a range (range(0, 2)), which can't be stored without pickle. Keep "
        "state in numbers, strings, lists, dicts and tensors."
    )


def test_what_json_can_say_is_stored_as_it_is() -> None:
    tree = {"a": [1, None, {"b": "text"}], "c": {}}
    assert encode(tree, "state") == (tree, {})


def test_an_array_may_be_a_key() -> None:
    tree = {Array("U8", (1,), b"x"): 1}
    value, arrays = encode(tree, "state")
    assert arrays.keys() == {"key"}
    assert same(decode(value, arrays), tree)


def test_two_arrays_under_one_name_are_refused() -> None:
    array = Array("U8", (0,), b"")
    with pytest.raises(CheckpointError, match="two arrays would be stored under 'a/b'"):
        encode({"a": {"b": array}, "a/b": array}, "state")


def nested(levels: int, wrap: Any) -> Any:
    tree: Any = 1
    for _ in range(levels):
        tree = wrap(tree)
    return tree


@pytest.mark.parametrize(
    "wrap",
    [lambda x: [x], lambda x: (x,), lambda x: {"a": x}, lambda x: {3: x}],
    ids=["list", "tuple", "dict", "int keys"],
)
def test_what_can_be_written_can_be_read(wrap: Any) -> None:
    deepest = nested(MAX_DEPTH, wrap)
    assert same(there_and_back(deepest), deepest)
    with pytest.raises(CheckpointError, match=f"nested more than {MAX_DEPTH} deep"):
        encode(nested(MAX_DEPTH + 1, wrap), "state")


@pytest.mark.parametrize("wrap", [lambda x: [x], lambda x: {"a": x}], ids=["list", "dict"])
def test_json_may_be_three_times_as_deep_and_no_deeper(wrap: Any) -> None:
    deepest = nested(3 * (MAX_DEPTH + 1), wrap)
    assert decode(deepest, {}) == deepest
    with pytest.raises(CheckpointError, match=f"nested more than {MAX_DEPTH} deep"):
        decode(wrap(deepest), {})


def test_of_what_is_too_deep_the_beginning_is_said() -> None:
    with pytest.raises(CheckpointError) as caught:
        encode(nested(MAX_DEPTH + 1, lambda x: {"a": x}), "scaler")
    assert str(caught.value) == (
        f"scaler: the value at a/a/a/a/… is nested more than {MAX_DEPTH} deep. Keep state flatter."
    )


def test_a_tree_inside_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(CheckpointError, match="deep"):
        encode(loop, "state")


HOSTILE = [
    {"$array": "missing"},
    {"$array": 3},
    {"$array": ["value"]},
    {"$float": "1e9"},
    {"$float": 3},
    {"$tuple": 3},
    {"$tuple": {"a": 1}},
    {"$dict": [1]},
    {"$dict": [[1]]},
    {"$dict": [[1, 2, 3]]},
    {"$dict": [[[], 1]]},
    {"$dict": [[{"$dict": []}, 1]]},
    {"$dict": [{"$tuple": [1, 2]}]},
    {"$counter": [[[1], 1]]},
    {"$counter": "abc"},
    {"$object": "os.system"},
    {"$": []},
    nested(1000, lambda x: [x]),
    nested(1000, lambda x: {"$tuple": [x]}),
    nested(1000, lambda x: {"a": x}),
]


@pytest.mark.parametrize("value", HOSTILE, ids=map(str, range(len(HOSTILE))))
def test_what_encode_never_writes_is_refused(value: Any) -> None:
    for wrapped in (value, [value], {"a": value}):
        with pytest.raises(CheckpointError):
            decode(wrapped, {})


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["$array", "$tuple", "$float", "$dict", "$counter", "$x", "a"]), inner, max_size=2
        ),
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_is_decoded_or_refused(value: Any) -> None:
    try:
        back = decode(value, {})
    except CheckpointError:
        return
    encode(back, "state")  # nothing but plain values


def test_differences_are_listed_in_full() -> None:
    stored = {
        "a": Array("F32", (2,), b""), "b": Array("F32", (2,), b""), "c": Array("F32", (2,), b""),
        "same": Array("U8", (), b""),
    }  # fmt: skip
    wanted = {
        "b": Array("F32", (3,), b""), "c": Array("BF16", (2,), b""), "d": Array("F32", (), b""),
        "same": Array("U8", (), b""),
    }  # fmt: skip
    assert describe_differences(stored, wanted) == [
        "missing: d",
        "not in the model: a",
        "shape of b: stored (2,), wanted (3,)",
        "type of c: stored F32, wanted BF16",
    ]
    assert describe_differences(wanted, wanted) == []


def test_groups() -> None:
    check_groups([["a", "b"], []], [["b", "a"], []])
    with pytest.raises(CheckpointError, match="saved with 1 parameter groups and now has 2"):
        check_groups([["a"]], [["a"], []])
    with pytest.raises(CheckpointError) as caught:
        check_groups([["a"], ["x"]], [["b"], ["x"]])
    assert str(caught.value).endswith("group 0: missing: b\n  group 0: not in the optimizer: a")


def test_kinds_are_as_coarse_as_a_state_may_change() -> None:
    numbers = [True, 1, 1.5, Array("F32", (), b""), np.float32(1), np.zeros(2)]
    assert {kind_of(value) for value in numbers} == {"number"}
    assert [kind_of(value) for value in ("x", [1], (1,), {}, None)] == ["text", "list", "list", "dict", None]


def test_entries_of_the_same_kinds_fit() -> None:
    stored = {"rate": 1, "mode": "min", "best": None, "steps": [1], "more": {}}
    check_entries("scheduler", stored, {"rate": 0.5, "mode": None, "best": 3.0, "steps": (), "more": Counter()})


def test_entries_that_differ_are_listed_in_full() -> None:
    stored = {"rate": 1, "mode": "min", "steps": [1], "old": None}
    wanted = {"rate": "fast", "mode": "max", "steps": {}, "new": 1}
    with pytest.raises(CheckpointError) as caught:
        check_entries("scheduler", stored, wanted)
    text = str(caught.value)
    assert text.startswith("The scheduler is not the one that was saved.")
    assert text.splitlines()[1:] == [
        "  kind of rate: stored a number, wanted a text",
        "  kind of steps: stored a list, wanted a dict",
        "  missing: new",
        "  not in the scheduler: old",
    ]
    with pytest.raises(CheckpointError, match=r"^The state of the scheduler is a list\."):
        check_entries("scheduler", [], wanted)


def indices(*rows: list[int]) -> Array:
    return from_numpy(np.array(rows, np.int64))  # type: ignore[return-value]


VALUES = from_numpy(np.ones(2, np.float32))
ROWS = indices([0, 1, 2, 2])._replace(shape=(4,))
PLACES = indices([0, 2])._replace(shape=(2,))


def test_sparse_arrays_come_back() -> None:
    for layout, parts in (
        ("coo", {"indices": indices([0, 2], [1, 0]), "values": VALUES}),
        ("csr", {"crow": ROWS, "col": PLACES, "values": VALUES}),
    ):
        array = Array("F32", (3, 3), b"", layout, parts)
        value, arrays = encode({"a": array}, "state")
        assert decode(value, arrays)["a"] == array._replace(parts=decode(value, arrays)["a"].parts)
        assert {name: part.shape for name, part in decode(value, arrays)["a"].parts.items()} == {
            name: part.shape
            for name, part in parts.items()  # type: ignore[union-attr]
        }


@pytest.mark.parametrize(
    "content",
    [
        ["coo", [3, 3], indices([0, 3], [1, 0]), VALUES],  # leads out of it
        ["coo", [3, 3], indices([0, -1], [1, 0]), VALUES],
        ["coo", [3, 3], indices([0, 1, 2], [1, 0, 0]), VALUES],
        ["coo", [3], indices([0, 2], [1, 0]), VALUES],
        ["coo", [3, -3], indices([0, 2], [1, 0]), VALUES],
        ["coo", [3, 3], VALUES, VALUES],
        ["coo", [3, 3], indices([0, 2], [1, 0])],
        ["coo", 9, indices([0, 2], [1, 0]), VALUES],
        ["dia", [3, 3], indices([0, 2], [1, 0]), VALUES],
        [["coo"], [3, 3], indices([0, 2], [1, 0]), VALUES],
        ["csr", [3, 3], ROWS, indices([0, 3])._replace(shape=(2,)), VALUES],
        ["csr", [3, 3], indices([0, 2, 1, 2])._replace(shape=(4,)), PLACES, VALUES],
        ["csr", [3, 3], indices([0, 1, 2, 9])._replace(shape=(4,)), PLACES, VALUES],
        ["csr", [4, 3], ROWS, PLACES, VALUES],
        [],
    ],
)
def test_sparse_arrays_that_lead_elsewhere_are_refused(content: list[Any]) -> None:
    arrays = {str(place): item for place, item in enumerate(content) if isinstance(item, Array)}
    value = [{"$array": str(place)} if str(place) in arrays else item for place, item in enumerate(content)]
    with pytest.raises(CheckpointError, match=r"\$sparse"):
        decode({"$sparse": value}, arrays)


@pytest.mark.parametrize(
    "value", [{"$bytes": "?"}, {"$bytes": 1}, {"$complex": ["C128", 1]}, {"$complex": [1.0]}, {"$numpy": {}}]
)
def test_odd_values_are_refused(value: Any) -> None:
    with pytest.raises(CheckpointError):
        decode(value, {})

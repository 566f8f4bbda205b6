"""map_leaves: any nesting comes back as it was, with its leaves replaced."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, UserDict, defaultdict
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dowdyboy_core.backend.nested import map_leaves


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclasses.dataclass
class Box:
    content: Any
    label: str = "label"


LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.binary())
NESTINGS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.one_of(st.text(), st.integers()), inner, max_size=4),
        st.builds(Pair, inner, inner),
        st.builds(Box, inner),
    ),
    max_leaves=12,
)


@given(NESTINGS)
def test_any_nesting_round_trips(value: Any) -> None:
    seen = []

    def wrap(leaf: Any) -> Any:
        seen.append(leaf)
        return {"leaf": leaf}.__getitem__  # callable: a leaf again, and equal to nothing

    wrapped = map_leaves(wrap, value)
    assert map_leaves(lambda leaf: leaf("leaf") if callable(leaf) else leaf, wrapped) == value
    order: list[Any] = []
    map_leaves(order.append, value)
    assert order == seen


def test_the_original_is_not_touched() -> None:
    value = {"a": [1, (2, Box(3))], "b": OrderedDict(x=1)}
    mapped = map_leaves(str, value)
    assert mapped == {"a": ["1", ("2", Box("3"))], "b": OrderedDict(x="1")}
    assert value == {"a": [1, (2, Box(3))], "b": OrderedDict(x=1)}


def test_a_namedtuple_keeps_its_type() -> None:
    mapped = map_leaves(str, Pair(1, Pair(2, 3)))
    assert mapped == Pair("1", Pair("2", "3"))
    assert type(mapped) is type(mapped.second) is Pair


@dataclasses.dataclass(frozen=True)
class Frozen:
    content: int
    derived: int = dataclasses.field(init=False, default=7)

    def __post_init__(self) -> None:
        assert isinstance(self.content, int), "must not run again"


@dataclasses.dataclass(slots=True)
class Slotted:
    content: Any


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenSlotted:
    content: Any


@dataclasses.dataclass(kw_only=True)
class Child(Box):
    extra: Any = None


def test_dataclasses() -> None:
    frozen = map_leaves(str, Frozen(1))
    assert (type(frozen), frozen.content, frozen.derived) == (Frozen, "1", "7")
    assert map_leaves(str, Slotted([1])) == Slotted(["1"])
    assert map_leaves(str, FrozenSlotted([1])) == FrozenSlotted(["1"])
    assert map_leaves(str, Child(content=1, extra=(2,))) == Child(content="1", label="label", extra=("2",))
    with_attribute = Box(1)
    with_attribute.more = [1]  # type: ignore[attr-defined]
    assert map_leaves(str, with_attribute).more == [1]
    assert map_leaves(lambda leaf: leaf, Box) is Box, "the class itself is a leaf"


class Tagged(dict):
    tag = "none"


class Wrapped(UserDict):
    pass


class Several(list):
    pass


class Fixed(tuple):
    pass


def test_mappings_and_sequences_of_other_types() -> None:
    counted = defaultdict(list, a=1)
    mapped = map_leaves(str, counted)
    assert (type(mapped), mapped, mapped.default_factory) == (defaultdict, {"a": "1"}, list)
    assert mapped["new"] == []
    assert "new" not in counted

    ordered = map_leaves(str, OrderedDict([("b", 1), ("a", 2)]))
    assert (type(ordered), list(ordered.items())) == (OrderedDict, [("b", "1"), ("a", "2")])

    tagged = Tagged(a=1)
    tagged.tag = "mine"
    mapped = map_leaves(str, tagged)
    assert (type(mapped), mapped, mapped.tag) == (Tagged, {"a": "1"}, "mine")

    wrapped = Wrapped(a=1)
    assert map_leaves(str, wrapped) == Wrapped(a="1")
    assert wrapped == Wrapped(a=1)
    proxy = map_leaves(str, MappingProxyType({"a": 1}))
    assert (type(proxy), dict(proxy)) == (MappingProxyType, {"a": "1"})

    several, fixed = map_leaves(str, Several([1, 2])), map_leaves(str, Fixed([1, 2]))
    assert (type(several), several) == (Several, ["1", "2"])
    assert (type(fixed), fixed) == (Fixed, ("1", "2"))


class Node:
    """What has fields, and is no tuple, as the nodes of :mod:`ast`."""

    _fields = ("name",)


@pytest.mark.parametrize("leaf", ["text", b"bytes", bytearray(b"x"), {1, 2}, range(3), object(), None, print, Node()])
def test_leaves(leaf: Any) -> None:
    seen: list[Any] = []
    map_leaves(seen.append, leaf)
    assert len(seen) == 1
    assert seen[0] is leaf

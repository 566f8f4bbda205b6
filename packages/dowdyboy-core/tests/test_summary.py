"""Walking over a model, picking parameters and laying out the table, on modules that have names and shapes only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from dowdyboy_core import ConfigError
from dowdyboy_core._utilities import summaries as _summary


class Tensor:
    """A shape, and how many bytes each number takes."""

    def __init__(self, *shape: int, size: int = 4, frozen: bool = False) -> None:
        self.shape = shape
        self.size = size
        self.frozen = frozen

    def element_size(self) -> int:
        return self.size


class Module:
    """Keeps its children as torch does; what one parent holds twice is named once."""

    kept_in = "_modules"

    def __init__(
        self,
        children: Mapping[str, Module | None] = MappingProxyType({}),
        own: Mapping[str, Tensor] = MappingProxyType({}),
        buffers: Sequence[Tensor] = (),
    ) -> None:
        vars(self)[self.kept_in] = dict(children)
        self.own = own
        self.own_buffers = buffers

    def named_children(self) -> Iterator[tuple[str, Module]]:
        seen: set[int] = set()
        for name, child in vars(self)[self.kept_in].items():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                yield name, child

    def below(self) -> Iterator[Module]:
        yield self
        for _, child in self.named_children():
            yield from child.below()

    def parameters(self) -> Iterator[Tensor]:
        for module in self.below():
            yield from module.own.values()

    def buffers(self) -> Iterator[Tensor]:
        for module in self.below():
            yield from module.own_buffers


class Linear(Module):
    """A leaf."""


class Layer(Module):
    """Keeps its children as paddle does."""

    kept_in = "_sub_layers"


class Other(Module):
    """Keeps its children where nobody would look for them."""

    kept_in = "_kept"


def own(module: Module) -> list[tuple[str, Tensor]]:
    return list(module.own.items())


def is_trainable(item: Tensor) -> bool:
    return not item.frozen


# ---- walking


@pytest.mark.parametrize("kind", [Module, Layer])
def test_every_module_comes_with_each_of_its_paths(kind: type[Module]) -> None:
    leaf, twice = kind(), kind()
    block = kind({"first": leaf, "none": None, "second": twice})
    model = kind({"block": block, "one": twice, "two": twice})
    assert list(_summary.walk(model)) == [
        ("", model),
        ("block", block),
        ("block.first", leaf),
        ("block.second", twice),
        ("one", twice),
        ("two", twice),
    ]


def test_a_module_that_keeps_its_children_elsewhere_names_them() -> None:
    leaf = Other()
    block = Other({"leaf": leaf})
    model = Other({"block": block})
    assert list(_summary.walk(model)) == [("", model), ("block", block), ("block.leaf", leaf)]


def test_an_object_stands_at_its_first_place() -> None:
    one, other = object(), object()
    assert list(_summary.first_places([("b", one), ("a", other), ("c", one)]).items()) == [("b", one), ("a", other)]


def test_parameters_come_with_each_of_their_paths() -> None:
    weight, bias, shared = Tensor(2), Tensor(3), Tensor(4)
    inner = Linear(own={"weight": weight, "bias": bias})
    model = Module({"a": Module({"inner": inner}), "b": Linear(own={"tied": shared})}, own={"top": shared})
    assert _summary.parameters(model, own) == [
        ("top", shared),
        ("a.inner.weight", weight),
        ("a.inner.bias", bias),
        ("b.tied", shared),
    ]


def test_elements_are_counted() -> None:
    assert _summary.count_elements([Tensor(2, 3), Tensor(5), Tensor(), Tensor(4, 0)]) == 6 + 5 + 1
    assert _summary.count_elements([]) == 0


# ---- picking

HEAD = Tensor(1)
FIRST, SECOND, BIAS, TIED = Tensor(2), Tensor(3), Tensor(4), Tensor(5)
NAMED = [
    ("features.0.weight", FIRST),
    ("features.0.bias", BIAS),
    ("features.1.weight", SECOND),
    ("features.1.tied", TIED),
    ("head", HEAD),
    ("again.tied", TIED),
]


@pytest.mark.parametrize(
    ("patterns", "picked"),
    [
        ([], ["features.0.weight", "features.0.bias", "features.1.weight", "features.1.tied", "head"]),
        (["*"], ["features.0.weight", "features.0.bias", "features.1.weight", "features.1.tied", "head"]),
        (["features"], ["features.0.weight", "features.0.bias", "features.1.weight", "features.1.tied"]),
        (["features.1"], ["features.1.weight", "features.1.tied"]),
        (["*.weight"], ["features.0.weight", "features.1.weight"]),
        (["head", "features.0.bias"], ["features.0.bias", "head"]),
        (["*.[01].weight", "features.0"], ["features.0.weight", "features.0.bias", "features.1.weight"]),
        (["again"], ["features.1.tied"]),
        (["again.tied", "features.1.tied"], ["features.1.tied"]),
    ],
)
def test_patterns_pick_by_any_path_and_name_by_the_first(patterns: list[str], picked: list[str]) -> None:
    named = dict(NAMED)
    assert list(_summary.select(NAMED, patterns).items()) == [(path, named[path]) for path in picked]


TOLD = "Give the path of a parameter or of a module, or a glob such as 'features.*.bias'."


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        # The nearest three of more; and one of which hardly more than half is the same.
        ("feature.0.weights", "Near it are 'features.0.weight', 'features.1.weight', 'features.0.bias'"),
        ("hdea...", "Near it are 'head'"),
        ("HEAD", "There are 'features', 'head', 'again'"),
        ("", "There are 'features', 'head', 'again'"),
    ],
)
def test_a_pattern_that_picks_nothing_is_told_what_is_near(pattern: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _summary.select(NAMED, ["head", pattern])
    assert str(caught.value) == f"The pattern {pattern!r} matches no parameter of the model. {said}. {TOLD}"


def test_without_anything_near_the_first_five_parts_are_named() -> None:
    named = [(f"{name}.weight", Tensor()) for name in "abcdef"]
    with pytest.raises(ConfigError, match=r"model\. There are 'a', 'b', 'c', 'd', 'e'\. Give"):
        _summary.select(named, ["0123456789"])
    with pytest.raises(ConfigError, match=r"model\. It has none\. Give"):
        _summary.select([], ["a"])


def test_a_pattern_is_a_text() -> None:
    with pytest.raises(ConfigError) as caught:
        _summary.select(NAMED, ["head", ["x" * 100]])  # type: ignore[list-item]
    told = "['" + "x" * 78
    assert str(caught.value) == (
        f"The pattern {told} is no text. Give patterns one by one, as in freeze(model, 'a', 'b')."
    )


# ---- inputs and running


class Made:
    """What is made of a shape."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        assert type(shape) is tuple
        assert all(type(size) is int for size in shape)
        self.shape = shape


GIVEN, GIVEN_TOO = Tensor(2), Tensor(3)


def is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (GIVEN, [GIVEN]),
        ((1, 3, 32), ["made (1, 3, 32)"]),
        ([2, 4], ["made (2, 4)"]),
        ((np.int64(2), np.int32(4)), ["made (2, 4)"]),
        ([(1, 2)], ["made (1, 2)"]),
        ([GIVEN], [GIVEN]),
        ((GIVEN, [5], GIVEN_TOO, (6, 7)), [GIVEN, "made (5,)", GIVEN_TOO, "made (6, 7)"]),
    ],
)
def test_inputs_are_made_of_shapes_and_tensors_stay(given: Any, expected: list[Any]) -> None:
    found = _summary.read_inputs(given, is_tensor, Made)
    assert type(found) is tuple
    assert [f"made {item.shape}" if isinstance(item, Made) else item for item in found] == expected


@pytest.mark.parametrize(
    "given",
    [None, 5, "ab", (), [], {}, (0, 3), (3, -1), (True, 3), (2.5, 3), [(1, 2), ()], [GIVEN, "a"], [GIVEN, None], [[]]],
)
def test_what_is_no_input_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        _summary.read_inputs(given, is_tensor, Made)
    assert str(caught.value) == (
        f"input_size={given!r:.100} is no input. Give a shape with the batch axis such as (1, 3, 32, 32), a "
        "tensor, or for a model with several inputs a list of these."
    )


def test_a_model_runs_on_its_inputs() -> None:
    calls: list[tuple[Any, ...]] = []
    _summary.run(lambda *inputs: calls.append(inputs), [GIVEN, GIVEN_TOO])
    assert calls == [(GIVEN, GIVEN_TOO)]


def test_a_model_that_fails_is_told_of_with_its_inputs() -> None:
    def forward(*inputs: Any) -> None:
        raise KeyError("mask")

    with pytest.raises(ConfigError) as caught:
        _summary.run(forward, [Tensor(2, 3), Tensor(4)])
    assert str(caught.value) == (
        "The model can't run on input of shape (2, 3), (4,): KeyError: 'mask'. Give input_size as its forward takes "
        "it, with the batch axis, or give tensors."
    )
    assert isinstance(caught.value.__cause__, KeyError)


# ---- the table


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        (Tensor(2, 3), "(2, 3)"),
        (np.zeros((4, 1)), "(4, 1)"),
        ((Tensor(2), [Tensor(), None]), "[(2,), [(), None]]"),
        (MappingProxyType({"a": (Tensor(1),), 2: None}), "{a: [(1,)], 2: None}"),
        (3.5, "float"),
        ("text", "str"),
    ],
)
def test_outputs_are_described_as_they_are_nested(output: Any, shown: str) -> None:
    assert _summary.describe_shape(output) == shown
    shapes = {"a": "of another module", "b": "of an earlier call"}
    _summary.shape_hook(shapes, "b")(Module(), (Tensor(9),), output)
    assert shapes == {"a": "of another module", "b": shown}


def tied() -> Module:
    """Two layers with one weight, another between them, and one that stands in two places."""
    weight = Tensor(30, 50)
    block = Linear(own={"weight": Tensor(7, frozen=True), "bias": Tensor(4)}, buffers=[Tensor(3, size=8)])
    return Module(
        {
            "embed": Linear(own={"weight": weight}),
            "blocks": Module({"0": block, "1": block}),
            "out": Linear(own={"weight": weight, "bias": Tensor(2)}),
        },
        own={"scale": Tensor(frozen=True)},
    )


def test_the_table_without_shapes() -> None:
    assert _summary.table(tied(), own, is_trainable, None).splitlines() == [
        "path      type    params",
        "--------  ------  ------",
        "(model)   Module       1",
        "embed     Linear   1,500",
        "blocks    Module       0",
        "blocks.0  Linear      11",
        "out       Linear       2",
        "--------  ------  ------",
        "params: 1,514, of which trainable: 1,506",
        "size: 0.006 MB of parameters and buffers (1 MB = 10**6 bytes)",
    ]


def test_the_table_with_shapes() -> None:
    shapes = {"": "(2, 3)", "embed": "[(1, 2), None, {}]", "out": "(2, 3)"}
    assert _summary.table(tied(), own, is_trainable, shapes).splitlines() == [
        "path      type    output shape        params",
        "--------  ------  ------------------  ------",
        "(model)   Module  (2, 3)                   1",
        "embed     Linear  [(1, 2), None, {}]   1,500",
        "blocks    Module  -                        0",
        "blocks.0  Linear  -                       11",
        "out       Linear  (2, 3)                   2",
        "--------  ------  ------------------  ------",
        "params: 1,514, of which trainable: 1,506",
        "size: 0.006 MB of parameters and buffers (1 MB = 10**6 bytes)",
    ]


def test_the_table_where_nothing_was_called() -> None:
    assert _summary.table(Linear(), own, is_trainable, {}).splitlines() == [
        "path     type    output shape  params",
        "-------  ------  ------------  ------",
        "(model)  Linear  -                  0",
        "-------  ------  ------------  ------",
        "params: 0, of which trainable: 0",
        "size: 0.000 MB of parameters and buffers (1 MB = 10**6 bytes)",
    ]


def test_the_size_is_that_of_all_numbers_by_their_own_width() -> None:
    model = Module({"a": Linear(own={"w": Tensor(10**6, 500, size=2)}, buffers=[Tensor(3000, size=8)])})
    assert _summary.table(model, own, is_trainable, None).splitlines()[-2:] == [
        "params: 500,000,000, of which trainable: 500,000,000",
        "size: 1,000.024 MB of parameters and buffers (1 MB = 10**6 bytes)",
    ]

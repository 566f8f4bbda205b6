"""Counting multiply-accumulates, on modules that multiply nothing and tell how often they would."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from dowdyboy_core._utilities import flops as _flops
from dowdyboy_core._utilities.flops import FlopCount, Tally, Uncounted


class Tensor:
    """Of which nothing is read but its shape."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape


class Machine:
    """Does matrix products, which it counts; it has done some before."""

    products = 5

    def multiply(self, value: Any) -> Any:
        self.products += 1
        return value


MACHINE = Machine()
X = Tensor(2, 3)


class Module:
    """Calls its hooks around its forward, as modules of the frameworks do."""

    def __init__(self, children: Mapping[str, Module] = MappingProxyType({}), weights: int = 0) -> None:
        self._modules = dict(children)
        self.weights = weights
        self.tally: Tally | None = None

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        assert self.tally is not None
        self.tally.enter(self, inputs)
        output = self.forward(*inputs, **named)
        self.tally.leave(self, inputs, output)
        return output

    def named_children(self) -> Iterator[tuple[str, Module]]:
        yield from self._modules.items()

    def forward(self, value: Any) -> Any:
        for child in self._modules.values():
            value = child(value)
        return value


class Layer(Module):
    """One product, by a rule worth 10 for each number on the first axis of the input."""

    def forward(self, value: Any) -> Any:
        return MACHINE.multiply(value)


class Derived(Layer):
    """A layer that does the same."""


class Bilinear(Layer):
    """A layer with a rule of its own."""


class Low(Layer):
    """A layer that does more."""

    def forward(self, value: Any) -> Any:
        return MACHINE.multiply(super().forward(value))


class Attention(Module):
    """Multiplies by what stands in it, called or not, and has a rule for all of that."""

    def forward(self, value: Any) -> Any:
        return MACHINE.multiply(super().forward(value))


class Scores(Module):
    """A product of its own beside those of the modules in it."""

    def forward(self, value: Any) -> Any:
        return MACHINE.multiply(super().forward(value))


class Unused(Module):
    """Never calls what stands in it."""

    def forward(self, value: Any) -> Any:
        return value


def layer_rule(module: Any, inputs: tuple[Any, ...], output: Any) -> int | None:
    """Ten for each number on the first axis; None if there is none."""
    assert isinstance(module, Layer)
    assert inputs[0] is output
    return 10 * int(inputs[0].shape[0]) if inputs[0].shape else None


RULES: dict[type, _flops.Rule] = {
    Layer: layer_rule,
    Bilinear: lambda module, inputs, output: 7,
    Attention: lambda module, inputs, output: 1000,
}


def tally_of(model: Module) -> Tally:
    tally = Tally(model, RULES, lambda module: module.weights > 0, lambda: MACHINE.products)
    set_tally(model, tally)
    return tally


def set_tally(module: Module, tally: Tally) -> None:
    module.tally = tally
    for child in module._modules.values():
        set_tally(child, tally)


def count(model: Module, value: Any = X, params: int = 0) -> FlopCount:
    tally = tally_of(model)
    model(value)
    return tally.result(params)


def layer() -> Layer:
    return Layer(weights=4)


# ---- what is counted


def test_an_operation_is_half_a_multiply_accumulate() -> None:
    assert FlopCount(macs=21, params=3).flops == 42
    assert FlopCount(macs=21, params=3).uncounted == ()


def test_each_call_is_counted_by_the_rule_of_its_class() -> None:
    model = Module({"a": layer(), "b": Module({"c": Derived(weights=4), "d": Module()}), "e": Bilinear(weights=1)})
    assert count(model, params=9) == FlopCount(macs=20 + 20 + 7, params=9)
    assert count(model, Tensor(3), params=9) == FlopCount(macs=30 + 30 + 7, params=9)


def test_what_is_called_twice_counts_twice_and_is_named_at_its_first_place() -> None:
    again, unknown = layer(), Module(weights=1)
    model = Module({"a": again, "b": Module({"c": again, "d": unknown}), "e": unknown})
    assert count(model) == FlopCount(
        macs=40, params=0, uncounted=(Uncounted("b.d", "Module", "no rule for its parameters"),)
    )


def test_the_count_goes_on_with_each_run() -> None:
    model = Module({"a": layer()})
    tally = tally_of(model)
    assert tally.result(1) == FlopCount(
        macs=0, params=1, uncounted=(Uncounted("a", "Layer", "its forward is not called"),)
    )
    tally = tally_of(model)
    model(X)
    model(X)
    assert tally.result(1) == FlopCount(macs=40, params=1)


def test_a_model_may_be_one_layer() -> None:
    assert count(layer()) == FlopCount(macs=20, params=0)
    assert count(Low(weights=4)).uncounted == (Uncounted("", "Low", "no rule for its parameters"),)


def test_a_rule_covers_what_stands_in_its_module() -> None:
    inner = Module({"deep": layer(), "own": Scores({"low": Low(weights=1)}), "plain": Module(weights=1)})
    called = Attention({"inner": inner, "unused": Unused({"out": layer()})})
    assert count(Module({"first": called, "second": Attention({"out": layer()}), "third": layer()})) == FlopCount(
        macs=1000 + 1000 + 20, params=0
    )


def test_a_hook_that_is_called_once_more_changes_nothing() -> None:
    inner = layer()
    model = Module({"a": inner, "b": layer()})
    tally = tally_of(model)
    tally.enter(model, (X,))
    for module in (inner, model._modules["b"]):
        tally.enter(module, (X,))
        MACHINE.multiply(X)
        tally.leave(module, (X,), X)
        tally.leave(module, (X,), X)
    tally.leave(model, (X,), X)
    tally.leave(model, (X,), X)
    assert tally.result(0) == FlopCount(macs=40, params=0)


def test_a_module_that_calls_one_that_fails_and_goes_on_is_left() -> None:
    class Fails(Module):
        def forward(self, value: Any) -> Any:
            raise ValueError

    class Tries(Module):
        def forward(self, value: Any) -> Any:
            with contextlib.suppress(ValueError):
                self._modules["fails"](value)
            return value

    assert count(Module({"tries": Tries({"fails": Fails()}), "a": layer()})) == FlopCount(macs=20, params=0)


def test_a_forward_that_was_put_into_the_module_itself_is_that_of_its_class() -> None:
    counted, other = layer(), layer()
    vars(counted)["forward"] = counted.forward
    vars(other)["forward"] = counted.forward
    assert count(Module({"a": counted})) == FlopCount(macs=20, params=0)
    assert [item.path for item in count(Module({"a": other})).uncounted] == ["a"]


# ---- what can't be counted


def test_what_cannot_be_counted_is_listed_in_the_order_of_the_model() -> None:
    model = Module(
        {
            "scores": Scores({"query": layer(), "key": layer(), "deep": Module({"x": layer(), "y": layer()})}),
            "scale": Module(weights=1),
            "functional": Scores({}, weights=0),
            "unused": Unused({"held": layer(), "plain": Module(), "low": Low(weights=1)}),
            "low": Low(weights=4),
            "again": Module({"scores": Scores({"query": layer()})}),
        }
    )
    assert count(model) == FlopCount(
        macs=5 * 20,
        params=0,
        uncounted=(
            Uncounted("scores", "Scores", "computes in its own forward"),
            Uncounted("scale", "Module", "no rule for its parameters"),
            Uncounted("functional", "Scores", "computes in its own forward"),
            Uncounted("unused.held", "Layer", "its forward is not called"),
            Uncounted("unused.low", "Low", "its forward is not called"),
            Uncounted("low", "Low", "no rule for its parameters"),
            Uncounted("again.scores", "Scores", "computes in its own forward"),
        ),
    )


def test_a_layer_whose_forward_was_replaced_has_no_rule() -> None:
    changed = layer()
    vars(changed)["forward"] = MACHINE.multiply
    assert count(Module({"a": changed, "b": layer()})) == FlopCount(
        macs=20, params=0, uncounted=(Uncounted("a", "Layer", "no rule for its parameters"),)
    )


def test_a_use_that_its_rule_cannot_count_is_listed_without_what_stands_in_it() -> None:
    inside = Layer({"held": layer()}, weights=4)
    assert count(Module({"a": inside}), Tensor()) == FlopCount(
        macs=0, params=0, uncounted=(Uncounted("a", "Layer", "its rule can't count this use"),)
    )


def test_inputs_by_keyword_cannot_be_counted() -> None:
    class ByKeyword(Module):
        def forward(self, value: Any) -> Any:
            return self._modules["a"](value=value)

    assert count(ByKeyword({"a": layer()})) == FlopCount(
        macs=0, params=0, uncounted=(Uncounted("a", "Layer", "its rule can't count this use"),)
    )


# ---- the rules


def weighted(*shape: int) -> Any:
    return SimpleNamespace(weight=Tensor(*shape))


INPUTS = (Tensor(2, 3, 5), Tensor(7, 11, 13))
OUTPUT = Tensor(2, 17, 19)
MATRICES = [Tensor(12, 5), Tensor(12), Tensor(12, 3), Tensor(1, 1, 12)]


@pytest.mark.parametrize(
    ("rule", "module", "macs"),
    [
        (_flops.free, weighted(4, 4), 0),
        (_flops.linear, weighted(9, 5), 2 * 3 * 9 * 5),
        (_flops.convolution, weighted(17, 3, 4), 2 * 17 * 19 * 3 * 4),
        (_flops.transposed_convolution, weighted(3, 6, 4), 2 * 3 * 5 * 6 * 4),
        (_flops.normalization, weighted(3), 2 * 3 * 5),
        (_flops.recurrent, SimpleNamespace(parameters=lambda: iter(MATRICES)), 2 * 3 * (12 * 5 + 12 * 3)),
    ],
)
def test_the_rules_of_layers(rule: Callable[..., int], module: Any, macs: int) -> None:
    found = rule(module, INPUTS, OUTPUT)
    assert (found, type(found)) == (macs, int)


def test_a_packed_sequence_counts_its_steps() -> None:
    packed = SimpleNamespace(data=Tensor(8, 5))
    state = Tensor(7, 11, 13)
    vars(state)["data"] = state
    module = SimpleNamespace(parameters=lambda: iter(MATRICES))
    assert _flops.recurrent(module, (packed, state), None) == 8 * (12 * 5 + 12 * 3)


@pytest.mark.parametrize(("length_axis", "length"), [(0, 3), (1, 5)])
def test_attention_is_its_projections_its_scores_and_its_sums(length_axis: int, length: int) -> None:
    module = SimpleNamespace(embed_dim=8, kdim=6, vdim=4)
    found = _flops.attention(module, Tensor(3, 7, 8), Tensor(3, 5, 6), Tensor(3, 11, 4), length_axis)
    queries, keys, values = 3 * 7, 3 * 5, 3 * 11
    assert found == queries * 8 * 8 + keys * 6 * 8 + values * 4 * 8 + 2 * queries * length * 8 + queries * 8 * 8
    assert type(found) is int

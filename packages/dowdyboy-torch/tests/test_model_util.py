"""Freezing, counting, summaries and checkpoints on PyTorch; all below the bindings is alike on every framework."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from dowdyboy_torch import CheckpointError, ConfigError, Trainer, TrainerConfig
from dowdyboy_torch._backend import TorchBackend
from dowdyboy_torch.model_util import (
    FlopCount,
    Uncounted,
    count_flops,
    count_params,
    freeze,
    load_checkpoint,
    save_checkpoint,
    save_checkpoint_unique,
    summary,
    unfreeze,
)

# ---- the bindings

NAME = "torch"
BACKEND = TorchBackend
Module: Any = nn.Module
Conv1d, Conv2d, Conv3d, ConvTranspose2d = nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d
BatchNorm1d, BatchNorm2d, InstanceNorm2d = nn.BatchNorm1d, nn.BatchNorm2d, nn.InstanceNorm2d
AvgPool = nn.AdaptiveAvgPool2d
attention = partial(nn.MultiheadAttention, batch_first=True)
transformer = partial(nn.TransformerEncoderLayer, batch_first=True)
gru = partial(nn.GRU, batch_first=True)
matmul = torch.matmul


def lstm(width: int, hidden: int, layers: int) -> Any:
    return nn.LSTM(width, hidden, layers, batch_first=True, bidirectional=True)


def ones(*shape: int) -> Any:
    return torch.ones(shape)


def ints(*shape: int) -> Any:
    return torch.ones(shape, dtype=torch.int64)


def parameter(size: int) -> Any:
    return nn.Parameter(torch.ones(size))


def draw() -> Any:
    return torch.rand(1) + random.random() + np.random.rand()


def transposed(x: Any) -> Any:
    return x.transpose(1, 2)


def as_double(model: Any) -> Any:
    return model.double()


def add_module(model: Any, name: str, child: Any) -> None:
    model.add_module(name, child)


def named_parameters(model: Any) -> list[tuple[str, Any]]:
    return list(model.named_parameters())


def all_tensors(model: Any) -> list[tuple[str, Any]]:
    return [*model.named_parameters(), *model.named_buffers()]


def is_trainable(item: Any) -> bool:
    return bool(item.requires_grad)


def state(model: Any) -> dict[str, Any]:
    return {name: item.numpy().copy() for name, item in model.state_dict().items()}


def modes(model: Any) -> list[bool]:
    return [module.training for module in model.modules()]


def hooks(model: Any) -> list[int]:
    return [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]


def seed(number: int) -> None:
    torch.manual_seed(number)


def streams() -> Any:
    return torch.get_rng_state().tolist(), repr(random.getstate()), repr(np.random.get_state())


def momentum(model: Any) -> Any:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def adam(model: Any) -> Any:
    return torch.optim.Adam(model.parameters(), lr=0.01)


def train_once(model: Any, optimizer: Any, batch: Any, clear: bool = True) -> None:
    (model(batch) ** 2).mean().backward()
    optimizer.step()
    if clear:
        optimizer.zero_grad()


def all_names(model: Any) -> list[str]:
    return [name for name, _ in all_tensors(model)]


def hook_after(module: Any, hook: Any) -> None:
    module.register_forward_hook(hook)


def count_elsewhere(model: Any, shape: tuple[int, ...]) -> None:
    from thop import profile

    profile(model, inputs=(torch.ones(shape),), verbose=False)
    for module in model.modules():  # what it leaves where it fails on its way, and in some modules always
        if not hasattr(module, "total_ops"):
            module.register_buffer("total_ops", torch.zeros(1, dtype=torch.float64))
            module.register_buffer("total_params", torch.zeros(1, dtype=torch.float64))


def compiled(model: Any, shape: tuple[int, ...]) -> Any:
    return torch.compile(model, backend="eager")


def is_compiling() -> bool:
    stance = sys.modules["torch._dynamo.eval_frame"]._stance.stance
    return bool(stance == "default")


def all_gradients(model: Any) -> list[Any]:
    return [item.grad for item in model.parameters() if item.grad is not None]


def train_frozen(model: Any) -> Any:
    freeze(model, "0")
    model(ones(2, 3, 8, 8)).sum().backward()
    return model


HALVES = [lambda model: model.half(), lambda model: model.bfloat16(), lambda model: model.requires_grad_(False)]
HALVES.append(train_frozen)


def assert_equal(left: Any, right: Any) -> None:
    """The same all through, tensors and arrays element by element."""
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        left, right = list(left.values()), [right[key] for key in left]
    if isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_equal(one, other)
    elif hasattr(left, "shape") or isinstance(left, np.ndarray):
        np.testing.assert_array_equal(np.asarray(left), np.asarray(right))
    else:
        assert left == right


# ---- the models


def small_cnn() -> Any:
    """A CNN whose cost on (2, 3, 8, 8) can be worked out by hand: see ``SMALL_CNN_MACS``."""
    return nn.Sequential(
        Conv2d(3, 8, 3, stride=1, padding=1),
        BatchNorm2d(8),
        nn.ReLU(),
        Conv2d(8, 8, 3, stride=2, padding=1, groups=4),
        nn.ReLU(),
        AvgPool(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )


# Batch * out channels * out height * out width * in channels per group * kernel, for each convolution; one for each
# element of the BatchNorm; batch * in * out for the linear layer.
SMALL_CNN_MACS = 2 * 8 * 8 * 8 * 3 * 9 + 2 * 8 * 8 * 8 + 2 * 8 * 4 * 4 * 2 * 9 + 2 * 8 * 10
SMALL_CNN_PARAMS = (8 * 3 * 9 + 8) + 2 * 8 + (8 * 2 * 9 + 8) + (8 * 10 + 10)


class Tied(Module):
    """An embedding and an output layer with one weight, and one block that stands in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.block = nn.Linear(4, 4)
        self.again = self.block
        self.scale = nn.Linear(4, 4)
        self.scale.weight = self.block.weight

    def forward(self, index: Any) -> Any:
        return self.again(self.block(self.embed(index)))


class Probe(Module):
    """Draws random numbers, moves a buffer and writes to its input: all that a trial must leave alone."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), BatchNorm1d(4))
        self.register_buffer("calls", ones(1))

    def forward(self, x: Any) -> Any:
        self.calls.add_(ones(1))
        x.add_(ones(2, 4) * draw())
        return self.inner(x)


# ---- freezing


def paths(model: Any, trainable: bool) -> list[str]:
    return [name for name, item in named_parameters(model) if is_trainable(item) == trainable]


def test_freeze_everything_and_back() -> None:
    model = small_cnn()
    every = ["0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias", "7.weight", "7.bias"]
    assert freeze(model) == every
    assert paths(model, True) == []
    assert freeze(model) == []
    assert unfreeze(model) == every
    assert paths(model, True) == every
    assert unfreeze(model) == []


def test_running_statistics_are_never_unfrozen() -> None:
    model = small_cnn()
    unfreeze(model)
    assert {name for name, item in all_tensors(model) if is_trainable(item)} == set(paths(model, True))


@pytest.mark.parametrize(
    ("patterns", "picked"),
    [
        (["0"], ["0.weight", "0.bias"]),
        (["0.weight"], ["0.weight"]),
        (["*.bias"], ["0.bias", "1.bias", "3.bias", "7.bias"]),
        (["7", "1.bias"], ["1.bias", "7.weight", "7.bias"]),
        (["[01]"], ["0.weight", "0.bias", "1.weight", "1.bias"]),
        (["?.weight", "0"], ["0.weight", "0.bias", "1.weight", "3.weight", "7.weight"]),
        (["*"], ["0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias", "7.weight", "7.bias"]),
    ],
)
def test_patterns(patterns: list[str], picked: list[str]) -> None:
    model = small_cnn()
    assert freeze(model, *patterns) == picked
    assert paths(model, False) == picked
    assert unfreeze(model, *patterns) == picked
    assert paths(model, False) == []


def test_a_path_ends_at_a_dot() -> None:
    model = nn.Sequential()
    for name in ("features", "features2"):
        add_module(model, name, nn.Sequential(nn.Linear(2, 2)))
    assert freeze(model, "features") == ["features.0.weight", "features.0.bias"]
    assert freeze(model, "features*.weight") == ["features2.0.weight"]


@pytest.mark.parametrize("path", ["block.weight", "again.weight", "scale.weight"])
def test_a_shared_parameter_goes_by_each_of_its_paths(path: str) -> None:
    assert freeze(Tied(), path) == ["block.weight"]


def test_a_frozen_parameter_stays_where_it_is() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = momentum(model)
    train_once(model, optimizer, ones(3, 2), clear=False)
    before = state(model)
    freeze(model, "0")  # with its gradient and its momentum in place
    train_once(model, optimizer, ones(3, 2), clear=False)
    changed = {name for name, value in state(model).items() if not np.array_equal(value, before[name])}
    assert changed == {"1.weight", "1.bias"}


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["0", "head"], r"^The pattern 'head' matches no parameter of the model\. There are '0', '1', '3', '7'\. Give"),
        (["7.wieght"], r"^The pattern '7\.wieght' matches no parameter of the model\. Near it are '7\.weight'"),
        (["2"], r"^The pattern '2' matches no parameter"),
        (["0", ""], r"^The pattern '' matches no parameter"),
        ([["0"]], r"^The pattern \['0'\] is no text\. Give patterns one by one"),
    ],
)
def test_a_pattern_that_picks_nothing_changes_nothing(patterns: list[Any], message: str) -> None:
    model = small_cnn()
    with pytest.raises(ConfigError, match=message):
        freeze(model, *patterns)
    assert paths(model, False) == []


# ---- counting


def test_parameters_are_counted() -> None:
    model = small_cnn()
    assert count_params(model) == SMALL_CNN_PARAMS
    freeze(model, "0", "1.bias")
    assert count_params(model, trainable_only=True) == SMALL_CNN_PARAMS - (8 * 3 * 9 + 8) - 8
    assert count_params(model) == SMALL_CNN_PARAMS
    assert count_params(nn.ReLU()) == 0
    assert count_params(nn.Linear(3, 2)) == 8


def test_shared_parameters_are_counted_once() -> None:
    assert count_params(Tied()) == 7 * 4 + (4 * 4 + 4) + 4


LAYERS = [
    ("linear", lambda: nn.Linear(5, 7), (2, 3, 5), 2 * 3 * 5 * 7),
    ("conv", lambda: Conv2d(4, 8, 3), (2, 4, 9, 9), 2 * 8 * 7 * 7 * 4 * 9),
    ("conv, strided", lambda: Conv2d(4, 8, 3, stride=2, padding=1), (2, 4, 9, 9), 2 * 8 * 5 * 5 * 4 * 9),
    ("conv, in groups", lambda: Conv2d(4, 8, 3, groups=2), (1, 4, 9, 9), 8 * 7 * 7 * 2 * 9),
    ("conv, dilated", lambda: Conv2d(4, 8, 3, dilation=2), (1, 4, 9, 9), 8 * 5 * 5 * 4 * 9),
    ("conv, by depth", lambda: Conv2d(4, 4, (1, 3), groups=4), (1, 4, 9, 9), 4 * 9 * 7 * 3),
    ("conv 1d", lambda: Conv1d(4, 8, 3), (2, 4, 9), 2 * 8 * 7 * 4 * 3),
    ("conv 3d", lambda: Conv3d(2, 4, 3), (1, 2, 5, 5, 5), 4 * 27 * 2 * 27),
    ("conv, transposed", lambda: ConvTranspose2d(2, 4, 3, stride=2), (1, 2, 5, 5), 2 * 25 * 4 * 9),
    ("conv, transposed in groups", lambda: ConvTranspose2d(2, 4, 3, groups=2), (1, 2, 5, 5), 2 * 25 * 2 * 9),
    ("batch norm", lambda: BatchNorm2d(4), (2, 4, 3, 3), 2 * 4 * 9),
    ("layer norm", lambda: nn.LayerNorm(6), (2, 5, 6), 2 * 5 * 6),
    ("group norm", lambda: nn.GroupNorm(2, 4), (2, 4, 3, 3), 2 * 4 * 9),
    ("instance norm", lambda: InstanceNorm2d(4), (2, 4, 3, 3), 2 * 4 * 9),
    ("prelu", lambda: nn.PReLU(), (2, 4), 0),
    ("upsample", lambda: nn.Upsample(scale_factor=2, mode="bilinear"), (1, 2, 4, 4), 0),
    # Four gates, each of hidden * (input + hidden), two directions, and in the second layer twice the input.
    ("lstm", lambda: lstm(3, 5, layers=2), (2, 6, 3), 2 * 6 * 2 * 4 * 5 * ((3 + 5) + (10 + 5))),
    ("gru", lambda: gru(3, 5), (2, 6, 3), 2 * 6 * 3 * 5 * (3 + 5)),
    ("lstm cell", lambda: nn.LSTMCell(3, 5), (2, 3), 2 * 4 * 5 * (3 + 5)),
    # Attention: four projections, scores and weighted sums; then two linear layers and two norms.
    ("transformer", lambda: transformer(8, 2, 16), (2, 5, 8), 10 * 4 * 64 + 2 * 2 * 25 * 8 + 10 * 2 * 128 + 2 * 80),
]


@pytest.mark.parametrize(("make", "shape", "macs"), [case[1:] for case in LAYERS], ids=[case[0] for case in LAYERS])
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "inside"])
def test_layers_are_counted(make: Callable[[], Any], shape: tuple[int, ...], macs: int, inside: bool) -> None:
    model = nn.Sequential(make()) if inside else make()
    found = count_flops(model, shape)
    assert found == FlopCount(macs=macs, params=count_params(model))
    assert found.flops == 2 * macs


def test_a_small_cnn_is_counted() -> None:
    assert count_flops(small_cnn(), (2, 3, 8, 8)) == FlopCount(macs=SMALL_CNN_MACS, params=SMALL_CNN_PARAMS)


def test_what_is_called_twice_counts_twice() -> None:
    found = count_flops(Tied(), ints(2, 3))
    assert found.macs == 2 * (2 * 3 * 4 * 4)
    assert found.uncounted == (Uncounted("scale", "Linear", "its forward is not called"),)


def test_what_stands_in_two_places_counts_where_it_is_called() -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(nn.Sequential(shared), nn.Sequential(nn.ReLU(), shared), BatchNorm1d(4))
    assert count_flops(model, (2, 4)) == FlopCount(macs=2 * (2 * 16) + 2 * 4, params=20 + 8)


def test_attention_between_two_sequences() -> None:
    class Cross(Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend = attention(8, 2, kdim=6, vdim=4)

        def forward(self, query: Any, key: Any, value: Any) -> Any:
            return self.attend(query, key, value)

    found = count_flops(Cross(), [(2, 5, 8), (2, 7, 6), (2, 7, 4)])
    assert found.macs == 10 * 64 + 14 * 6 * 8 + 14 * 4 * 8 + 2 * 10 * 7 * 8 + 10 * 64
    assert found.uncounted == ()


def test_what_cannot_be_counted_is_listed() -> None:
    class Scores(Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Any) -> Any:
            return matmul(matmul(self.query(x), transposed(self.key(x))), x)

    class Scale(Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = parameter(8)

        def forward(self, x: Any) -> Any:
            return x * self.factor

    class Functional(Module):
        def __init__(self) -> None:
            super().__init__()
            self.held = nn.Linear(8, 8)

        def forward(self, x: Any) -> Any:
            return functional.linear(x, self.held.weight)

    class Low(nn.Linear):
        def forward(self, x: Any) -> Any:
            return super().forward(x) * 2

    class Named(nn.Linear):
        pass

    model = nn.Sequential(Scores(), Scale(), Functional(), Low(8, 8), Named(8, 8), nn.Sequential(nn.Linear(8, 2)))
    found = count_flops(model, (2, 5, 8))
    assert found.uncounted == (
        Uncounted("0", "Scores", "computes in its own forward"),
        Uncounted("1", "Scale", "no rule for its parameters"),
        Uncounted("2", "Functional", "computes in its own forward"),
        Uncounted("2.held", "Linear", "its forward is not called"),
        Uncounted("3", "Low", "no rule for its parameters"),
    )
    assert found.macs == 10 * (2 * 64 + 64 + 16)


def test_a_fused_attention_function_is_noticed() -> None:
    class Fused(Module):
        def forward(self, x: Any) -> Any:
            return functional.scaled_dot_product_attention(x, x, x)

    found = count_flops(nn.Sequential(Fused()), (2, 4, 4, 8))
    assert found == FlopCount(macs=0, params=0, uncounted=(Uncounted("0", "Fused", "computes in its own forward"),))


def test_functions_without_products_are_not_listed() -> None:
    class Swish(Module):
        def forward(self, x: Any) -> Any:
            return x * functional.sigmoid(x) + functional.relu(x).mean()

    assert count_flops(nn.Sequential(Swish(), nn.Linear(8, 2)), (3, 8)) == FlopCount(macs=3 * 16, params=18)


FORMS = [(2, 4), [2, 4], [(2, 4)], ones(2, 4), [ones(2, 4)]]


@pytest.mark.parametrize("given", FORMS, ids=["tuple", "list", "tuples", "tensor", "tensors"])
def test_forms_of_input(given: Any) -> None:
    assert count_flops(nn.Linear(4, 3), given).macs == 2 * 12


def test_the_input_has_the_type_of_the_weights() -> None:
    assert count_flops(as_double(nn.Linear(4, 3)), (2, 4)).macs == 2 * 12


REFUSED: list[Any] = [(), [], "4", 4, (2, 0), (2, -4), (2, 4.0), (True, 4), {"x": (2, 4)}, [(2, 4), 3]]


@pytest.mark.parametrize("given", REFUSED, ids=repr)
@pytest.mark.parametrize("use", [count_flops, summary])
def test_inputs_that_are_refused(use: Callable[[Any, Any], Any], given: Any) -> None:
    with pytest.raises(ConfigError, match=r"^input_size=.* is no input\. Give a shape with the batch axis"):
        use(nn.Linear(4, 3), given)


@pytest.mark.parametrize("use", [count_flops, summary])
def test_a_model_that_cannot_run_on_its_input(use: Callable[[Any, Any], Any]) -> None:
    with pytest.raises(ConfigError, match=r"(?s)^The model can't run on input of shape \(2, 5\): .*Give input_size"):
        use(nn.Linear(4, 3), (2, 5))


@pytest.mark.parametrize("use", [freeze, unfreeze, count_params, summary, lambda model: count_flops(model, (1,))])
def test_what_is_no_model(use: Callable[[Any], Any]) -> None:
    with pytest.raises(ConfigError, match=rf"^\[1\] is no model of {NAME}\. Give an instance of its module class\.$"):
        use([1])


# ---- the model as others left it


def test_what_other_counters_left_changes_nothing() -> None:
    for make, shape in ((small_cnn, (2, 3, 8, 8)), (lambda: nn.Linear(8, 4), (2, 8))):
        fresh, used = count_flops(make(), shape), make()
        count_elsewhere(used, shape)
        before, lines = (all_names(used), hooks(used)), summary(used).splitlines()
        assert any("total_ops" in name for name in before[0])
        assert count_flops(used, shape) == fresh
        assert (all_names(used), hooks(used)) == before
        assert lines[:-1] == summary(make()).splitlines()[:-1]


@pytest.mark.filterwarnings("ignore:Tensor do not have 'place' interface:UserWarning")  # PaddlePaddle, of its own code
def test_compiled_models_are_counted_as_what_they_are() -> None:
    for number, make in enumerate([small_cnn, lambda: nn.Linear(8, 4)]):
        shape = [(2, 3, 8, 8), (2, 8)][number]
        fresh, model = make(), make()
        for used in (compiled(model, shape), nn.Sequential(compiled(make(), shape))):
            for _ in range(2):
                found = count_flops(used, shape)
                assert found == count_flops(fresh, shape)
                used(ones(*shape))  # now it is compiled, if it wasn't
        assert summary(compiled(model, shape), shape) == summary(fresh, shape)
    assert is_compiling()


def test_hooks_of_the_user_see_a_copy() -> None:
    class Keeps(Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.seen, self.lock = nn.Linear(4, 4), [], threading.Lock()
            self.random = random
            hook_after(self.inner, lambda module, given, output: self.seen.append(output))

        def forward(self, x: Any) -> Any:
            with self.lock:
                return self.inner(x)

    model, outside, kept = Keeps(), {}, []

    def note(module: Any, given: Any, output: Any, seen: Any = kept) -> None:
        outside["last"] = output
        seen.append(module)

    hook_after(model.inner, note)
    output = model(ones(2, 4))
    assert count_flops(model, (2, 4)) == FlopCount(macs=2 * 16, params=20)
    assert model.seen == [output] and outside["last"] is output and kept == [model.inner]


def test_a_forward_that_was_put_around_another_runs_that_of_the_copy() -> None:
    model, calls = small_cnn(), []
    before = model.forward

    def forward(x: Any) -> Any:
        calls.append(x)
        return before(x)

    model.forward = forward
    assert count_flops(model, (2, 3, 8, 8)) == FlopCount(macs=SMALL_CNN_MACS, params=SMALL_CNN_PARAMS)
    assert calls == [] and model.forward is forward


@pytest.mark.parametrize("change", HALVES, ids=["fp16", "bf16", "frozen", "trained"])
def test_weights_of_any_kind(change: Callable[[Any], Any]) -> None:
    model = change(small_cnn())
    before = all_gradients(model)
    assert count_flops(model, (2, 3, 8, 8)) == FlopCount(macs=SMALL_CNN_MACS, params=SMALL_CNN_PARAMS)
    assert_equal(all_gradients(model), before)


def test_several_inputs() -> None:
    class Two(Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(4, 3), nn.Linear(6, 3)

        def forward(self, x: Any, y: Any) -> Any:
            return self.left(x) + self.right(y)

    assert count_flops(Two(), [(2, 4), ones(5, 6)[:2]]) == FlopCount(macs=2 * 12 + 2 * 18, params=15 + 21)


# ---- the summary


def test_a_summary_without_input() -> None:
    model = nn.Sequential(nn.Linear(1000, 20), nn.Sequential(nn.ReLU(), nn.Linear(20, 5)))
    freeze(model, "1")
    assert summary(model).splitlines() == [
        "path     type        params",
        "-------  ----------  ------",
        "(model)  Sequential       0",
        "0        Linear      20,020",
        "1        Sequential       0",
        "1.0      ReLU             0",
        "1.1      Linear         105",
        "-------  ----------  ------",
        "params: 20,125, of which trainable: 20,020",
        "size: 0.081 MB of parameters and buffers (1 MB = 10**6 bytes)",
    ]


def test_a_summary_with_output_shapes() -> None:
    lines = summary(small_cnn(), (2, 3, 8, 8))
    rows = [line.split("  ") for line in lines.splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert [(row[0], row[2], row[3]) for row in cells[2:-3]] == [
        ("(model)", "(2, 10)", "0"),
        ("0", "(2, 8, 8, 8)", "224"),
        ("1", "(2, 8, 8, 8)", "16"),
        ("2", "(2, 8, 8, 8)", "0"),
        ("3", "(2, 8, 4, 4)", "152"),
        ("4", "(2, 8, 4, 4)", "0"),
        ("5", "(2, 8, 1, 1)", "0"),
        ("6", "(2, 8)", "0"),
        ("7", "(2, 10)", "90"),
    ]
    assert cells[-2] == [f"params: {SMALL_CNN_PARAMS}, of which trainable: {SMALL_CNN_PARAMS}"]


def test_a_summary_of_shared_parts() -> None:
    assert summary(Tied(), ints(2, 3)).splitlines()[2:6] == [
        "(model)  Tied       (2, 3, 4)          0",
        "embed    Embedding  (2, 3, 4)         28",
        "block    Linear     (2, 3, 4)         20",
        "scale    Linear     -                  4",
    ]


def test_nested_outputs_are_described() -> None:
    class Nested(Module):
        def forward(self, x: Any) -> Any:
            return {"a": (x, [x, None]), "b": 3}

    assert "{a: [(2, 4), [(2, 4), None]], b: int}" in summary(Nested(), (2, 4))


# ---- the model is left as it was


@pytest.mark.parametrize("use", [count_flops, summary])
@pytest.mark.parametrize("given", ["shape", "example"])
def test_nothing_is_left_behind(use: Callable[[Any, Any], Any], given: str, capfd: pytest.CaptureFixture[str]) -> None:
    model = Probe()
    model.train()
    model.inner[1].eval()
    freeze(model, "inner.0.bias")
    example = ones(2, 4)
    seed(5)
    before = (state(model), all_names(model), modes(model), hooks(model), paths(model, True), streams())
    use(model, (2, 4) if given == "shape" else example)
    after = (state(model), all_names(model), modes(model), hooks(model), paths(model, True), streams())
    for old, new in zip(before, after, strict=True):
        assert_equal(old, new)
    assert_equal(example, ones(2, 4))
    assert capfd.readouterr() == ("", "")


def test_nothing_is_left_behind_by_a_failure() -> None:
    model = Probe()
    before = (state(model), all_names(model), modes(model), hooks(model), streams())
    with pytest.raises(ConfigError):
        count_flops(model, (2, 5))
    assert_equal(before, (state(model), all_names(model), modes(model), hooks(model), streams()))


# ---- checkpoints


def pair() -> tuple[list[Any], list[Any]]:
    """A model that was trained a bit, and one that was not."""
    models = [small_cnn(), nn.Linear(3, 2)]
    optimizers = [adam(models[0]), momentum(models[1])]
    train_once(models[0], optimizers[0], ones(2, 3, 8, 8))
    return models, optimizers


def everything(models: list[Any], optimizers: list[Any]) -> Any:
    backend = BACKEND()
    names = {id(item): f"{n}/{path}" for n, model in enumerate(models) for path, item in named_parameters(model)}
    return [state(model) for model in models], [backend.optimizer_state(item, names) for item in optimizers]


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    models, optimizers = pair()
    folder = save_checkpoint(100, tmp_path, models, optimizers)
    assert folder == tmp_path / "chk_step_100"
    assert not [path for path in folder.iterdir() if path.suffix not in {".safetensors", ".json"}]

    others, stepped = pair()
    train_once(others[1], stepped[1], ones(2, 3))
    load_checkpoint(folder, others, stepped)
    assert_equal(everything(others, stepped), everything(models, optimizers))
    for _ in range(3):
        train_once(models[0], optimizers[0], ones(2, 3, 8, 8))
        train_once(others[0], stepped[0], ones(2, 3, 8, 8))
    assert_equal(everything(others, stepped), everything(models, optimizers))


def test_arguments_by_place_as_they_always_were(tmp_path: Path) -> None:
    models, optimizers = pair()
    for step in (1, 2, 3):
        save_checkpoint(step, str(tmp_path), models, optimizers, 2)
        save_checkpoint_unique(step, str(tmp_path), models, optimizers, "best")
        save_checkpoint_unique(step, str(tmp_path), models)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "chk_best_step_3", "chk_step_2", "chk_step_3", "chk_unique_step_3"
    ]  # fmt: skip


def test_every_difference_is_listed(tmp_path: Path) -> None:
    folder = save_checkpoint(1, tmp_path, [nn.Sequential(nn.Linear(3, 2))])
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    before = state(model)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder, [model])
    message = str(caught.value)
    assert "model_0: shape of 0.weight" in message
    assert "model_0: shape of 0.bias: stored (2,), wanted (4,)" in message
    assert "model_0: missing: 1.bias" in message
    assert "model_0: missing: 1.weight" in message
    assert_equal(state(model), before)


def test_optimizers_that_do_not_fit(tmp_path: Path) -> None:
    models, optimizers = pair()
    folder = save_checkpoint(1, tmp_path, models, optimizers)
    others, _ = pair()
    before = [state(model) for model in others]
    with pytest.raises(CheckpointError, match=r"(?s)optimizer_0: missing: 1/bias.*not in the optimizer: 0/0\.bias"):
        load_checkpoint(folder, others, [momentum(others[1]), momentum(others[1])])
    assert_equal([state(model) for model in others], before)
    with pytest.raises(ConfigError, match=r"^optimizer_list\[0\] holds 2 of 2 parameters that belong to none"):
        save_checkpoint(2, tmp_path, models[:1], optimizers[1:])


def test_what_is_refused(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(ConfigError, match=r"^model_list got a Linear, which is no list\. Give a list of models\.$"):
        save_checkpoint(1, tmp_path, model)
    with pytest.raises(ConfigError, match=rf"^model_list\[0\] is a .*, which is no model of {NAME}\. Give"):
        load_checkpoint(tmp_path, [momentum(model)])
    with pytest.raises(ConfigError, match=r"^label='step' is no label"):
        save_checkpoint_unique(1, tmp_path, [model], label="step")


# ---- with the Trainer


def make_trainer(request: pytest.FixtureRequest, out_dir: Path, model: Any, optimizer: Any) -> Any:
    def train_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        return (trainer.get_models()[0](bat) ** 2).mean()

    config = TrainerConfig(name="t", epoch=1, out_dir=str(out_dir), cpu=True, log_with="none", disable_tqdm=True)
    trainer = Trainer(config)
    request.addfinalizer(trainer._run.messages.close)
    trainer.set_train_dataloader([ones(2, 3) * number for number in range(3)])
    trainer.set_model(model)
    trainer.set_optimizer(optimizer)
    return trainer, train_step


def test_a_checkpoint_of_the_trainer_can_be_loaded(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    model = nn.Sequential(nn.Linear(3, 4), BatchNorm1d(4))
    optimizer = adam(model)
    trainer, train_step = make_trainer(request, tmp_path, model, optimizer)
    trainer.fit(train_step)

    other = nn.Sequential(nn.Linear(3, 4), BatchNorm1d(4))
    stepped = adam(other)
    load_checkpoint(tmp_path / "checkpoint" / "epoch_1", [other], [stepped])
    assert_equal(everything([other], [stepped]), everything([model], [optimizer]))


def test_the_trainer_takes_the_weights_of_a_checkpoint(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    model = nn.Sequential(nn.Linear(3, 4), BatchNorm1d(4))
    optimizer = adam(model)
    train_once(model, optimizer, ones(2, 3))
    folder = save_checkpoint(1, tmp_path / "chk", [model], [optimizer])

    other = nn.Sequential(nn.Linear(3, 4), BatchNorm1d(4))
    trainer, _ = make_trainer(request, tmp_path, other, adam(other))
    trainer.load_checkpoint(folder, weights_only=True)
    assert_equal(state(other), state(model))


# ---- what is PyTorch's alone


def test_thop_agrees_where_its_rules_are_the_same() -> None:
    from thop import profile

    model = nn.Sequential(Conv2d(3, 8, 3, stride=2, groups=1), nn.ReLU(), Conv2d(8, 8, 3, groups=4), nn.Flatten())
    model.append(nn.Linear(8 * 25, 10))
    macs, params = profile(model, inputs=(ones(2, 3, 16, 16),), verbose=False)
    assert count_flops(model, (2, 3, 16, 16)) == FlopCount(macs=int(macs), params=int(params))


def test_counting_needs_no_other_counter() -> None:
    code = "import sys; sys.modules['thop'] = None; from torch import nn; from dowdyboy_torch.model_util import *; "
    code += "print(count_flops(nn.Linear(4, 3), (2, 4)).macs)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "24\n", done.stderr


def test_wrappers_are_no_part_of_the_model() -> None:
    model = small_cnn()
    assert count_flops(nn.DataParallel(model), (2, 3, 8, 8)).macs == SMALL_CNN_MACS
    wrapped = torch.compile(nn.DataParallel(nn.Sequential(model, nn.Bilinear(2, 2, 2))), backend="eager")
    assert freeze(wrapped, "0.0") == ["0.0.weight", "0.0.bias"]
    assert summary(wrapped).splitlines()[2].split() == ["(model)", "Sequential", "0"]


def test_a_model_without_shapes_is_counted_as_it_will_be() -> None:
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(2))
    seed(3)
    before = streams()
    found = count_flops(model, (2, 3, 8, 8))
    assert found == FlopCount(macs=2 * 4 * 36 * 27 + 2 * 144 * 2, params=4 * 28 + 2 * 145)
    assert_equal(streams(), before)
    assert type(model[2]) is nn.LazyLinear


@pytest.mark.filterwarnings("ignore:.*is deprecated. Please switch to:DeprecationWarning")  # by PyTorch, still in use
def test_code_that_cannot_be_looked_into_is_listed() -> None:
    scripted = torch.jit.trace(nn.Linear(4, 4), ones(2, 4))
    found = count_flops(nn.Sequential(nn.Linear(4, 4), scripted), (2, 4))
    assert found.macs == 2 * 16
    assert ("1", "its forward is not called") in [(item.path, item.why) for item in found.uncounted]
    assert "-" in summary(nn.Sequential(scripted), (2, 4)).splitlines()[3].split()


def test_a_reparametrized_layer_counts_as_what_it_is() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)))
    assert count_flops(model, (2, 4)) == FlopCount(macs=2 * 12, params=12 + 3 + 3)


def test_packed_sequences_count_their_steps() -> None:
    class Packs(Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 5, batch_first=True)

        def forward(self, x: Any) -> Any:
            return self.lstm(nn.utils.rnn.pack_padded_sequence(x, [6, 2], batch_first=True))[1][0]

    assert count_flops(Packs(), (2, 6, 3)).macs == (6 + 2) * 4 * 5 * (3 + 5)


def test_attention_with_more_than_its_projections_is_not_counted() -> None:
    found = count_flops(nn.MultiheadAttention(8, 2, add_zero_attn=True), [(5, 2, 8)] * 3)
    assert found.uncounted == (Uncounted("", "MultiheadAttention", "its rule can't count this use"),)


def test_the_fast_path_of_transformers_is_put_back() -> None:
    count_flops(transformer(8, 2, 16), (2, 5, 8))
    assert torch.backends.mha.get_fastpath_enabled()

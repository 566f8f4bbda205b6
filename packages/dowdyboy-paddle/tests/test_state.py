"""State round trips: whatever PaddlePaddle has as optimizer, scheduler or tensor goes on bitwise where it stopped."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddle.optimizer as opt
import pytest
from paddle.optimizer import Optimizer, lr

from dowdyboy_conformance._inside import inside
from dowdyboy_core import CheckpointError
from dowdyboy_core.backend import encode
from dowdyboy_paddle._arrays import to_array, to_tensor
from dowdyboy_paddle._backend import PaddleBackend

_files = inside("_disk.files")
FolderReader, prepare, write_folder = _files.FolderReader, _files.prepare, _files.write_folder

BACKEND = PaddleBackend()
STEPS = 3

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "SGD": lambda p: opt.SGD(0.1, parameters=p),
    "Momentum": lambda p: opt.Momentum(0.1, 0.9, use_nesterov=True, parameters=p),
    "Adam": lambda p: opt.Adam(0.01, parameters=p),
    "AMSGrad": lambda p: opt.Adam(0.01, amsgrad=True, parameters=p),
    "AdamW": lambda p: opt.AdamW(0.01, weight_decay=0.1, parameters=p),
    "Adagrad": lambda p: opt.Adagrad(0.1, parameters=p, initial_accumulator_value=0.1),
    "Adadelta": lambda p: opt.Adadelta(1.0, parameters=p),
    "Adamax": lambda p: opt.Adamax(0.01, parameters=p),
    "NAdam": lambda p: opt.NAdam(0.01, parameters=p),
    "RAdam": lambda p: opt.RAdam(0.01, parameters=p),
    "RMSProp": lambda p: opt.RMSProp(0.01, centered=True, momentum=0.9, parameters=p),
    "Rprop": lambda p: opt.Rprop(0.01, learning_rate_range=(1e-5, 0.1), parameters=p),
    "ASGD": lambda p: opt.ASGD(0.01, batch_num=2, parameters=p),
    "Lamb": lambda p: opt.Lamb(0.01, parameters=p),
    "a clipping one": lambda p: opt.Adam(0.01, parameters=p, grad_clip=paddle.nn.ClipGradByGlobalNorm(0.1)),
}


class Model(paddle.nn.Layer):
    """Two layers whose parameters can be made in either order, which must not matter."""

    def __init__(self, *, backwards: bool = False) -> None:
        super().__init__()
        made = {"first": (4, 5), "second": (5, 2)}
        layers = {name: paddle.nn.Linear(*made[name]) for name in sorted(made, reverse=backwards)}
        self.first, self.second = layers["first"], layers["second"]

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.second(paddle.tanh(self.first(x)))


def plain_groups(model: Model, backwards: bool) -> Any:
    parameters = list(model.parameters())
    return parameters[::-1] if backwards else parameters


def two_groups(model: Model, backwards: bool) -> Any:
    first, second = list(model.first.parameters()), list(model.second.parameters())
    return [
        {"params": first[::-1] if backwards else first},
        {"params": second[::-1] if backwards else second, "learning_rate": 0.3, "weight_decay": 0.01},
    ]


def train(model: Model, optimizer: Any, scheduler: Any, start: int, steps: int = STEPS) -> None:
    for step in range(start, start + steps):
        x = paddle.linspace(-1, 1, 24).reshape([6, 4]) * (step + 1)
        loss = (model(x) - step).square().mean()
        optimizer.clear_grad()
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            plateau = isinstance(scheduler, lr.ReduceOnPlateau)
            scheduler.step(float(step)) if plateau else scheduler.step()


def names(model: Model) -> dict[int, str]:
    return {id(parameter): f"0/{path}" for path, parameter in model.named_parameters()}


def weights(model: paddle.nn.Layer) -> list[bytes]:
    return [bytes(to_array(value).data) for _, value in sorted(model.state_dict().items())]


def through_disk(folder: Path, model: Any, trees: dict[str, Any]) -> Any:
    write_folder(folder / "checkpoint", prepare({}, {"model_0": BACKEND.model_state(model)}, trees))
    return FolderReader(folder / "checkpoint")


@pytest.mark.parametrize("groups", [plain_groups, two_groups])
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_an_optimizer_goes_on_bitwise(make: Any, groups: Any, tmp_path: Path) -> None:
    paddle.seed(0)
    model = Model()
    optimizer = make(groups(model, False))
    before = weights(model)
    train(model, optimizer, None, 0)
    assert weights(model) != before
    saved = through_disk(tmp_path, model, {"optimizer_0": BACKEND.optimizer_state(optimizer, names(model))})
    train(model, optimizer, None, STEPS)

    other = Model(backwards=True)
    other_optimizer = make(groups(other, True))
    BACKEND.load_model_state(other, saved.weights("model_0"))
    BACKEND.load_optimizer_state(other_optimizer, names(other), saved.tree("optimizer_0"))
    train(other, other_optimizer, None, STEPS)
    assert weights(other) == weights(model)


@pytest.mark.parametrize("name", ["Momentum", "Adam", "RMSProp"])
def test_a_state_taken_before_the_first_step_forgets_what_came_after(name: str) -> None:
    model = Model()
    optimizer = OPTIMIZERS[name](model.parameters())
    start = BACKEND.model_state(model)
    fresh = BACKEND.optimizer_state(optimizer, names(model))
    train(model, optimizer, None, 0)
    expected = weights(model)
    BACKEND.load_model_state(model, start)
    BACKEND.load_optimizer_state(optimizer, names(model), fresh)
    train(model, optimizer, None, 0)
    assert weights(model) == expected


def test_a_state_is_a_copy() -> None:
    model = Model()
    optimizer = OPTIMIZERS["Adam"](model.parameters())
    train(model, optimizer, None, 0)
    state = BACKEND.optimizer_state(optimizer, names(model))
    stored = bytes(state["state"]["0/first.weight"]["moment1"].data)
    train(model, optimizer, None, STEPS)
    assert bytes(state["state"]["0/first.weight"]["moment1"].data) == stored


def test_a_frozen_parameter_has_no_state_and_stays() -> None:
    model = Model()
    model.first.weight.stop_gradient = True
    optimizer = OPTIMIZERS["Adam"](model.parameters())
    frozen = bytes(to_array(model.first.weight).data)
    train(model, optimizer, None, 0)
    state = BACKEND.optimizer_state(optimizer, names(model))
    assert "0/first.weight" not in state["state"]
    BACKEND.load_optimizer_state(optimizer, names(model), state)
    train(model, optimizer, None, STEPS)
    assert bytes(to_array(model.first.weight).data) == frozen


SCHEDULERS: dict[str, Callable[[], lr.LRScheduler]] = {
    "NoamDecay": lambda: lr.NoamDecay(4, 5),
    "PiecewiseDecay": lambda: lr.PiecewiseDecay([2, 5], [0.1, 0.05, 0.01]),
    "NaturalExpDecay": lambda: lr.NaturalExpDecay(0.1, 0.1),
    "InverseTimeDecay": lambda: lr.InverseTimeDecay(0.1, 0.1),
    "PolynomialDecay": lambda: lr.PolynomialDecay(0.1, 4, cycle=True),
    "LinearWarmup": lambda: lr.LinearWarmup(0.1, 5, 0.0, 0.1),
    "LinearWarmup of another": lambda: lr.LinearWarmup(lr.CosineAnnealingDecay(0.1, 5), 4, 0.0, 0.1),
    "ExponentialDecay": lambda: lr.ExponentialDecay(0.1, 0.8),
    "MultiStepDecay": lambda: lr.MultiStepDecay(0.1, [2, 5, 7], 0.5),
    "StepDecay": lambda: lr.StepDecay(0.1, 2, 0.5),
    "LambdaDecay": lambda: lr.LambdaDecay(0.1, lambda epoch: 0.9**epoch),
    "ReduceOnPlateau": lambda: lr.ReduceOnPlateau(0.1, patience=0, cooldown=1),
    "CosineAnnealingDecay": lambda: lr.CosineAnnealingDecay(0.1, 5),
    "MultiplicativeDecay": lambda: lr.MultiplicativeDecay(0.1, lambda epoch: 0.9),
    "OneCycleLR": lambda: lr.OneCycleLR(0.1, 20),
    "CyclicLR": lambda: lr.CyclicLR(0.01, 0.1, 3, mode="exp_range", exp_gamma=0.9),
    "LinearLR": lambda: lr.LinearLR(0.1, 8, 0.1),
    "CosineAnnealingWarmRestarts": lambda: lr.CosineAnnealingWarmRestarts(0.1, 2, 2),
}


@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
def test_a_scheduler_goes_on_bitwise(make: Any, tmp_path: Path) -> None:
    def build(model: Model) -> tuple[Any, Any]:
        scheduler = make()
        return opt.Momentum(scheduler, 0.9, parameters=model.parameters()), scheduler

    def rates(model: Model, optimizer: Any, scheduler: Any) -> list[float]:
        seen = []
        for step in range(STEPS, STEPS + 6):
            train(model, optimizer, scheduler, step, 1)
            seen.append(optimizer.get_lr())
        return seen

    model = Model()
    optimizer, scheduler = build(model)
    train(model, optimizer, scheduler, 0)
    trees = {
        "optimizer_0": BACKEND.optimizer_state(optimizer, names(model)),
        "lr_scheduler_0": BACKEND.scheduler_state(scheduler),
    }
    saved = through_disk(tmp_path, model, trees)
    expected = rates(model, optimizer, scheduler)
    assert len(set(expected)) > 1, f"the rate never moves: {expected}"

    other = Model(backwards=True)
    other_optimizer, other_scheduler = build(other)
    BACKEND.load_model_state(other, saved.weights("model_0"))
    BACKEND.load_optimizer_state(other_optimizer, names(other), saved.tree("optimizer_0"))
    BACKEND.load_scheduler_state(other_scheduler, saved.tree("lr_scheduler_0"))
    assert rates(other, other_optimizer, other_scheduler) == expected
    assert weights(other) == weights(model)


TENSORS: dict[str, paddle.Tensor] = {
    "float64": paddle.to_tensor([math.pi, -0.0, math.inf, -math.inf], dtype="float64"),
    "float32": paddle.to_tensor([[1.5, -2.5], [0.1, 3e38]]),
    "float16": paddle.to_tensor([0.1, 65504.0, 6e-8], dtype="float16"),
    "bfloat16": paddle.to_tensor([[0.1, 3e38, 1e-40]], dtype="bfloat16"),
    "int64": paddle.to_tensor([-(2**63), 2**63 - 1]),
    "int32": paddle.to_tensor([-1, 7], dtype="int32"),
    "int16": paddle.to_tensor([-1, 7], dtype="int16"),
    "int8": paddle.to_tensor([-128, 127], dtype="int8"),
    "uint8": paddle.to_tensor([0, 255], dtype="uint8"),
    "bool": paddle.to_tensor([[True], [False]]),
    "complex64": paddle.to_tensor([1 + 2j, -3j], dtype="complex64"),
    "0-d": paddle.to_tensor(0.25),
    "0-d bool": paddle.to_tensor(True),
    "0-d bfloat16": paddle.to_tensor(0.1, dtype="bfloat16"),
    "empty": paddle.empty([0, 3]),
    "empty bool": paddle.empty([2, 0], dtype="bool"),
    "transposed": paddle.arange(6.0).reshape([2, 3]).T,
    "every second": paddle.arange(10)[::2],
    "expanded": paddle.to_tensor([1.0]).expand([3]),
    "with a graph": paddle.to_tensor([0.0, 1.0, 2.0], stop_gradient=False) * 2,
    "conjugated": paddle.to_tensor([1 + 2j], dtype="complex64").conj(),
}


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_a_tensor_goes_through_a_file_bitwise(tensor: paddle.Tensor, tmp_path: Path) -> None:
    write_folder(tmp_path / "c", prepare({}, {"w": {"t": BACKEND.tensor_state(tensor)}}, {}))
    back = BACKEND.tensor_from_state(FolderReader(tmp_path / "c").weights("w")["t"])
    assert (back.dtype, back.shape, back.stop_gradient) == (tensor.dtype, tensor.shape, True)
    assert bytes(to_array(back).data) == bytes(to_array(tensor).data)
    assert np.array_equal(back.numpy(), tensor.detach().numpy())


@pytest.mark.parametrize("name", ["float32", "transposed", "bfloat16", "0-d", "expanded"])
def test_plain_data_and_tensors_share_no_memory(name: str) -> None:
    tensor = TENSORS[name].clone()
    array = to_array(tensor)
    stored = bytes(array.data)
    tensor.zero_()
    assert bytes(array.data) == stored
    to_tensor(array).zero_()
    assert bytes(array.data) == stored


def test_what_was_loaded_shares_no_memory_with_what_lives() -> None:
    model = Model()
    optimizer = OPTIMIZERS["Adam"](model.parameters())
    train(model, optimizer, None, 0)
    state = BACKEND.model_state(model), BACKEND.optimizer_state(optimizer, names(model))
    stored = repr_of(state)
    other = Model()
    other_optimizer = OPTIMIZERS["Adam"](other.parameters())
    BACKEND.load_model_state(other, state[0])
    BACKEND.load_optimizer_state(other_optimizer, names(other), state[1])
    train(other, other_optimizer, None, STEPS)
    assert repr_of(state) == stored


def repr_of(tree: Any) -> str:
    """All of a tree, the data of its arrays included."""
    value, arrays = encode(tree, "state")
    return repr((value, {key: (array.dtype, array.shape, bytes(array.data)) for key, array in arrays.items()}))


def test_the_layout_is_that_of_the_state() -> None:
    model, state = Model(), BACKEND.model_state(Model())
    assert {name: array[:2] for name, array in BACKEND.model_layout(model).items()} == {
        name: array[:2] for name, array in state.items()
    }


def test_nan_keeps_its_bits() -> None:
    bits = np.array([0x7FC00001, 0x7FC12345], dtype=np.int32)
    tensor = paddle.to_tensor(bits.view(np.float32))
    assert np.array_equal(to_tensor(to_array(tensor)).numpy().view(np.int32), bits)


def test_the_file_is_readable_by_the_framework_alone(tmp_path: Path) -> None:
    from safetensors.paddle import load_file

    model = Model()
    write_folder(tmp_path / "c", prepare({}, {"model_0": BACKEND.model_state(model)}, {}))
    loaded = load_file(tmp_path / "c" / "model_0.safetensors")
    assert loaded.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert bytes(to_array(loaded[name]).data) == bytes(to_array(value).data), name


def test_what_cannot_be_stored_is_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match=r"weight is a dense tensor of type paddle\.uint32, which"):
        to_array(paddle.ones([2]).astype(paddle.uint32), "weight")


def test_state_that_is_no_tensor_is_refused() -> None:
    class Extra(paddle.nn.Layer):
        def state_dict(self, *args: Any, **kwargs: Any) -> Any:
            return {"count": 1}

    for ask in (BACKEND.model_state, BACKEND.model_layout):
        with pytest.raises(CheckpointError, match=r"'count' is a int, and only tensors"):
            ask(Extra())


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    def build() -> paddle.nn.Layer:
        model = paddle.nn.Sequential(paddle.nn.Linear(3, 3), paddle.nn.Linear(3, 3))
        model[1].weight = model[0].weight
        return model

    model, other = build(), build()
    saved = through_disk(tmp_path, model, {})
    BACKEND.load_model_state(other, saved.weights("model_0"))
    assert other[1].weight is other[0].weight
    assert weights(other) == weights(model)


def test_buffers_that_are_not_saved_are_left_out() -> None:
    model = paddle.nn.Layer()
    model.register_buffer("kept", paddle.ones([2]))
    model.register_buffer("left_out", paddle.ones([2]), persistable=False)
    assert BACKEND.model_state(model).keys() == {"kept"}


def test_an_optimizer_of_other_parameters_is_refused_with_every_difference() -> None:
    model = Model()
    whole = opt.Adam(parameters=model.parameters())
    part = opt.Adam(parameters=model.first.parameters())
    state = BACKEND.optimizer_state(part, names(model))
    before = whole.state_dict()
    with pytest.raises(CheckpointError) as caught:
        BACKEND.load_optimizer_state(whole, names(model), state)
    assert "group 0: missing: 0/second.weight" in str(caught.value)
    assert "group 0: missing: 0/second.bias" in str(caught.value)
    assert whole.state_dict() == before
    groups = opt.Adam(parameters=two_groups(model, False))
    with pytest.raises(CheckpointError, match="1 parameter groups and now has 2"):
        BACKEND.load_optimizer_state(groups, names(model), state)


def test_a_slot_of_another_type_is_refused() -> None:
    model = Model()
    optimizer = opt.Adam(parameters=model.parameters())
    train(model, optimizer, None, 0)
    state = BACKEND.optimizer_state(optimizer, names(model))
    slots = state["state"]["0/first.bias"]
    slots["moment1"] = slots["moment1"]._replace(dtype="I32")
    before = repr_of(BACKEND.optimizer_state(optimizer, names(model)))
    with pytest.raises(CheckpointError, match=r"type of 0/first\.bias moment1: stored .*'I32'.*, wanted .*'F32'"):
        BACKEND.load_optimizer_state(optimizer, names(model), state)
    assert repr_of(BACKEND.optimizer_state(optimizer, names(model))) == before


def test_float32_copies_of_half_precision_parameters_are_kept() -> None:
    def build() -> tuple[Model, Any]:
        model = Model()
        model.to(dtype="bfloat16")
        optimizer = opt.AdamW(0.01, parameters=model.parameters(), multi_precision=True)
        block = paddle.base.framework.default_main_program().global_block()
        optimizer._create_accumulators(block, model.parameters())  # no CPU kernel steps in bfloat16
        return model, optimizer

    def copies(optimizer: Any) -> list[bytes]:
        return [bytes(to_array(item).data) for item in optimizer._master_weights.values()]

    model, optimizer = build()
    for kind in ("moment1", "moment2"):
        for number, tensor in enumerate(optimizer._accumulators[kind].values()):
            tensor.set_value(paddle.full(tensor.shape, number + 0.5))
    state = BACKEND.optimizer_state(optimizer, names(model))
    assert state["master_weights"].keys() == set(names(model).values())
    assert {"moment1", "moment2"} <= state["state"]["0/second.bias"].keys()

    other, other_optimizer = build()
    assert copies(other_optimizer) != copies(optimizer)
    BACKEND.load_optimizer_state(other_optimizer, names(other), state)
    assert copies(other_optimizer) == copies(optimizer)
    stored = BACKEND.optimizer_state(other_optimizer, names(other))["state"]
    for path, slots in state["state"].items():
        assert {name: bytes(item.data) for name, item in stored[path].items()} == {
            name: bytes(item.data) for name, item in slots.items()
        }
    plain = Model()
    with pytest.raises(CheckpointError, match=r"not in the optimizer: 0/first\.bias master_weight"):
        BACKEND.load_optimizer_state(opt.AdamW(0.01, parameters=plain.parameters()), names(plain), state)

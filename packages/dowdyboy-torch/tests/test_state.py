"""State round trips: whatever PyTorch has as optimizer, scheduler or tensor goes on bitwise where it stopped."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.optim import lr_scheduler as lr

from dowdyboy_conformance._inside import inside
from dowdyboy_core import CheckpointError
from dowdyboy_core.backend import Array, encode
from dowdyboy_torch._arrays import to_array
from dowdyboy_torch._backend import TorchBackend
from dowdyboy_torch._state import from_tree, to_tensor

_files = inside("_disk.files")
FolderReader, prepare, write_folder = _files.FolderReader, _files.prepare, _files.write_folder

BACKEND = TorchBackend()
STEPS = 3

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    "Momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "AMSGrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1, lr_decay=0.1),
    "Adadelta": lambda p: torch.optim.Adadelta(p),
    "Adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "RAdam": lambda p: torch.optim.RAdam(p, lr=0.01),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True, momentum=0.9),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "ASGD": lambda p: torch.optim.ASGD(p, lr=0.01),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
    "lr as a tensor": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.01)),
}


class Model(torch.nn.Module):
    """Two layers whose parameters can be made in either order, which must not matter."""

    def __init__(self, *, backwards: bool = False) -> None:
        super().__init__()
        made = {"first": (4, 5), "second": (5, 2)}
        layers = {name: torch.nn.Linear(*made[name]) for name in sorted(made, reverse=backwards)}
        self.first, self.second = layers["first"], layers["second"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


def plain_groups(model: Model, backwards: bool) -> Any:
    parameters = list(model.parameters())
    return parameters[::-1] if backwards else parameters


def two_groups(model: Model, backwards: bool) -> Any:
    first, second = list(model.first.parameters()), list(model.second.parameters())
    return [
        {"params": first[::-1] if backwards else first},
        {"params": second[::-1] if backwards else second, "lr": 0.003, "weight_decay": 0.01},
    ]


def train(model: Model, optimizer: Any, scheduler: Any, start: int, steps: int = STEPS) -> None:
    for step in range(start, start + steps):
        x = torch.linspace(-1, 1, 24).reshape(6, 4) * (step + 1)
        loss = (model(x) - step).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            plateau = isinstance(scheduler, lr.ReduceLROnPlateau)
            scheduler.step(float(step)) if plateau else scheduler.step()


def names(model: Model) -> dict[int, str]:
    return {id(parameter): f"0/{path}" for path, parameter in model.named_parameters()}


def weights(model: torch.nn.Module) -> list[bytes]:
    return [bytes(to_array(value).data) for _, value in sorted(model.state_dict().items())]


def through_disk(folder: Path, model: Any, trees: dict[str, Any]) -> Any:
    write_folder(folder / "checkpoint", prepare({}, {"model_0": BACKEND.model_state(model)}, trees))
    return FolderReader(folder / "checkpoint")


@pytest.mark.parametrize("groups", [plain_groups, two_groups])
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_an_optimizer_goes_on_bitwise(make: Any, groups: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
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


def test_weights_and_moments_in_channels_last_are_saved_as_they_are_meant(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Conv2d(3, 4, (2, 5)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(2, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    moment = optimizer.state[model.weight]["exp_avg"]
    assert not model.weight.is_contiguous(), "or nothing is tried"
    assert not moment.is_contiguous(), "or nothing is tried"
    by_path = {id(parameter): f"0/{path}" for path, parameter in model.named_parameters()}
    through_disk(tmp_path, model, {"optimizer_0": BACKEND.optimizer_state(optimizer, by_path)})
    for file, expected in (("model_0", model.weight), ("optimizer_0", moment)):
        found = safetensors.torch.load_file(tmp_path / "checkpoint" / f"{file}.safetensors")
        assert sum(torch.equal(expected.detach(), tensor) for tensor in found.values()) == 1, sorted(found)


@pytest.mark.parametrize("name", ["Momentum", "Adam", "RMSprop"])
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
    stored = bytes(state["state"]["0/first.weight"]["exp_avg"].data)
    train(model, optimizer, None, STEPS)
    assert bytes(state["state"]["0/first.weight"]["exp_avg"].data) == stored


def test_a_frozen_parameter_has_no_state_and_stays() -> None:
    model = Model()
    model.first.weight.requires_grad_(False)
    optimizer = OPTIMIZERS["Adam"](model.parameters())
    frozen = bytes(to_array(model.first.weight).data)
    train(model, optimizer, None, 0)
    state = BACKEND.optimizer_state(optimizer, names(model))
    assert "0/first.weight" not in state["state"]
    BACKEND.load_optimizer_state(optimizer, names(model), state)
    train(model, optimizer, None, STEPS)
    assert bytes(to_array(model.first.weight).data) == frozen


SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "LambdaLR": lambda o: lr.LambdaLR(o, lambda epoch: 0.9**epoch),
    "MultiplicativeLR": lambda o: lr.MultiplicativeLR(o, lambda epoch: 0.9),
    "StepLR": lambda o: lr.StepLR(o, 2, 0.5),
    "MultiStepLR": lambda o: lr.MultiStepLR(o, [2, 5, 5], 0.5),
    "ConstantLR": lambda o: lr.ConstantLR(o, 0.5, 5),
    "LinearLR": lambda o: lr.LinearLR(o, 0.1, 1.0, 8),
    "ExponentialLR": lambda o: lr.ExponentialLR(o, 0.8),
    "PolynomialLR": lambda o: lr.PolynomialLR(o, 9, 2.0),
    "CosineAnnealingLR": lambda o: lr.CosineAnnealingLR(o, 5),
    "CosineAnnealingWarmRestarts": lambda o: lr.CosineAnnealingWarmRestarts(o, 2, 2),
    "OneCycleLR": lambda o: lr.OneCycleLR(o, 0.1, 20),
    "CyclicLR": lambda o: lr.CyclicLR(o, 0.01, 0.1, 3, mode="exp_range", gamma=0.9),
    "ReduceLROnPlateau": lambda o: lr.ReduceLROnPlateau(o, patience=0, cooldown=1),
    "SequentialLR": lambda o: lr.SequentialLR(o, [lr.LinearLR(o, 0.1, 1, 4), lr.StepLR(o, 2)], [4]),
    "ChainedScheduler": lambda o: lr.ChainedScheduler([lr.ConstantLR(o, 0.5, 5), lr.ExponentialLR(o, 0.9)]),
}


@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
def test_a_scheduler_goes_on_bitwise(make: Any, tmp_path: Path) -> None:
    def build(model: Model) -> tuple[Any, Any]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        return optimizer, make(optimizer)

    def rates(model: Model, optimizer: Any, scheduler: Any) -> list[float]:
        seen = []
        for step in range(STEPS, STEPS + 6):
            train(model, optimizer, scheduler, step, 1)
            seen.append(optimizer.param_groups[0]["lr"])
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


TENSORS = {
    "float64": torch.tensor([math.pi, -0.0, math.inf, -math.inf], dtype=torch.float64),
    "float32": torch.tensor([[1.5, -2.5], [0.1, 3e38]]),
    "float16": torch.tensor([0.1, 65504.0, 6e-8], dtype=torch.float16),
    "bfloat16": torch.tensor([[0.1, 3e38, 1e-40]], dtype=torch.bfloat16),
    "int64": torch.tensor([-(2**63), 2**63 - 1]),
    "int32": torch.tensor([-1, 7], dtype=torch.int32),
    "int16": torch.tensor([-1, 7], dtype=torch.int16),
    "int8": torch.tensor([-128, 127], dtype=torch.int8),
    "uint8": torch.tensor([0, 255], dtype=torch.uint8),
    "bool": torch.tensor([[True], [False]]),
    "complex64": torch.tensor([1 + 2j, -3j]),
    "0-d": torch.tensor(0.25),
    "0-d bool": torch.tensor(True),
    "0-d bfloat16": torch.tensor(0.1, dtype=torch.bfloat16),
    "empty": torch.empty(0, 3),
    "empty bool": torch.empty(2, 0, dtype=torch.bool),
    "transposed": torch.arange(6.0).reshape(2, 3).T,
    "every second": torch.arange(10)[::2],
    "expanded": torch.tensor([1.0]).expand(3),
    "with a graph": torch.arange(3.0, requires_grad=True) * 2,
    "conjugated": torch.tensor([1 + 2j]).conj(),
}


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_a_tensor_goes_through_a_file_bitwise(tensor: torch.Tensor, tmp_path: Path) -> None:
    write_folder(tmp_path / "c", prepare({}, {"w": {"t": BACKEND.tensor_state(tensor)}}, {}))
    back = BACKEND.tensor_from_state(FolderReader(tmp_path / "c").weights("w")["t"])
    assert (back.dtype, back.shape, back.requires_grad) == (tensor.dtype, tensor.shape, False)
    assert bytes(to_array(back).data) == bytes(to_array(tensor).data)
    assert torch.equal(back, tensor.detach())
    assert back.untyped_storage().nbytes() == back.numel() * back.element_size()


@pytest.mark.parametrize("name", ["float32", "transposed", "bfloat16", "0-d", "expanded"])
def test_plain_data_and_tensors_share_no_memory(name: str) -> None:
    tensor = TENSORS[name].clone()
    array = to_array(tensor)
    stored = bytes(array.data)
    tensor.zero_()
    assert bytes(array.data) == stored
    to_tensor(array).zero_()
    assert bytes(array.data) == stored


def test_a_model_shares_no_memory_with_what_it_was_loaded_from() -> None:
    model = Model()
    state = BACKEND.model_state(model)
    stored = repr_of(state)
    other = Model()
    BACKEND.load_model_state(other, state)
    train(other, OPTIMIZERS["Adam"](other.parameters()), None, 0)
    assert repr_of(state) == stored


def test_slots_take_over_memory_that_is_aligned(tmp_path: Path) -> None:
    model = torch.nn.Linear(600, 500)  # 1.2 MB, and its bias
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 600)).sum().backward()
    optimizer.step()
    numbers = {id(item): f"0/{name}" for name, item in model.named_parameters()}
    saved = through_disk(tmp_path, model, {"optimizer_0": BACKEND.optimizer_state(optimizer, numbers)})
    state = saved.tree("optimizer_0")
    expected = repr_of(state)
    BACKEND.load_optimizer_state(optimizer, numbers, state)
    assert repr_of(BACKEND.optimizer_state(optimizer, numbers)) == expected
    for name, item in model.named_parameters():
        for slot, live in optimizer.state[item].items():
            assert live.data_ptr() % 64 == 0
            stored = np.frombuffer(state["state"][f"0/{name}"][slot].data, np.uint8)
            taken_over = stored.ctypes.data == live.data_ptr()
            assert taken_over or live.nbytes < 2**20, "a large one was copied"
    unaligned = np.zeros(68, np.uint8)[4:]
    assert unaligned.ctypes.data % 64
    assert from_tree(Array("U8", (64,), unaligned)).data_ptr() % 64 == 0


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
    tensor = torch.tensor([0x7FC00001, 0x7FC12345], dtype=torch.int32).view(torch.float32)
    assert torch.equal(to_tensor(to_array(tensor)).view(torch.int32), tensor.view(torch.int32))


def test_the_file_is_readable_by_the_framework_alone(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = Model()
    write_folder(tmp_path / "c", prepare({}, {"model_0": BACKEND.model_state(model)}, {}))
    loaded = load_file(tmp_path / "c" / "model_0.safetensors")
    assert loaded.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(loaded[name], value), name


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_what_cannot_be_stored_is_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match=r"weight is a torch\.sparse_csc tensor"):
        to_array(torch.eye(2).to_sparse_csc(), "weight")
    with pytest.raises(CheckpointError, match=r"weight is a .* type torch\.quint8"):
        to_array(torch.quantize_per_tensor(torch.zeros(1), 1.0, 0, torch.quint8), "weight")


def test_extra_state_that_is_not_plain_is_refused_with_its_path(tmp_path: Path) -> None:
    class Extra(torch.nn.Module):
        def get_extra_state(self) -> Any:
            return {"count": object()}

        def set_extra_state(self, state: Any) -> None: ...

    assert BACKEND.model_layout(Extra())["_extra_state"].layout == "state"
    with pytest.raises(CheckpointError, match=r"model_0: the value at _extra_state/count is a object"):
        prepare({}, {"model_0": BACKEND.model_state(Extra())}, {})


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    def build() -> torch.nn.Module:
        model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
        model[1].weight = model[0].weight
        return model

    model, other = build(), build()
    saved = through_disk(tmp_path, model, {})
    BACKEND.load_model_state(other, saved.weights("model_0"))
    assert other[1].weight is other[0].weight
    assert weights(other) == weights(model)


def test_buffers_that_are_not_saved_are_left_out() -> None:
    model = torch.nn.Module()
    model.register_buffer("kept", torch.ones(2))
    model.register_buffer("left_out", torch.ones(2), persistent=False)
    assert BACKEND.model_state(model).keys() == {"kept"}


def test_an_optimizer_of_other_parameters_is_refused_with_every_difference() -> None:
    model = Model()
    whole = torch.optim.Adam(model.parameters())
    part = torch.optim.Adam(model.first.parameters())
    state = BACKEND.optimizer_state(part, names(model))
    before = whole.state_dict()
    with pytest.raises(CheckpointError) as caught:
        BACKEND.load_optimizer_state(whole, names(model), state)
    assert "group 0: missing: 0/second.weight" in str(caught.value)
    assert "group 0: missing: 0/second.bias" in str(caught.value)
    assert whole.state_dict() == before
    groups = torch.optim.Adam(two_groups(model, False))
    with pytest.raises(CheckpointError, match="1 parameter groups and now has 2"):
        BACKEND.load_optimizer_state(groups, names(model), state)

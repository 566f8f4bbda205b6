"""What safetensors has no name for, stored: tensors of PyTorch of every type and layout, under any name."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from dowdyboy_core import CheckpointError
from dowdyboy_torch import Trainer, TrainerConfig
from dowdyboy_torch.model_util import load_checkpoint, save_checkpoint

coo = partial(torch.sparse_coo_tensor, check_invariants=True)


def csr(dense: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return dense.to_sparse_csr()


PAIRS = torch.tensor([[0, 1, 3], [1, 0, 2]])
BUFFERS: dict[str, torch.Tensor] = {
    **{
        name: torch.tensor([1.0, 2.0, 0.0]).to(getattr(torch, name))
        for name in ("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz",
                     "float8_e5m2fnuz", "float8_e8m0fnu", "complex64")
    },
    "complex128": torch.tensor([[1 + 2j, 0], [float("nan"), 5j]], dtype=torch.complex128).T,
    "point": torch.tensor(1 - 2j, dtype=torch.complex128),
    "conjugated": torch.tensor([1 + 2j], dtype=torch.complex128).conj(),
    "none": torch.zeros(0, 3, dtype=torch.complex128),
    "__metadata__": torch.ones(2),
    "coo": coo(PAIRS, torch.tensor([1.0, 2.0, 3.0]), (4, 5)).coalesce(),
    "unordered": coo(PAIRS[:, [1, 0, 1]], torch.tensor([1.0, 2.0, 3.0]), (4, 5)),
    "hybrid": coo(PAIRS[:1], torch.arange(6.0).reshape(3, 2), (4, 2)).coalesce(),
    "empty": coo(size=(3, 3)),
    "waves": coo(PAIRS, torch.tensor([1j, 2, 3], dtype=torch.complex128), (4, 5)).coalesce(),
    "csr": csr(torch.eye(3, 5)),
}  # fmt: skip


class Net(torch.nn.Module):
    """A layer, and buffers of all kinds."""

    def __init__(self, buffers: dict[str, torch.Tensor], extra: Any = None) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.extra = extra
        for name, value in buffers.items():
            self.register_buffer(name, value.clone())

    def get_extra_state(self) -> Any:
        return self.extra

    def set_extra_state(self, state: Any) -> None:
        self.extra = state

    def forward(self, x: Any) -> Any:
        return self.layer(x)


def emptied() -> Net:
    """The same model with other values."""
    others = {
        name: coo(size=value.shape, dtype=value.dtype)
        if value.layout is torch.sparse_coo and value.sparse_dim() == value.ndim
        else value * 0 if value.layout is not torch.strided
        else torch.zeros(value.shape).to(value.dtype)
        for name, value in BUFFERS.items()
    }  # fmt: skip
    return Net(others, {"scale": 0.0})


EXTRA = {"scale": 1.5, "window": [1, 2], "amax": torch.tensor([1.0, 2.0]), "name": "e4m3", "code": b"\0x", "at": 1j}


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    if (one.dtype, one.shape, one.layout) != (other.dtype, other.shape, other.layout):
        return False
    if one.layout is torch.sparse_coo:
        parts = [(one._indices(), other._indices()), (one._values(), other._values())]
        return one.is_coalesced() == other.is_coalesced() and all(same(*pair) for pair in parts)
    if one.layout is torch.sparse_csr:
        return same(one.col_indices(), other.col_indices()) and same(one.values(), other.values())
    plain = [item.resolve_conj().contiguous().reshape(-1).view(torch.uint8) for item in (one, other)]
    return torch.equal(*plain)


def check(model: Net) -> None:
    for name, value in BUFFERS.items():
        assert same(getattr(model, name), value), name
    assert model.extra.keys() == EXTRA.keys()
    assert torch.equal(model.extra["amax"], EXTRA["amax"])  # type: ignore[arg-type]
    assert {**model.extra, "amax": 0} == {**EXTRA, "amax": 0}


def test_every_kind_of_tensor_goes_through_a_checkpoint(tmp_path: Path) -> None:
    made = save_checkpoint(1, tmp_path, [Net(BUFFERS, EXTRA)])
    model = emptied()
    load_checkpoint(made, [model])
    check(model)
    from safetensors.torch import load_file

    kept = load_file(made / "model_0.safetensors")
    index = json.loads((made / "checkpoint.json").read_bytes())["packed"]["model_0"]
    assert same(kept["float8_e5m2"], BUFFERS["float8_e5m2"])
    assert same(torch.view_as_complex(kept["complex128"]), BUFFERS["complex128"].contiguous())
    assert index["__metadata__"] == {"$array": "__metadata__/array"}
    assert torch.equal(kept["__metadata__/array"], BUFFERS["__metadata__"])
    parts = [{"$array": "coo/indices"}, {"$array": "coo/values"}]
    assert index["coo"] == {"$sparse": ["coo", [4, 5], *parts]}


def test_a_run_goes_on_with_them(tmp_path: Path) -> None:
    def run(model: Net, folder: Path, **changed: Any) -> None:
        trainer = Trainer(TrainerConfig(out_dir=folder, cpu=True, disable_tqdm=True, log_with="none", **changed))
        trainer.set_model(model)
        trainer.set_optimizer(torch.optim.SGD(model.parameters(), lr=0.1))
        trainer.set_train_dataloader([torch.ones(1, 2)])
        trainer.fit(lambda trainer, bat, *_: trainer.get_models()[0](bat).sum())

    run(Net(BUFFERS, EXTRA), tmp_path, epoch=1)
    model = emptied()
    run(model, tmp_path, epoch=1, resume="auto")
    check(model)


def test_sparse_arrays_of_another_make_are_refused(tmp_path: Path) -> None:
    made = save_checkpoint(1, tmp_path, [Net({"a": BUFFERS["csr"], "b": BUFFERS["coo"]})])
    more = csr(torch.ones(3, 5))
    for others, said in (
        ({"a": more, "b": BUFFERS["coo"]}, "elements of a"),
        ({"a": BUFFERS["csr"], "b": torch.ones(4, 5)}, "kind of b: stored coo, wanted dense"),
    ):
        with pytest.raises(CheckpointError, match=said):
            load_checkpoint(made, [Net(others)])


CASES: dict[str, Callable[[], torch.nn.Module]] = {
    "csc": lambda: Net({"a": torch.eye(2).to_sparse_csc()}),
    "quantized": lambda: Net({"a": torch.quantize_per_tensor(torch.zeros(1), 1.0, 0, torch.quint8)}),
    "an object": lambda: Net({}, {"of": object()}),
}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_stored_is_refused_before_the_first_batch(name: str, tmp_path: Path) -> None:
    model = CASES[name]()
    trainer = Trainer(TrainerConfig(out_dir=tmp_path, cpu=True, disable_tqdm=True, log_with="none"))
    trainer.set_model(model)
    trainer.set_optimizer(torch.optim.SGD(model.parameters(), lr=0.1))
    trainer.set_train_dataloader([torch.ones(1, 2)])
    with pytest.raises(CheckpointError, match=r"(a is a .*tensor|_extra_state/of is a object).*enable_save_checkpoint"):
        trainer.fit(lambda *_: pytest.fail("a batch was trained"))
    assert not (tmp_path / "checkpoint").exists()

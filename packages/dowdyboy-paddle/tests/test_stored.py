"""What safetensors has no name for, stored: tensors of PaddlePaddle of every type and layout, under any name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from dowdyboy_core import CheckpointError
from dowdyboy_paddle import Trainer, TrainerConfig
from dowdyboy_paddle.model_util import load_checkpoint, save_checkpoint

PAIRS = [[0, 1, 3], [1, 0, 2]]


def coo(values: Any, places: Any = PAIRS, shape: Any = (4, 5)) -> paddle.Tensor:
    return paddle.sparse.sparse_coo_tensor(places, paddle.to_tensor(values), list(shape))


BUFFERS: dict[str, Callable[[], paddle.Tensor]] = {
    "float8_e4m3fn": lambda: paddle.to_tensor([1.0, 2.0]).astype("float8_e4m3fn"),
    "float8_e5m2": lambda: paddle.to_tensor([1.0, 2.0]).astype("float8_e5m2"),
    "complex64": lambda: paddle.to_tensor([1 + 2j], dtype="complex64"),
    "complex128": lambda: paddle.to_tensor([[1 + 2j, 0], [3, 5j]], dtype="complex128").T,
    "point": lambda: paddle.to_tensor(1 - 2j, dtype="complex128"),
    "__metadata__": lambda: paddle.ones([2]),
    "coo": lambda: coo([1.0, 2.0, 3.0]),
    "hybrid": lambda: coo([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], PAIRS[:1], (4, 2)),
    "waves": lambda: coo(np.array([1j, 2, 3])),
    "csr": lambda: coo([1.0, 2.0, 3.0]).to_sparse_csr(),
}
OTHERS: dict[str, Callable[[], paddle.Tensor]] = {
    "float8_e4m3fn": lambda: paddle.zeros([2]).astype("float8_e4m3fn"),
    "float8_e5m2": lambda: paddle.zeros([2]).astype("float8_e5m2"),
    "complex64": lambda: paddle.zeros([1], dtype="complex64"),
    "complex128": lambda: paddle.zeros([2, 2], dtype="complex128"),
    "point": lambda: paddle.to_tensor(0, dtype="complex128"),
    "__metadata__": lambda: paddle.zeros([2]),
    "coo": lambda: coo([9.0], [[2], [2]]),
    "hybrid": lambda: coo([[7.0, 8.0]], [[2]], (4, 2)),
    "waves": lambda: coo(np.array([4j]), [[2], [2]]),
    "csr": lambda: coo([9.0], [[2], [2]]).to_sparse_csr(),
}


class Net(paddle.nn.Layer):
    """A layer, and buffers of all kinds."""

    def __init__(self, buffers: dict[str, Callable[[], paddle.Tensor]]) -> None:
        super().__init__()
        self.layer = paddle.nn.Linear(2, 1)
        for name, make in buffers.items():
            self.register_buffer(name, make())

    def forward(self, x: Any) -> Any:
        return self.layer(x)


def parts(tensor: paddle.Tensor) -> list[Any]:
    """What a tensor is, to be compared."""
    if tensor.is_sparse_coo():
        return ["coo", *parts(tensor.indices()), *parts(tensor.values())]
    if tensor.is_sparse_csr():
        return ["csr", *parts(tensor.crows()), *parts(tensor.cols()), *parts(tensor.values())]
    return [str(tensor.dtype), tensor.shape, np.ascontiguousarray(tensor.numpy()).tobytes()]


def check(model: Net) -> None:
    for name, make in BUFFERS.items():
        assert parts(getattr(model, name)) == parts(make()), name


def test_every_kind_of_tensor_goes_through_a_checkpoint(tmp_path: Path) -> None:
    made = save_checkpoint(1, tmp_path, [Net(BUFFERS)])
    model = Net(OTHERS)
    load_checkpoint(made, [model])
    check(model)
    from safetensors.paddle import load_file

    kept = load_file(str(made / "model_0.safetensors"))
    index = json.loads((made / "checkpoint.json").read_bytes())["packed"]["model_0"]
    assert parts(kept["float8_e5m2"]) == parts(BUFFERS["float8_e5m2"]())
    assert parts(paddle.as_complex(kept["complex128"])) == parts(BUFFERS["complex128"]())
    assert index["__metadata__"] == {"$array": "__metadata__/array"}
    assert kept["__metadata__/array"].tolist() == [1, 1]
    named = [{"$array": "coo/indices"}, {"$array": "coo/values"}]
    assert index["coo"] == {"$sparse": ["coo", [4, 5], *named]}


def test_a_run_goes_on_with_them(tmp_path: Path) -> None:
    def run(model: Net, folder: Path, **changed: Any) -> None:
        trainer = Trainer(TrainerConfig(out_dir=folder, cpu=True, disable_tqdm=True, log_with="none", **changed))
        trainer.set_model(model)
        trainer.set_optimizer(paddle.optimizer.SGD(0.1, parameters=model.parameters()))
        trainer.set_train_dataloader([paddle.ones([1, 2])])
        trainer.fit(lambda trainer, bat, *_: trainer.get_models()[0](bat).sum())

    run(Net(BUFFERS), tmp_path, epoch=1)
    model = Net(OTHERS)
    run(model, tmp_path, epoch=1, resume="auto")
    check(model)


def test_sparse_arrays_of_another_make_are_refused(tmp_path: Path) -> None:
    made = save_checkpoint(1, tmp_path, [Net({"a": BUFFERS["coo"]})])
    for other, said in ((lambda: paddle.ones([4, 5]), "wanted dense"), (BUFFERS["csr"], "stored coo, wanted csr")):
        with pytest.raises(CheckpointError, match=f"kind of a: .*{said}"):
            load_checkpoint(made, [Net({"a": other})])


def test_what_cannot_be_stored_is_refused_before_the_first_batch(tmp_path: Path) -> None:
    model = Net({"a": lambda: paddle.ones([2]).astype(paddle.uint32)})
    trainer = Trainer(TrainerConfig(out_dir=tmp_path, cpu=True, disable_tqdm=True, log_with="none"))
    trainer.set_model(model)
    trainer.set_optimizer(paddle.optimizer.SGD(0.1, parameters=model.parameters()))
    trainer.set_train_dataloader([paddle.ones([1, 2])])
    with pytest.raises(CheckpointError, match=r"a is a dense tensor of type paddle.uint32.*enable_save_checkpoint"):
        trainer.fit(lambda *_: pytest.fail("a batch was trained"))
    assert not (tmp_path / "checkpoint").exists()

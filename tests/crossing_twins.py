"""Twins of one model, optimizer and scheduler in both frameworks, for the tests of runs that cross between them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import paddle
import torch
from paddle.optimizer import lr as paddle_lr
from torch.optim import lr_scheduler as torch_lr

import dowdyboy_paddle
import dowdyboy_torch

PACKAGES = {"torch": dowdyboy_torch, "paddle": dowdyboy_paddle}
OTHER = {"torch": "paddle", "paddle": "torch"}
DIRECTIONS = [("torch", "paddle"), ("paddle", "torch")]


class TorchTable(torch.nn.Module):
    """A module of the user's own, with tensors of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.randn(4, 3))
        self.register_buffer("seen", torch.arange(5).float())
        self.inner = torch.nn.Linear(3, 3)


class PaddleTable(paddle.nn.Layer):
    """That again."""

    def __init__(self) -> None:
        super().__init__()
        self.table = self.create_parameter([4, 3])
        self.register_buffer("seen", paddle.arange(5).astype("float32"))
        self.inner = paddle.nn.Linear(3, 3)


class TorchScaled(torch.nn.Linear):
    """A layer of the framework's with something of the user's in it."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.scale = torch.nn.Parameter(torch.randn(4))


class PaddleScaled(paddle.nn.Linear):
    """That again."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.scale = self.create_parameter([4])


class TorchTied(torch.nn.Module):
    """An embedding whose weight is that of the last layer as well, which a linear layer here keeps alike."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(6, 3)
        self.head = torch.nn.Linear(3, 6, bias=False)
        self.head.weight = self.table.weight
        self.again = self.table


class PaddleTied(paddle.nn.Layer):
    """That again, with a linear layer that keeps its weight as PyTorch does."""

    def __init__(self) -> None:
        super().__init__()
        self.table = paddle.nn.Embedding(6, 3)
        self.head = paddle.compat.nn.Linear(3, 6, bias=False)
        self.head.weight = self.table.weight
        self.again = self.table


def _torch_shared() -> torch.nn.Module:
    n = torch.nn
    layer = n.Linear(3, 3)
    nested = n.ModuleDict({"left": n.ModuleList([n.Linear(2, 3), n.Linear(3, 2)]), "right": n.ModuleList([layer])})
    return n.ModuleDict({"nested": nested, "same": layer, "listed": n.ParameterList([n.Parameter(torch.randn(2, 2))])})


def _paddle_shared() -> paddle.nn.Layer:
    n = paddle.nn
    layer = n.Linear(3, 3)
    nested = n.LayerDict({"left": n.LayerList([n.Linear(2, 3), n.Linear(3, 2)]), "right": n.LayerList([layer])})
    listed = n.ParameterList([paddle.create_parameter([2, 2], "float32")])
    return n.LayerDict({"nested": nested, "same": layer, "listed": listed})


def _torch_parametrized(kind: str, layer: torch.nn.Module) -> torch.nn.Module:
    made: torch.nn.Module = getattr(torch.nn.utils.parametrizations, kind)(layer)
    return made


T, P = torch.nn, paddle.nn
KINDS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "linear_square": (lambda: T.Linear(4, 4), lambda: P.Linear(4, 4)),
    "linear_no_bias": (lambda: T.Linear(3, 5, bias=False), lambda: P.Linear(3, 5, bias_attr=False)),
    "linear_of_compat": (lambda: T.Linear(4, 4), lambda: paddle.compat.nn.Linear(4, 4)),
    "conv1": (lambda: T.Conv1d(4, 6, 3, groups=2), lambda: P.Conv1D(4, 6, 3, groups=2)),
    "conv2": (lambda: T.Conv2d(3, 3, 3), lambda: P.Conv2D(3, 3, 3)),
    "conv2_depthwise": (lambda: T.Conv2d(4, 4, 3, groups=4), lambda: P.Conv2D(4, 4, 3, groups=4)),
    "conv3": (lambda: T.Conv3d(2, 4, 2, bias=False), lambda: P.Conv3D(2, 4, 2, bias_attr=False)),
    "transposed1": (lambda: T.ConvTranspose1d(3, 4, 2), lambda: P.Conv1DTranspose(3, 4, 2)),
    "transposed2": (lambda: T.ConvTranspose2d(4, 6, 2, groups=2), lambda: P.Conv2DTranspose(4, 6, 2, groups=2)),
    "transposed3": (lambda: T.ConvTranspose3d(2, 2, 2), lambda: P.Conv3DTranspose(2, 2, 2)),
    "batch_norm1": (lambda: T.BatchNorm1d(4), lambda: P.BatchNorm1D(4)),
    "batch_norm2_plain": (
        lambda: T.BatchNorm2d(4, affine=False),
        lambda: P.BatchNorm2D(4, weight_attr=False, bias_attr=False),
    ),
    "batch_norm3": (lambda: T.BatchNorm3d(3), lambda: P.BatchNorm3D(3)),
    "batch_norm_old": (lambda: T.BatchNorm2d(3), lambda: P.BatchNorm(3)),
    "sync_batch_norm": (lambda: T.SyncBatchNorm(4), lambda: P.SyncBatchNorm(4)),
    "instance_norm": (lambda: T.InstanceNorm2d(4, affine=True), lambda: P.InstanceNorm2D(4)),
    "instance_norm_plain": (
        lambda: T.InstanceNorm1d(4),
        lambda: P.InstanceNorm1D(4, weight_attr=False, bias_attr=False),
    ),
    "layer_norm": (lambda: T.LayerNorm(6), lambda: P.LayerNorm(6)),
    "layer_norm_two": (lambda: T.LayerNorm([2, 3]), lambda: P.LayerNorm([2, 3])),
    "layer_norm_no_bias": (lambda: T.LayerNorm(6, bias=False), lambda: P.LayerNorm(6, bias_attr=False)),
    "group_norm": (lambda: T.GroupNorm(2, 4), lambda: P.GroupNorm(2, 4)),
    "embedding": (lambda: T.Embedding(5, 5), lambda: P.Embedding(5, 5)),
    "bilinear": (lambda: T.Bilinear(3, 4, 2), lambda: P.Bilinear(3, 4, 2)),
    "prelu": (lambda: T.PReLU(3), lambda: P.PReLU(3)),
    "lstm": (lambda: T.LSTM(3, 4, batch_first=True), lambda: P.LSTM(3, 4)),
    "lstm_stacked": (
        lambda: T.LSTM(4, 4, 2, bidirectional=True, batch_first=True),
        lambda: P.LSTM(4, 4, 2, "bidirect"),
    ),
    "lstm_projected": (
        lambda: T.LSTM(3, 4, 2, bidirectional=True, proj_size=2, batch_first=True),
        lambda: P.LSTM(3, 4, 2, "bidirect", proj_size=2),
    ),
    "gru_stacked": (lambda: T.GRU(4, 4, 2, bidirectional=True, batch_first=True), lambda: P.GRU(4, 4, 2, "bidirect")),
    "rnn": (lambda: T.RNN(3, 3, 2, bidirectional=True, batch_first=True), lambda: P.SimpleRNN(3, 3, 2, "bidirect")),
    "lstm_cell": (lambda: T.LSTMCell(3, 4), lambda: P.LSTMCell(3, 4)),
    "gru_cell": (lambda: T.GRUCell(4, 4), lambda: P.GRUCell(4, 4)),
    "rnn_cell": (lambda: T.RNNCell(3, 3), lambda: P.SimpleRNNCell(3, 3)),
    "attention": (lambda: T.MultiheadAttention(4, 2, batch_first=True), lambda: P.MultiHeadAttention(4, 2)),
    "attention_no_bias": (
        lambda: T.MultiheadAttention(4, 2, bias=False, batch_first=True),
        lambda: P.MultiHeadAttention(4, 2, bias_attr=False),
    ),
    "attention_apart": (
        lambda: T.MultiheadAttention(4, 2, kdim=3, vdim=2, batch_first=True),
        lambda: P.MultiHeadAttention(4, 2, kdim=3, vdim=2),
    ),
    "attention_of_compat": (
        lambda: T.MultiheadAttention(4, 2, batch_first=True),
        lambda: paddle.compat.nn.MultiheadAttention(4, 2, batch_first=True),
    ),
    "attention_of_compat_apart": (
        lambda: T.MultiheadAttention(4, 2, kdim=3, vdim=2, add_bias_kv=True, batch_first=True),
        lambda: paddle.compat.nn.MultiheadAttention(4, 2, kdim=3, vdim=2, add_bias_kv=True, batch_first=True),
    ),
    "encoder": (
        lambda: T.TransformerEncoder(
            T.TransformerEncoderLayer(4, 2, 4, batch_first=True), 2, enable_nested_tensor=False
        ),
        lambda: P.TransformerEncoder(P.TransformerEncoderLayer(4, 2, 4), 2),
    ),
    "decoder": (
        lambda: T.TransformerDecoder(T.TransformerDecoderLayer(4, 2, 4, batch_first=True), 2, T.LayerNorm(4)),
        lambda: P.TransformerDecoder(P.TransformerDecoderLayer(4, 2, 4), 2, P.LayerNorm(4)),
    ),
    "transformer": (
        lambda: T.Transformer(4, 2, 1, 1, 6, batch_first=True),
        lambda: P.Transformer(4, 2, 1, 1, 6),
    ),
    "weight_norm": (
        lambda: T.utils.weight_norm(T.Conv2d(3, 4, 2)),
        lambda: P.utils.weight_norm(P.Conv2D(3, 4, 2)),
    ),
    "weight_norm_linear": (
        lambda: _torch_parametrized("weight_norm", T.Linear(4, 4)),
        lambda: P.utils.weight_norm(P.Linear(4, 4), dim=1),
    ),
    "weight_norm_transposed": (
        lambda: _torch_parametrized("weight_norm", T.ConvTranspose2d(3, 4, 2)),
        lambda: P.utils.weight_norm(P.Conv2DTranspose(3, 4, 2)),
    ),
    "spectral_norm": (
        lambda: T.utils.spectral_norm(T.Linear(4, 4)),
        lambda: P.utils.spectral_norm(P.Linear(4, 4)),
    ),
    "spectral_norm_conv": (
        lambda: _torch_parametrized("spectral_norm", T.Conv2d(3, 4, 2)),
        lambda: P.utils.spectral_norm(P.Conv2D(3, 4, 2)),
    ),
    "spectral_norm_transposed": (
        lambda: _torch_parametrized("spectral_norm", T.ConvTranspose2d(3, 3, 2)),
        lambda: P.utils.spectral_norm(P.Conv2DTranspose(3, 3, 2)),
    ),
    "own": (TorchTable, PaddleTable),
    "own_subclass": (TorchScaled, PaddleScaled),
    "tied": (TorchTied, PaddleTied),
    "shared": (_torch_shared, _paddle_shared),
}
"""For each kind of layer how it is made in PyTorch and in PaddlePaddle."""

INPUTS: dict[str, tuple[tuple[int, ...], ...]] = {
    "linear_square": ((2, 4),), "linear_no_bias": ((2, 3),), "linear_of_compat": ((2, 4),), "conv1": ((2, 4, 7),),
    "conv2": ((2, 3, 5, 5),), "conv2_depthwise": ((2, 4, 5, 5),), "conv3": ((1, 2, 4, 4, 4),),
    "transposed1": ((2, 3, 5),), "transposed2": ((2, 4, 4, 4),), "transposed3": ((1, 2, 3, 3, 3),),
    "batch_norm1": ((3, 4),), "batch_norm2_plain": ((2, 4, 3, 3),), "batch_norm3": ((2, 3, 2, 2, 2),),
    "batch_norm_old": ((2, 3, 3, 3),), "instance_norm": ((2, 4, 3, 3),), "instance_norm_plain": ((2, 4, 5),),
    "layer_norm": ((2, 6),), "layer_norm_two": ((2, 2, 3),), "layer_norm_no_bias": ((2, 6),),
    "group_norm": ((2, 4, 3),), "bilinear": ((2, 3), (2, 4)), "prelu": ((2, 3, 4),), "lstm": ((2, 5, 3),),
    "lstm_stacked": ((2, 5, 4),), "lstm_projected": ((2, 5, 3),), "gru_stacked": ((2, 5, 4),), "rnn": ((2, 5, 3),),
    "lstm_cell": ((2, 3),), "gru_cell": ((2, 4),), "rnn_cell": ((2, 3),), "attention": ((2, 3, 4),) * 3,
    "attention_no_bias": ((2, 3, 4),) * 3, "attention_apart": ((2, 3, 4), (2, 5, 3), (2, 5, 2)),
    "attention_of_compat": ((2, 3, 4),) * 3, "attention_of_compat_apart": ((2, 3, 4), (2, 5, 3), (2, 5, 2)),
    "encoder": ((2, 3, 4),), "decoder": ((2, 3, 4), (2, 5, 4)), "transformer": ((2, 3, 4), (2, 5, 4)),
    "weight_norm": ((2, 3, 4, 4),), "weight_norm_linear": ((2, 4),), "weight_norm_transposed": ((2, 3, 3, 3),),
    "spectral_norm": ((2, 4),), "spectral_norm_conv": ((2, 3, 4, 4),), "spectral_norm_transposed": ((2, 3, 3, 3),),
    "own_subclass": ((2, 4),),
}  # fmt: skip
"""The shapes of what goes into the layers; those of the others are said in ``output``."""


def output(framework: str, kind: str, layer: Any) -> Any:
    """What a layer makes of the same input in both frameworks, without dropout and with its running statistics."""
    stream = np.random.default_rng(5)
    tensor: Any = torch.from_numpy if framework == "torch" else paddle.to_tensor
    ids = tensor(stream.integers(0, 5, (2, 3)))
    layer.eval()
    with torch.no_grad(), paddle.no_grad():
        if kind == "sync_batch_norm":  # for which PaddlePaddle has nothing to compute with on a CPU
            return np.zeros(1)
        if kind == "embedding":
            return values(layer(ids))
        if kind == "tied":
            return values(layer.head(layer.table(ids)) + layer.again(ids).sum())
        if kind == "own":
            return values(layer.inner(layer.table)) + values(layer.seen).sum()
        if kind == "shared":
            pieces = layer["nested"]["left"]
            chained = layer["nested"]["right"][0](layer["same"](pieces[0](layer["listed"][0])))
            return values(pieces[1](chained))
        given = [tensor(stream.normal(size=shape).astype("float32")) for shape in INPUTS[kind]]
        made = layer(*given)
        while isinstance(made, (tuple, list)):
            made = made[0]
        return values(made)


OT, Q = torch.optim, paddle.optimizer
OPTIMIZERS: dict[str, tuple[float, Callable[[Any, float], Any], Callable[[Any, Any], Any]]] = {
    "sgd": (0.05, lambda p, r: OT.SGD(p, r), lambda p, r: Q.SGD(r, p)),
    "momentum": (0.02, lambda p, r: OT.SGD(p, r, 0.9), lambda p, r: Q.Momentum(r, 0.9, p)),
    "nesterov": (
        0.02,
        lambda p, r: OT.SGD(p, r, 0.8, weight_decay=0.01, nesterov=True),
        lambda p, r: Q.Momentum(r, 0.8, p, True, 0.01),
    ),
    "adam": (0.01, lambda p, r: OT.Adam(p, r), lambda p, r: Q.Adam(r, parameters=p)),
    "amsgrad": (0.01, lambda p, r: OT.Adam(p, r, amsgrad=True), lambda p, r: Q.Adam(r, parameters=p, amsgrad=True)),
    "adamw": (
        0.01,
        lambda p, r: OT.AdamW(p, r, (0.8, 0.95), weight_decay=0.1),
        lambda p, r: Q.AdamW(r, 0.8, 0.95, weight_decay=0.1, parameters=p),
    ),
    "nadam": (0.01, lambda p, r: OT.NAdam(p, r), lambda p, r: Q.NAdam(r, parameters=p)),
    "radam": (0.01, lambda p, r: OT.RAdam(p, r), lambda p, r: Q.RAdam(r, parameters=p)),
    "adamax": (0.01, lambda p, r: OT.Adamax(p, r), lambda p, r: Q.Adamax(r, parameters=p)),
    "adagrad": (0.05, lambda p, r: OT.Adagrad(p, r, eps=1e-6), lambda p, r: Q.Adagrad(r, parameters=p)),
    "adadelta": (
        1.0,
        lambda p, r: OT.Adadelta(p, r, rho=0.95),
        lambda p, r: Q.Adadelta(r, 1e-6, 0.95, parameters=p),
    ),
    "rmsprop": (
        0.005,
        lambda p, r: OT.RMSprop(p, r, 0.95, eps=1e-6, momentum=0.9, centered=True),
        lambda p, r: Q.RMSProp(r, 0.95, 1e-12, 0.9, True, p),
    ),
    "rprop": (
        0.01,
        lambda p, r: OT.Rprop(p, r, step_sizes=(1e-5, 50)),
        lambda p, r: Q.Rprop(r, (1e-5, 50), p),
    ),
}
"""For each optimizer its learning rate, and how it is made in PyTorch and in PaddlePaddle."""

SCHEDULES: dict[str, tuple[Callable[[Any, float], Any], Callable[[float], Any]]] = {
    "none": (lambda o, r: None, lambda r: None),
    "step": (lambda o, r: torch_lr.StepLR(o, 2, 0.5), lambda r: paddle_lr.StepDecay(r, 2, 0.5)),
    "cosine": (
        lambda o, r: torch_lr.CosineAnnealingLR(o, 20, r / 10),
        lambda r: paddle_lr.CosineAnnealingDecay(r, 20, r / 10),
    ),
    "restarts": (
        lambda o, r: torch_lr.CosineAnnealingWarmRestarts(o, 3, 2),
        lambda r: paddle_lr.CosineAnnealingWarmRestarts(r, 3, 2),
    ),
    "one_cycle": (
        lambda o, r: torch_lr.OneCycleLR(o, r, total_steps=40, cycle_momentum=False),
        lambda r: paddle_lr.OneCycleLR(r, 40, 25, r / 25 / 1e4, 0.3, "cos", False),
    ),
    "warmup": (
        lambda o, r: torch_lr.SequentialLR(
            o, [torch_lr.LinearLR(o, 0.1, 1.0, 3), torch_lr.CosineAnnealingLR(o, 20)], [3]
        ),
        lambda r: paddle_lr.LinearWarmup(paddle_lr.CosineAnnealingDecay(r, 20), 3, 0.1 * r, r),
    ),
    "plateau": (
        lambda o, r: torch_lr.ReduceLROnPlateau(o, "min", 0.5, 1),
        lambda r: paddle_lr.ReduceOnPlateau(r, "min", 0.5, 1),
    ),
    "polynomial": (
        lambda o, r: torch_lr.PolynomialLR(o, 30, 2.0),
        lambda r: paddle_lr.PolynomialDecay(r, 30, 0, 2.0),
    ),
    "exponential": (
        lambda o, r: torch_lr.ExponentialLR(o, 0.9),
        lambda r: paddle_lr.ExponentialDecay(r, 0.9),
    ),
    "multi_step": (
        lambda o, r: torch_lr.MultiStepLR(o, [2, 4], 0.5),
        lambda r: paddle_lr.MultiStepDecay(r, [2, 4], 0.5),
    ),
    "lambda": (
        lambda o, r: torch_lr.LambdaLR(o, lambda t: 1 / (1 + t)),
        lambda r: paddle_lr.LambdaDecay(r, lambda t: 1 / (1 + t)),
    ),
    "linear": (lambda o, r: torch_lr.LinearLR(o, 0.25, 1.0, 10), lambda r: paddle_lr.LinearLR(r, 10, 0.25, 1.0)),
    "cyclic": (
        lambda o, r: torch_lr.CyclicLR(o, r / 4, r, 3, cycle_momentum=False),
        lambda r: paddle_lr.CyclicLR(r / 4, r, 3),
    ),
}
"""For each schedule how it is made in PyTorch, of an optimizer, and in PaddlePaddle, and of what rate."""


def model(framework: str, *kinds: str) -> Any:
    """A model that has a layer of each kind, called as the kind."""
    place = 0 if framework == "torch" else 1
    made = {kind: KINDS[kind][place]() for kind in kinds}
    return torch.nn.ModuleDict(made) if framework == "torch" else paddle.nn.LayerDict(made)


def optimizer(framework: str, kind: str, schedule: str, parameters: Any) -> tuple[Any, Any]:
    """An optimizer of some parameters, and its scheduler."""
    rate, of_torch, of_paddle = OPTIMIZERS[kind]
    if kind == "rprop":  # PaddlePaddle's compares its learning rate with numbers, and so takes no scheduler
        schedule = "none"
    if framework == "torch":
        made = of_torch(parameters, rate)
        return made, SCHEDULES[schedule][0](made, rate)
    moved = SCHEDULES[schedule][1](rate)
    return of_paddle(parameters, rate if moved is None else moved), moved


def seed(framework: str, number: int) -> None:
    """Begins the framework's random stream anew."""
    torch.manual_seed(number) if framework == "torch" else paddle.seed(number)


def trainer(framework: str, out: Path, **settings: Any) -> Any:
    """A trainer that tells nothing on the screen."""
    package = PACKAGES[framework]
    plain = {"epoch": 2, "cpu": True, "log_with": "none", "disable_tqdm": True, "seed": 3, "save_interval": 100}
    return package.Trainer(package.TrainerConfig(out_dir=str(out), **{**plain, **settings}))


def saved(the_trainer: Any, out: Path, label: str = "x") -> Path:
    """The checkpoint that a trainer saves at once."""
    the_trainer.save_checkpoint(label)
    [found] = (out / "checkpoint").glob(f"chk_{label}_*")
    return found


def files(folder: Path) -> dict[str, Any]:
    """What a checkpoint holds but for random streams: bytes, and what the index says of all others."""
    found: dict[str, Any] = {path.name: path.read_bytes() for path in folder.iterdir()}
    index = json.loads(found["checkpoint.json"])
    del index["sha256"]  # of all that follows, the streams' among it
    text = json.dumps(_without_streams(index), sort_keys=True)
    return {name: data for name, data in found.items() if not name.startswith("rng")} | {"checkpoint.json": text}


def _without_streams(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _without_streams(item) for name, item in tree.items() if not name.startswith("rng")}
    return tree


def values(array: Any) -> Any:
    """A tensor of either framework as an array."""
    found = array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else array.numpy()
    return np.asarray(found)


@contextlib.contextmanager
def default_dtype(framework: str, dtype: str) -> Iterator[None]:
    """Has models be made with that type."""
    if framework == "torch":
        before: Any = torch.get_default_dtype()
        torch.set_default_dtype(getattr(torch, dtype))
        try:
            yield
        finally:
            torch.set_default_dtype(before)
        return
    before, change = paddle.get_default_dtype(), cast(Any, paddle.set_default_dtype)
    change(dtype)
    try:
        yield
    finally:
        change(before)

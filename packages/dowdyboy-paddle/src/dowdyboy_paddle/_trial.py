"""Looking into a PaddlePaddle model, and running a copy of it to see what it does."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import paddle
from paddle import nn

from dowdyboy_core import ConfigError, _flops, _summary
from dowdyboy_core._rng import RandomStreams

from ._backend import PaddleBackend


def check_model(model: Any) -> nn.Layer:
    """The model without what processes wrapped around it.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(model, nn.Layer):
        raise ConfigError(f"{model!r:.80} is no model of {PaddleBackend.name}. Give an instance of its module class.")
    plain: nn.Layer = PaddleBackend().unwrap_model(model)
    return plain


# What the framework keeps as parameters though nothing ever trains it.
_STATISTICS: dict[type, tuple[str, ...]] = {
    **dict.fromkeys((nn.BatchNorm, nn.BatchNorm1D, nn.BatchNorm2D, nn.BatchNorm3D), ("_mean", "_variance")),
    nn.SyncBatchNorm: ("_mean", "_variance"),
    nn.SpectralNorm: ("weight_u", "weight_v"),
}


def own_parameters(module: nn.Layer) -> list[tuple[str, paddle.Tensor]]:
    """The parameters that stand in a module itself; running statistics are none."""
    left_out = {name for kind in type(module).__mro__ for name in _STATISTICS.get(kind, ())}
    return [pair for pair in module.named_parameters(include_sublayers=False) if pair[0] not in left_out]


def is_trainable(parameter: paddle.Tensor) -> bool:
    """Whether gradients are on."""
    return not parameter.stop_gradient


def set_trainable(parameter: paddle.Tensor, trainable: bool) -> bool:
    """Turns gradients on or off, and tells whether that changed anything."""
    if parameter.stop_gradient != trainable or not paddle.is_floating_point(parameter):
        return False
    parameter.stop_gradient = not trainable
    parameter.clear_gradient(False)
    return True


def make_trial(model: nn.Layer, input_size: Any) -> tuple[nn.Layer, tuple[Any, ...]]:
    """A copy of a model in evaluation mode, and inputs for it.

    Raises:
        ConfigError: the model can't be copied, or the inputs are none.
    """
    try:
        trial = copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"The model can't be copied to try it out: {error}. Give it as it was made.") from error
    trial.eval()
    weight = next((item for item in trial.parameters() if paddle.is_floating_point(item)), paddle.empty([0]))

    def make(shape: tuple[int, ...]) -> paddle.Tensor:
        return paddle.ones(shape, dtype=weight.dtype).to(weight.place)

    inputs = _summary.read_inputs(input_size, lambda value: isinstance(value, paddle.Tensor), make)
    return trial, tuple(item.detach().clone() for item in inputs)


@contextmanager
def undisturbed(model: nn.Layer) -> Iterator[None]:
    """Runs a block without gradients, and puts the random streams back after it."""
    streams = RandomStreams(PaddleBackend())
    state, of_device = streams.capture(), paddle.get_rng_state()
    try:
        with paddle.no_grad():
            yield
    finally:
        paddle.set_rng_state(of_device)
        streams.restore(state)


def count_trial(trial: nn.Layer, inputs: tuple[Any, ...], params: int) -> _flops.FlopCount:
    """Runs a trial and counts its operations.

    Raises:
        ConfigError: the model can't run on these inputs.
    """
    tally = _flops.Tally(trial, _RULES, lambda module: bool(own_parameters(module)), _products)
    for module in trial.sublayers(include_self=True):
        module.register_forward_pre_hook(tally.enter)  # type: ignore[arg-type]  # a hook may return nothing
        module.register_forward_post_hook(tally.leave)  # type: ignore[arg-type]
    noted = paddle.get_flags([_NOTE])
    paddle.set_flags({_NOTE: 1})
    try:
        with undisturbed(trial):
            _summary.run(trial, inputs)
    finally:
        paddle.set_flags(noted)
    return tally.result(params)


# The framework's own count of the operators that it has run, by name: what paddle.amp.debugging prints.
_NOTE = "FLAGS_low_precision_op_list"
_MULTIPLYING = ("matmul", "bmm", "mm", "mv", "addmm", "baddbmm", "einsum", "linear", "rnn", "bilinear", "conv", "attn")


def _products() -> int:
    """How many matrix products, convolutions and the like were run; the sum over the four types of numbers."""
    calls = paddle.base.core.get_low_precision_op_list()
    multiplying = (str(count) for name, count in calls.items() if _multiplies(name))
    return sum(int(part) for count in multiplying for part in count.split(","))


def _multiplies(operator: str) -> bool:
    parts = operator.split("_")
    return "interp" not in parts and any(part.startswith(_MULTIPLYING) for part in parts)


def _attention(module: Any, inputs: tuple[Any, ...], output: Any) -> int | None:
    query, key, value, _, cache = (*inputs, None, None, None, None)[:5]
    if cache is not None:
        return None
    key, value = query if key is None else key, query if value is None else value
    return _flops.attention(module, query, key, value, 1)


_RULES: dict[type, _flops.Rule] = {
    **dict.fromkeys((nn.Conv1D, nn.Conv2D, nn.Conv3D), _flops.convolution),
    **dict.fromkeys((nn.Conv1DTranspose, nn.Conv2DTranspose, nn.Conv3DTranspose), _flops.transposed_convolution),
    **dict.fromkeys((nn.SimpleRNN, nn.LSTM, nn.GRU), _flops.recurrent),
    **dict.fromkeys((nn.SimpleRNNCell, nn.LSTMCell, nn.GRUCell), _flops.recurrent),
    **dict.fromkeys((nn.BatchNorm, nn.BatchNorm1D, nn.BatchNorm2D, nn.BatchNorm3D), _flops.normalization),
    **dict.fromkeys((nn.InstanceNorm1D, nn.InstanceNorm2D, nn.InstanceNorm3D), _flops.normalization),
    **dict.fromkeys((nn.GroupNorm, nn.LayerNorm, nn.SyncBatchNorm), _flops.normalization),
    **dict.fromkeys((nn.Embedding, nn.PReLU), _flops.free),
    nn.Linear: _flops.linear,
    nn.MultiHeadAttention: _attention,
}

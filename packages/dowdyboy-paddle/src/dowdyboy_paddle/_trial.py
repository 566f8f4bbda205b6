"""Looking into a PaddlePaddle model, and running a copy of it to see what it does."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import paddle
from paddle import nn
from paddle.jit.dy2static.program_translator import ProgramTranslator, StaticFunction

from dowdyboy_core import ConfigError
from dowdyboy_core.backend import RandomStreams
from dowdyboy_core.model_util import copies, flops, summaries

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
    trial = copies.copy_model(model, lambda value: None)
    trial.eval()
    for layer in trial.sublayers(include_self=True):
        _without_compiled_forward(layer)
    weight = next((item for item in trial.parameters() if paddle.is_floating_point(item)), paddle.empty([0]))
    in_full = weight.place.is_cpu_place() and weight.dtype in _HALVES
    if in_full:  # a CPU does little with halves, and what is counted is the same
        trial.to(dtype="float32")
        weight = weight.astype("float32")

    def make(shape: tuple[int, ...]) -> paddle.Tensor:
        return paddle.ones(shape, dtype=weight.dtype).to(weight.place)

    inputs = summaries.read_inputs(input_size, lambda value: isinstance(value, paddle.Tensor), make)
    halves = _HALVES if in_full else ()
    return trial, tuple(item.astype("float32") if item.dtype in halves else item.detach().clone() for item in inputs)


_HALVES = (paddle.float16, paddle.bfloat16)


def _without_compiled_forward(layer: nn.Layer) -> None:
    """Takes what paddle.jit.to_static put in the place of its forward out of a copied layer."""
    own = vars(layer).get("forward")
    if isinstance(own, StaticFunction):
        layer.forward = own.dygraph_function  # type: ignore[method-assign]


def hook_outputs(trial: nn.Layer, shapes: dict[str, str]) -> None:
    """Lets each layer of a trial note the shape of its output, by path."""
    for path, module in summaries.first_places(summaries.walk(trial)).items():
        module.register_forward_post_hook(summaries.shape_hook(shapes, path))


@contextmanager
def undisturbed(model: nn.Layer) -> Iterator[None]:
    """Runs a block without gradients, and puts the random streams back after it.

    What paddle.jit.to_static compiled is run in it as it was before: compiled code passes over the layers' hooks.
    """
    streams = RandomStreams(PaddleBackend())
    state, of_device = streams.capture(), paddle.get_rng_state()
    try:
        with paddle.no_grad(), _uncompiled():
            yield
    finally:
        paddle.set_rng_state(of_device)
        streams.restore(state)


@contextmanager
def _uncompiled() -> Iterator[None]:
    switch, log = ProgramTranslator(), logging.getLogger("Dynamic-to-Static")
    enabled, muted = switch.enable_to_static, log.disabled
    switch.enable_to_static, log.disabled = False, True  # or it would warn, once, that nothing is compiled now
    try:
        yield
    finally:
        switch.enable_to_static, log.disabled = enabled, muted


def count_trial(trial: nn.Layer, inputs: tuple[Any, ...]) -> flops.Tally:
    """Runs a trial and counts its operations.

    Raises:
        ConfigError: the model can't run on these inputs.
    """
    tally = flops.Tally(trial, _RULES, lambda module: bool(own_parameters(module)), _products)
    for module in trial.sublayers(include_self=True):
        module.register_forward_pre_hook(tally.enter)  # type: ignore[arg-type]  # a hook may return nothing
        module.register_forward_post_hook(tally.leave)  # type: ignore[arg-type]
    noted = paddle.get_flags([_NOTE])
    paddle.set_flags({_NOTE: 1})
    try:
        with undisturbed(trial):
            summaries.run(trial, inputs)
    finally:
        paddle.set_flags(noted)
    return tally


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
    return flops.attention(module, query, key, value, 1)


_RULES: dict[type, flops.Rule] = {
    **dict.fromkeys((nn.Conv1D, nn.Conv2D, nn.Conv3D), flops.convolution),
    **dict.fromkeys((nn.Conv1DTranspose, nn.Conv2DTranspose, nn.Conv3DTranspose), flops.transposed_convolution),
    **dict.fromkeys((nn.SimpleRNN, nn.LSTM, nn.GRU), flops.recurrent),
    **dict.fromkeys((nn.SimpleRNNCell, nn.LSTMCell, nn.GRUCell), flops.recurrent),
    **dict.fromkeys((nn.BatchNorm, nn.BatchNorm1D, nn.BatchNorm2D, nn.BatchNorm3D), flops.normalization),
    **dict.fromkeys((nn.InstanceNorm1D, nn.InstanceNorm2D, nn.InstanceNorm3D), flops.normalization),
    **dict.fromkeys((nn.GroupNorm, nn.LayerNorm, nn.SyncBatchNorm), flops.normalization),
    **dict.fromkeys((nn.Embedding, nn.PReLU), flops.free),
    nn.Linear: flops.linear,
    nn.MultiHeadAttention: _attention,
}
if _compat := getattr(getattr(paddle, "compat", None), "nn", None):  # since PaddlePaddle 3.3
    _RULES[_compat.Linear] = flops.linear

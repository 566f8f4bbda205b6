"""Looking into a PyTorch model, and running a copy of it to see what it does."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from dowdyboy_core import ConfigError, SetupError, _flops, _summary
from dowdyboy_core._rng import RandomStreams

from ._backend import TorchBackend


def check_model(model: Any) -> nn.Module:
    """The model without what processes wrapped around it.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{model!r:.80} is no model of {TorchBackend.name}. Give an instance of its module class.")
    plain: nn.Module = TorchBackend().unwrap_model(model)
    return plain


def own_parameters(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters that stand in a module itself."""
    return list(module.named_parameters(recurse=False))


def is_trainable(parameter: nn.Parameter) -> bool:
    """Whether gradients are on."""
    return parameter.requires_grad


def set_trainable(parameter: nn.Parameter, trainable: bool) -> bool:
    """Turns gradients on or off, and tells whether that changed anything."""
    if parameter.requires_grad == trainable or not torch.is_floating_point(parameter):
        return False
    parameter.requires_grad_(trainable)
    parameter.grad = None
    return True


def make_trial(model: nn.Module, input_size: Any) -> tuple[nn.Module, tuple[Any, ...]]:
    """A copy of a model in evaluation mode, and inputs for it.

    Raises:
        ConfigError: the model can't be copied, or the inputs are none.
    """
    try:
        trial = copy.deepcopy(model).eval()
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"The model can't be copied to try it out: {error}. Give it as it was made.") from error
    weight = next((item for item in trial.parameters() if torch.is_floating_point(item)), torch.empty(0))

    def make(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.ones(shape, dtype=weight.dtype, device=weight.device)

    inputs = _summary.read_inputs(input_size, lambda value: isinstance(value, torch.Tensor), make)
    return trial, tuple(item.detach().clone() for item in inputs)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Runs a block without gradients, and puts the random streams back after it.

    The fast path of transformer layers is off in it: it passes over the modules in them, hooks and all.
    """
    streams = RandomStreams(TorchBackend())
    devices = {item.device.index for item in model.parameters() if item.device.type == "cuda"}
    state, fast = streams.capture(), torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        streams.restore(state)


def count_trial(trial: nn.Module, inputs: tuple[Any, ...], params: int) -> _flops.FlopCount:
    """Runs a trial and counts its operations. thop drives it, with rules of our own for every class.

    Raises:
        ConfigError: the model can't run on these inputs.
        SetupError: thop can't be imported.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    try:
        from thop import profile
    except ImportError as error:
        raise SetupError(f"count_flops can't import thop: {error}. Run pip install thop setuptools.") from error
    meter = FlopCounterMode(display=False)
    tally = _flops.Tally(trial, _RULES, lambda module: bool(own_parameters(module)), meter.get_total_flops)
    rules = {type(module): tally.leave for module in trial.modules()}

    def forward(*given: Any) -> None:
        for module in trial.modules():
            module.register_forward_pre_hook(tally.enter)
        profile(trial, inputs=given, custom_ops=rules, verbose=False)

    # Attention by plain matrix products, since the meter doesn't know every fused kernel.
    with undisturbed(trial), sdpa_kernel(SDPBackend.MATH), meter:
        _summary.run(forward, inputs)
    return tally.result(params)


def _attention(module: Any, inputs: tuple[Any, ...], output: Any) -> int | None:
    if len(inputs) < 3 or module.bias_k is not None or module.add_zero_attn:
        return None
    query, key, value = inputs[:3]
    return _flops.attention(module, query, key, value, 1 if module.batch_first and len(key.shape) == 3 else 0)


_RULES: dict[type, _flops.Rule] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _flops.convolution),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _flops.transposed_convolution),
    **dict.fromkeys((nn.RNN, nn.LSTM, nn.GRU, nn.RNNCell, nn.LSTMCell, nn.GRUCell), _flops.recurrent),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm), _flops.normalization),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), _flops.normalization),
    **dict.fromkeys((nn.GroupNorm, nn.LayerNorm, nn.RMSNorm), _flops.normalization),
    **dict.fromkeys((nn.Embedding, nn.PReLU), _flops.free),
    nn.Linear: _flops.linear,
    nn.MultiheadAttention: _attention,
}

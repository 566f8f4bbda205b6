"""Looking into a PyTorch model, and running a copy of it to see what it does."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dowdyboy_core import ConfigError
from dowdyboy_core.backend import RandomStreams
from dowdyboy_core.model_util import copies, flops, summaries

from ._backend import TorchBackend
from ._names import is_compiled


def check_model(model: Any) -> nn.Module:
    """The model without what processes, devices or a compiler wrapped around it.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{model!r:.80} is no model of {TorchBackend.name}. Give an instance of its module class.")
    plain: Any = TorchBackend().unwrap_model(model)
    while True:
        if isinstance(plain, (nn.DataParallel, DistributedDataParallel)):
            plain = plain.module
        elif is_compiled(plain):
            plain = plain._orig_mod
        else:
            return plain  # type: ignore[no-any-return]


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
    trial = copies.copy_model(model, _without_graph).eval()
    made = (item for item in trial.parameters() if not nn.parameter.is_lazy(item))
    weight = next((item for item in made if torch.is_floating_point(item)), torch.empty(0))

    def make(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.ones(shape, dtype=weight.dtype, device=weight.device)

    inputs = summaries.read_inputs(input_size, lambda value: isinstance(value, torch.Tensor), make)
    return trial, tuple(item.detach().clone() for item in inputs)


def _without_graph(value: Any) -> torch.Tensor | None:
    """A copy of what a forward left in the model, which copy.deepcopy refuses; None for all else."""
    return value.detach().clone() if isinstance(value, torch.Tensor) and not value.is_leaf else None


def _watched(trial: nn.Module) -> list[nn.Module]:
    """The modules that take hooks: all but those of TorchScript."""
    return [module for module in trial.modules() if not isinstance(module, torch.jit.ScriptModule)]


def hook_outputs(trial: nn.Module, shapes: dict[str, str]) -> None:
    """Lets each module of a trial note the shape of its output, by path."""
    watched = set(map(id, _watched(trial)))
    for path, module in summaries.first_places(summaries.walk(trial)).items():
        if id(module) in watched:
            module.register_forward_hook(summaries.shape_hook(shapes, path))


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Runs a block without gradients, and puts the random streams back after it.

    The fast path of transformer layers is off in it: it passes over the modules in them, hooks and all. So does
    compiled code, which is run as it was before it was compiled.
    """
    streams = RandomStreams(TorchBackend())
    devices = {item.device.index for item in model.parameters() if item.device.type == "cuda"}
    state, fast = streams.capture(), torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.random.fork_rng(devices), torch.no_grad(), _uncompiled():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        streams.restore(state)


def _has_own(module: nn.Module) -> bool:
    # What TorchScript and quantized layers hold and do can't be seen.
    opaque = isinstance(module, torch.jit.ScriptModule) or hasattr(module, "_packed_params")
    return opaque or bool(own_parameters(module))


@contextmanager
def _uncompiled() -> Iterator[None]:
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and to ask for it would import the compiler
        yield
        return
    with torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using `torch.compile")  # the meter's hooks, which are not ours to take away
        yield


def count_trial(trial: nn.Module, inputs: tuple[Any, ...]) -> flops.Tally:
    """Runs a trial and counts its operations.

    Raises:
        ConfigError: the model can't run on these inputs.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    meter = FlopCounterMode(display=False)
    tally = flops.Tally(trial, _RULES, _has_own, meter.get_total_flops)
    for module in _watched(trial):
        module.register_forward_pre_hook(tally.enter)
        module.register_forward_hook(tally.leave)
    # Attention by plain matrix products, since the meter doesn't know every fused kernel.
    with undisturbed(trial), sdpa_kernel(SDPBackend.MATH), meter:
        summaries.run(trial, inputs)
    return tally


def _attention(module: Any, inputs: tuple[Any, ...], output: Any) -> int | None:
    if len(inputs) < 3 or module.bias_k is not None or module.add_zero_attn:
        return None
    query, key, value = inputs[:3]
    return flops.attention(module, query, key, value, 1 if module.batch_first and len(key.shape) == 3 else 0)


_RULES: dict[type, flops.Rule] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), flops.convolution),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), flops.transposed_convolution),
    **dict.fromkeys((nn.RNN, nn.LSTM, nn.GRU, nn.RNNCell, nn.LSTMCell, nn.GRUCell), flops.recurrent),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm), flops.normalization),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), flops.normalization),
    **dict.fromkeys((nn.GroupNorm, nn.LayerNorm, nn.RMSNorm), flops.normalization),
    **dict.fromkeys((nn.Embedding, nn.PReLU), flops.free),
    nn.Linear: flops.linear,
    nn.MultiheadAttention: _attention,
}

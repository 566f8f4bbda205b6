"""Averages of parameters: new ones, a step of them, and their values in the place of the parameters'."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.nn.modules.batchnorm import _BatchNorm

Tensors = Sequence[torch.Tensor]


def copy_parameters(parameters: Tensors) -> list[torch.Tensor]:
    """Tensors of the same values, laid out in the same way."""
    return [parameter.detach().clone(memory_format=torch.preserve_format) for parameter in parameters]


@torch.no_grad()
def average_parameters(average: Tensors, parameters: Tensors, decay: float) -> None:
    """Moves an average towards the parameters, in one operation for each type and device among them."""
    groups: dict[tuple[torch.dtype, torch.device], tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
    for mean, parameter in zip(average, parameters, strict=True):
        means, values = groups.setdefault((mean.dtype, mean.device), ([], []))
        means.append(mean)
        values.append(parameter)
    for means, values in groups.values():
        torch._foreach_lerp_(means, values, 1 - decay)


def swap_parameters(average: Tensors, parameters: Tensors) -> None:
    """Exchanges the values, where they lie.

    By ``data``, whose changes no graph notices: that of a loss under way finds the old values again before it needs
    them.
    """
    for mean, parameter in zip(average, parameters, strict=True):
        kept = parameter.data.clone()
        parameter.data.copy_(mean)
        mean.copy_(kept)


@contextmanager
def statistics_anew(models: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Has each BatchNorm follow the plain mean over the batches; without a momentum it does so by itself."""
    layers = {id(layer): layer for model in models for layer in model.modules() if isinstance(layer, _BatchNorm)}
    kept = [
        (layer, layer.momentum, {name: tensor.clone() for name, tensor in layer.named_buffers(recurse=False)})
        for layer in layers.values()
        if layer.track_running_stats and layer.running_mean is not None
    ]
    for layer, _, _ in kept:
        layer.reset_running_stats()
        layer.momentum = None
    try:
        yield
    except BaseException:
        for layer, _, buffers in kept:
            for name, tensor in layer.named_buffers(recurse=False):
                tensor.copy_(buffers[name])
        raise
    finally:
        for layer, momentum, _ in kept:
            layer.momentum = momentum

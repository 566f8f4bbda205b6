"""Averages of parameters: new ones, a step of them, and their values in the place of the parameters'."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .framework.layers import BatchNorm, Module
from .framework.tensor import Tensor, quiet


def copy_parameters(parameters: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of the same values."""
    return [parameter.detach() for parameter in parameters]  # the values are never changed in place


@quiet
def average_parameters(average: Sequence[Tensor], parameters: Sequence[Tensor], decay: float) -> None:
    """Moves an average towards the parameters."""
    for mean, parameter in zip(average, parameters, strict=True):
        mean.data = mean.data + (parameter.data - mean.data) * mean.dtype.type(1 - decay)


def swap_parameters(average: Sequence[Tensor], parameters: Sequence[Tensor]) -> None:
    """Exchanges the values."""
    for mean, parameter in zip(average, parameters, strict=True):
        mean.data, parameter.data = parameter.data, mean.data


@contextmanager
def statistics_anew(models: Sequence[Module]) -> Iterator[None]:
    """Has each BatchNorm follow the plain mean over the batches."""
    layers = [layer for model in models for _, layer in model.modules() if isinstance(layer, BatchNorm)]
    kept = [(layer, layer.running_mean.data, layer.running_var.data) for layer in layers]
    for layer in layers:
        layer.batches = 0
        layer.running_mean.data, layer.running_var.data = layer.running_mean.data * 0, layer.running_var.data * 0
    try:
        yield
    except BaseException:
        for layer, mean, variance in kept:
            layer.running_mean.data, layer.running_var.data = mean, variance
        raise
    finally:
        for layer in layers:
            layer.batches = None

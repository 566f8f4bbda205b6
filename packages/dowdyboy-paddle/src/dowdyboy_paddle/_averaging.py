"""Averages of parameters: new ones, a step of them, and their values in the place of the parameters'."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import paddle
from paddle.nn.layer.norm import _BatchNormBase

Tensors = Sequence[paddle.Tensor]


def copy_parameters(parameters: Tensors) -> list[paddle.Tensor]:
    """Tensors of the same values."""
    return [parameter.detach().clone() for parameter in parameters]


@paddle.no_grad()
def average_parameters(average: Tensors, parameters: Tensors, decay: float) -> None:
    """Moves an average towards the parameters."""
    for mean, parameter in zip(average, parameters, strict=True):
        # Not lerp_, which makes a tensor of the weight each time and takes twice as long.
        mean.add_((parameter - mean).scale_(1 - decay))


def swap_parameters(average: Tensors, parameters: Tensors) -> None:
    """Exchanges the values, where they lie.

    By the tensors below, whose changes no graph notices: that of a loss under way finds the old values again before it
    needs them.
    """
    for mean, parameter in zip(average, parameters, strict=True):
        kept = parameter.detach().clone()
        _copy(mean, parameter)
        _copy(kept, mean)


def _copy(source: paddle.Tensor, target: paddle.Tensor) -> None:
    target.get_tensor()._copy_from(source.get_tensor(), target.place, -1)


@contextmanager
def statistics_anew(models: Sequence[paddle.nn.Layer]) -> Iterator[None]:
    """Has each BatchNorm follow the plain mean over the batches, by the momentum that the next of them needs."""
    kinds = (_BatchNormBase, paddle.nn.BatchNorm)
    found = [layer for model in models for layer in model.sublayers(include_self=True) if isinstance(layer, kinds)]
    layers = {id(layer): layer for layer in found if not layer._use_global_stats}.values()
    kept = [(layer, layer._momentum, layer._mean.clone(), layer._variance.clone()) for layer in layers]
    hooks = [layer.register_forward_pre_hook(_Following(layer)) for layer in layers]
    try:
        yield
    except BaseException:
        for layer, _, mean, variance in kept:
            layer._mean.set_value(mean)
            layer._variance.set_value(variance)
        raise
    finally:
        for hook in hooks:
            hook.remove()
        for layer, momentum, _, _ in kept:
            layer._momentum = momentum


class _Following:
    """Comes before each forward of a layer that begins with no statistics."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._batches = 0
        layer._mean.set_value(paddle.zeros_like(layer._mean))
        layer._variance.set_value(paddle.ones_like(layer._variance))

    def __call__(self, layer: Any, inputs: Any) -> Any:
        self._batches += 1
        self._layer._momentum = 1 - 1 / self._batches
        return inputs

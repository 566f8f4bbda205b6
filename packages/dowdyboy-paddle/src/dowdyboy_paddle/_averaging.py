"""Averages of parameters: new ones, a step of them, and their values in the place of the parameters'."""

from __future__ import annotations

from collections.abc import Sequence

import paddle

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
    target.get_tensor()._copy_from(source.get_tensor(), target.place, -1)  # noqa: SLF001

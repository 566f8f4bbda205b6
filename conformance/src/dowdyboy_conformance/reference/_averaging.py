"""Averages of parameters: new ones, a step of them, and their values in the place of the parameters'."""

from __future__ import annotations

from collections.abc import Sequence

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

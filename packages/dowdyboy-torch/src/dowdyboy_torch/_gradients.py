"""Gradients of some parameters: scaled, looked at for an overflow, sparse or not."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def gradients(parameters: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Those that there are."""
    return [item.grad for item in parameters if item.grad is not None]


@torch.no_grad()
def scale(parameters: Sequence[torch.Tensor], factor: float | torch.Tensor, *, check: bool) -> bool:
    """Multiplies them; with ``check`` gives whether all of them are finite, else True."""
    found = gradients(parameters)
    for gradient in found:
        if isinstance(factor, float):
            gradient.mul_(factor)
        else:  # in float32 at least, which 16 bits can't hold the factor in
            wide = torch.promote_types(gradient.dtype, torch.float32)
            gradient.copy_(gradient.to(wide) * factor.to(wide))
    if not check or not found:
        return True
    dense = [_values(gradient) if gradient.is_sparse else gradient for gradient in found]
    return bool(torch.nn.utils.get_total_norm(dense, norm_type=float("inf")).isfinite())


def has_sparse(parameters: Sequence[torch.Tensor]) -> bool:
    """Whether one of them is sparse."""
    return any(gradient.is_sparse for gradient in gradients(parameters))


def _values(gradient: torch.Tensor) -> torch.Tensor:
    """The elements that a sparse gradient has, those of one place added up; a zero for one that has none."""
    values = gradient.coalesce().values()
    return values if values.numel() else values.new_zeros(1)

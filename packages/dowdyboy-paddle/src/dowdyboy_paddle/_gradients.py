"""Gradients of some parameters: scaled, looked at for an overflow, sparse or not."""

from __future__ import annotations

from collections.abc import Sequence

import paddle


def gradients(parameters: Sequence[paddle.Tensor]) -> list[paddle.Tensor]:
    """Those that there are; of a sparse one the rows that it has.

    Operations in place on a sparse gradient itself end the process.
    """
    found = [item.grad_ for item in parameters]
    return [
        item._get_tensor_from_selected_rows() if item.is_selected_rows() else item for item in found if item is not None
    ]


@paddle.no_grad()
def scale(parameters: Sequence[paddle.Tensor], factor: float | paddle.Tensor, *, check: bool) -> bool:
    """Multiplies them; with ``check`` gives whether all of them are finite, else True."""
    found = gradients(parameters)
    for gradient in found:
        if isinstance(factor, float):
            gradient.scale_(factor)
        else:  # in float32 at least, which 16 bits can't hold the factor in
            wide = paddle.float64 if gradient.dtype == paddle.float64 else paddle.float32
            paddle.assign((gradient.astype(wide) * factor.astype(wide)).astype(gradient.dtype), gradient)
    if not check or not found:
        return True
    finite = [paddle.isfinite(gradient).all() for gradient in found]
    return bool(paddle.stack(finite).all().item())


def has_sparse(parameters: Sequence[paddle.Tensor]) -> bool:
    """Whether one of them is sparse."""
    found = [item.grad_ for item in parameters]
    return any(item is not None and item.is_selected_rows() for item in found)

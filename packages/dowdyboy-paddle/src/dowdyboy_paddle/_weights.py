"""Weights of batches on PaddlePaddle: computed with where they are, and not read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import paddle
import paddle.distributed as dist

from dowdyboy_core.backend import Weights


class PaddleWeights(Weights):
    """Computes in float64 on the device."""

    def __init__(self, world_size: int, device: str) -> None:
        self._world_size = world_size
        self._device = device

    @contextmanager
    def masked(self, parameters: Sequence[Any], factor: Any) -> Iterator[None]:
        zero = factor == 0

        def mask(gradient: Any) -> Any:
            if gradient.is_selected_rows():  # of which only the rows that it has can be computed with
                rows = gradient._get_tensor_from_selected_rows()
                paddle.assign(_unless(zero, rows), rows)
                return gradient
            return _unless(zero, gradient)

        handles = [item.register_hook(mask) for item in parameters]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @paddle.no_grad()
    def kept(self, weight: Any) -> Any:
        number = weight.detach().astype("float64").reshape([])
        return paddle.where(number >= 0, number, paddle.full_like(number, math.nan))

    @paddle.no_grad()
    def total(self, numbers: Sequence[Any]) -> Any:
        tensors = [item for item in numbers if isinstance(item, paddle.Tensor)]
        own = math.fsum(item for item in numbers if not isinstance(item, paddle.Tensor))
        whole: Any = paddle.stack(tensors).sum() + own if tensors else own
        if self._world_size > 1:
            sent = whole.reshape([1]) if tensors else paddle.full([1], own, dtype="float64")
            received: list[Any] = []
            dist.all_gather(received, sent)
            whole = paddle.concat(received).sum()  # added up in the order of the ranks: all get the same bits
            if not tensors and self._device == "cpu":
                return float(whole.item())
        return whole

    @paddle.no_grad()
    def ratio(self, number: Any, divisor: Any, factor: float) -> Any:
        if isinstance(divisor, paddle.Tensor):
            return _unless(divisor == 0, number * factor / divisor)
        return number * factor / divisor if divisor else 0.0

    @paddle.no_grad()
    def power_of_two(self, number: Any, otherwise: Any) -> Any:
        if not isinstance(number, paddle.Tensor):
            return super().power_of_two(number, otherwise)
        power = number / (2 * paddle.frexp(number)[0])
        other = otherwise if isinstance(otherwise, paddle.Tensor) else paddle.full_like(number, otherwise)
        return paddle.where((number > 0) & paddle.isfinite(number), power, other)

    def times(self, loss: Any, factor: Any) -> Any:
        wide = loss.astype("float32") if loss.dtype in (paddle.float16, paddle.bfloat16) else loss
        return _unless(factor == 0, wide.reshape([]) * factor.astype(wide.dtype))


def _unless(zero: Any, tensor: Any) -> Any:
    """The tensor, or zeros."""
    if isinstance(zero, bool):
        return paddle.zeros_like(tensor) if zero else tensor
    return paddle.where(zero, paddle.zeros_like(tensor), tensor)

"""Weights of batches on PyTorch: computed with where they are, and not read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from dowdyboy_core.backend import Weights

from . import _distributed


class TorchWeights(Weights):
    """Computes in float64 on the device."""

    def __init__(self, world_size: int, device: torch.device) -> None:
        self._world_size = world_size
        self._device = device

    @contextmanager
    def masked(self, parameters: Sequence[Any], factor: Any) -> Iterator[None]:
        zero = factor == 0

        def mask(gradient: torch.Tensor) -> torch.Tensor:
            if gradient.is_sparse:
                whole = gradient.coalesce()
                return torch.sparse_coo_tensor(whole.indices(), _unless(zero, whole.values()), gradient.shape)
            return _unless(zero, gradient)

        handles = [item.register_hook(mask) for item in parameters]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def kept(self, weight: Any) -> Any:
        number = weight.detach().to(self._device, torch.float64, non_blocking=True).reshape(())
        return torch.where(number >= 0, number, math.nan)

    @torch.no_grad()
    def total(self, numbers: Sequence[Any]) -> Any:
        tensors = [item for item in numbers if isinstance(item, torch.Tensor)]
        own = math.fsum(item for item in numbers if not isinstance(item, torch.Tensor))
        whole: Any = torch.stack(tensors).sum() + own if tensors else own
        if self._world_size > 1:
            sent = whole if tensors else torch.full((), own, dtype=torch.float64, device=self._device)
            whole = _distributed.total(sent)
            if not tensors and whole.is_cpu:
                return float(whole.item())
        return whole

    @torch.no_grad()
    def ratio(self, number: Any, divisor: Any, factor: float) -> Any:
        if isinstance(divisor, torch.Tensor):
            return torch.where(divisor == 0, 0.0, number * factor / divisor)
        return number * factor / divisor if divisor else 0.0

    @torch.no_grad()
    def power_of_two(self, number: Any, otherwise: Any) -> Any:
        if not isinstance(number, torch.Tensor):
            return super().power_of_two(number, otherwise)
        power = number / (2 * torch.frexp(number)[0])
        return torch.where((number > 0) & number.isfinite(), power, otherwise)

    def times(self, loss: Any, factor: Any) -> Any:
        wide = loss.float() if loss.dtype in (torch.float16, torch.bfloat16) else loss
        return _unless(factor == 0, wide.reshape(()) * factor.to(wide.dtype))


def _unless(zero: torch.Tensor | bool, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, or zeros."""
    if isinstance(zero, bool):
        return torch.zeros_like(tensor) if zero else tensor
    return torch.where(zero, 0.0, tensor)

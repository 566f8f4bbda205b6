"""BatchNorm over the batches of all processes: PyTorch's own on GPUs, and the same on CPUs, where it has none."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm

from ._distributed import until_released


def synchronise_batch_norm(model: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """The model with every BatchNorm of it computed over the joined batch of all processes."""
    if device.type != "cpu":
        return torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-any-return]
    for layer in model.modules():
        if isinstance(layer, _BatchNorm) and not isinstance(layer, _OverAllProcesses):
            kind = type(layer)
            # In place, so that parameters, buffers, hooks and the layer itself stay those that the user holds.
            layer.__class__ = type(f"Sync{kind.__name__}", (_OverAllProcesses, kind), {})
    return model


class _Sum(torch.autograd.Function):
    """The sum over all processes; each process's gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        return _sum(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return _sum(gradients[0])


def _sum(tensor: torch.Tensor) -> torch.Tensor:
    total = tensor.clone()
    with until_released(total):
        dist.all_reduce(total)
    return total


class _OverAllProcesses(_BatchNorm):
    """Comes before a BatchNorm class: its training is that of one process on the joined batch."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalizes over all but axis 1; evaluation is each process's own, without a collective."""
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        axes = [axis for axis in range(values.dim()) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(values.dim())]
        own = values.new_tensor([values.numel() // values.shape[1]])
        sums: torch.Tensor = _Sum.apply(torch.cat([values.sum(axes), own]))  # type: ignore[no-untyped-call]
        count, mean = sums[-1].detach(), sums[:-1] / sums[-1].detach()
        centred = values - mean.view(shape)
        # The mean is subtracted first: a mean of squares less a squared mean loses digits.
        variance: torch.Tensor = _Sum.apply(centred.square().sum(axes)) / count  # type: ignore[no-untyped-call]
        self._follow(mean.detach(), variance.detach() * count / (count - 1).clamp(min=1))
        normal = centred * (variance + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            normal = normal * self.weight.view(shape)
        if self.bias is not None:
            normal = normal + self.bias.view(shape)
        return normal.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: torch.Tensor, unbiased_variance: torch.Tensor) -> None:
        if not self.track_running_stats:
            return
        assert self.num_batches_tracked is not None and self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(unbiased_variance.to(self.running_var.dtype), share)

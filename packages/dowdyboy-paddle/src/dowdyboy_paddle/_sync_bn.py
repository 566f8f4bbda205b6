"""BatchNorm over the batches of all processes: PaddlePaddle's own on GPUs, and the same on CPUs, where it has none."""

from __future__ import annotations

from typing import Any

import paddle
import paddle.distributed as dist
from paddle.nn.layer.norm import _BatchNormBase


def synchronise_batch_norm(model: paddle.nn.Layer, device: str) -> paddle.nn.Layer:
    """The model with every BatchNorm of it computed over the joined batch of all processes."""
    if device != "cpu":
        return paddle.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for layer in model.sublayers(include_self=True):
        if isinstance(layer, _BatchNormBase) and not isinstance(layer, _OverAllProcesses):
            kind = type(layer)
            # In place, so that parameters, statistics, hooks and the layer itself stay those that the user holds.
            layer.__class__ = type(f"Sync{kind.__name__}", (_OverAllProcesses, kind), {})
    return model


class _Sum(paddle.autograd.PyLayer):
    """The sum over all processes; each process's gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: paddle.Tensor) -> paddle.Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: paddle.Tensor) -> paddle.Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class _OverAllProcesses(_BatchNormBase):
    """Comes before a BatchNorm class: its training is that of one process on the joined batch."""

    def forward(self, input: paddle.Tensor) -> paddle.Tensor:
        """Normalizes over all but the channels; evaluation is each process's own, without a collective."""
        if not self.training or self._use_global_stats:
            return super().forward(input)
        self._check_input_dim(input)
        values = input.astype("float32") if input.dtype in (paddle.float16, paddle.bfloat16) else input
        channel = values.ndim - 1 if self._data_format in ("NHWC", "NDHWC", "NLC") else 1
        axes = [axis for axis in range(values.ndim) if axis != channel]
        shape = [-1 if axis == channel else 1 for axis in range(values.ndim)]
        own = paddle.full([1], values.size // values.shape[channel], values.dtype)
        sums = _Sum.apply(paddle.concat([values.sum(axes), own]))  # type: ignore[no-untyped-call]
        count, mean = sums[-1].detach(), sums[:-1] / sums[-1].detach()
        centred = values - mean.reshape(shape)
        # The mean is subtracted first: a mean of squares less a squared mean loses digits.
        variance = _Sum.apply(centred.square().sum(axes)) / count  # type: ignore[no-untyped-call]
        self._follow(mean, variance)
        normal: paddle.Tensor = centred * (variance + self._epsilon).rsqrt().reshape(shape)
        if self.weight is not None:
            normal = normal * self.weight.reshape(shape)
        if self.bias is not None:
            normal = normal + self.bias.reshape(shape)
        return normal.astype(input.dtype)

    @paddle.no_grad()
    def _follow(self, mean: paddle.Tensor, variance: paddle.Tensor) -> None:
        for kept, new in ((self._mean, mean), (self._variance, variance)):
            kept.set_value(kept * self._momentum + new.astype(kept.dtype) * (1 - self._momentum))

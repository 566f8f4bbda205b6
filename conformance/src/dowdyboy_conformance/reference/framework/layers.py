"""Modules: what has parameters, buffers and a forward function."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from . import random
from .tensor import Array, Parameter, Tensor, operation, quiet


class Module:
    """A part of a model, and a model itself.

    Its attributes say what it consists of: a :class:`Parameter` is trained, another :class:`Tensor` is a buffer, a
    module is a child. What stands in them goes by its path, ``child.attribute``.
    """

    def __init__(self) -> None:
        self.training = True

    def forward(self, *inputs: Any) -> Any:
        """Computes the module; each kind has its own."""
        raise NotImplementedError(f"{type(self).__name__} has no forward.")

    @quiet
    def __call__(self, *inputs: Any) -> Any:
        """What ``forward`` gives."""
        return self.forward(*inputs)

    def modules(self, path: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it; the paths end in a dot, but for its own."""
        yield path, self
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield from value.modules(f"{path}{name}.")

    def state(self) -> dict[str, Tensor]:
        """All parameters and buffers, by path."""
        return {
            path + name: value
            for path, module in self.modules()
            for name, value in vars(module).items()
            if isinstance(value, Tensor)
        }

    def parameters(self) -> dict[str, Parameter]:
        """The parameters, each once, by its first path."""
        first: dict[int, str] = {}
        return {
            path: value
            for path, value in self.state().items()
            if isinstance(value, Parameter) and first.setdefault(id(value), path) == path
        }

    def train(self, training: bool) -> None:
        """Puts it and all below it into training or evaluation mode."""
        for _, module in self.modules():
            module.training = training


class Sequential(Module):
    """Computes its parts one after another."""

    def __init__(self, parts: Mapping[str, Module]) -> None:
        super().__init__()
        vars(self).update(parts)

    def forward(self, *inputs: Any) -> Any:
        """The last part's output."""
        [value] = inputs
        for part in vars(self).values():
            value = part(value) if isinstance(part, Module) else value
        return value


class Linear(Module):
    """``x @ weight.T + bias``, with a weight of shape (outputs, inputs)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = Parameter(random.uniform(-bound, bound, (outputs, inputs)))
        self.bias = Parameter(random.uniform(-bound, bound, (outputs,)))

    def forward(self, *inputs: Any) -> Tensor:
        """For x of shape (samples, inputs)."""
        [x] = inputs
        given, weight = x.data, self.weight.data
        return operation(
            given @ weight.T + self.bias.data,
            (x, lambda gradient: gradient @ weight),
            (self.weight, lambda gradient: gradient.T @ given),
            (self.bias, lambda gradient: gradient.sum(axis=0)),
        )


class Tanh(Module):
    """The hyperbolic tangent of each element."""

    def forward(self, *inputs: Any) -> Tensor:
        """Of the shape of the input."""
        [x] = inputs
        result = np.tanh(x.data)
        return operation(result, (x, lambda gradient: gradient * (1 - result * result)))


class Dropout(Module):
    """In training, zeros in a share ``rate`` of the elements, and the others scaled up to keep the mean."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, *inputs: Any) -> Tensor:
        """Of the shape of the input."""
        [x] = inputs
        if not self.training:
            return operation(x.data, (x, lambda gradient: gradient))
        kept = (random.uniform(0, 1, x.shape) >= self.rate) / np.float32(1 - self.rate)
        return operation(x.data * kept, (x, lambda gradient: gradient * kept))


class BatchNorm(Module):
    """Each feature with mean 0 and variance 1 over the samples, then scaled and moved by parameters.

    Attributes:
        total: gives the sum of an array over all processes; that of this process alone, unless someone sets another.
        batches: how many batches the running statistics are the mean of; None where they follow by ``MOMENTUM``.
    """

    MOMENTUM, EPSILON = 0.1, 1e-5

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = Parameter(np.ones(features, np.float32))
        self.bias = Parameter(np.zeros(features, np.float32))
        self.running_mean = Tensor(np.zeros(features, np.float32))
        self.running_var = Tensor(np.ones(features, np.float32))
        self.total: Callable[[Array], Array] = lambda array: array
        self.batches: int | None = None

    def forward(self, *inputs: Any) -> Tensor:
        """For x of shape (samples, features)."""
        [x] = inputs
        if not self.training:
            spread = np.sqrt(self.running_var.data + np.float32(self.EPSILON))
            normal = (x.data - self.running_mean.data) / spread
            return self._scaled(x, normal, lambda gradient: gradient / spread)
        *sums, count = self.total(np.append(x.data.sum(axis=0), np.float32(len(x))))
        mean = np.asarray(sums, x.dtype) / count
        centred = x.data - mean
        variance = self.total((centred * centred).sum(axis=0)) / count
        self._follow(mean, variance * count / max(count - 1, 1))
        spread = np.sqrt(variance + np.float32(self.EPSILON))
        normal = centred / spread

        def pull(gradient: Array) -> Any:
            both = np.concatenate([gradient.sum(axis=0), (gradient * normal).sum(axis=0)])
            of_mean, of_spread = np.split(self.total(both) / count, 2)
            return (gradient - of_mean - normal * of_spread) / spread

        return self._scaled(x, normal, pull)

    def _scaled(self, x: Tensor, normal: Array, pull: Callable[[Array], Array]) -> Tensor:
        weight = self.weight.data
        return operation(
            normal * weight + self.bias.data,
            (x, lambda gradient: pull(gradient * weight)),
            (self.weight, lambda gradient: (gradient * normal).sum(axis=0)),
            (self.bias, lambda gradient: gradient.sum(axis=0)),
        )

    def _follow(self, mean: Array, unbiased_variance: Array) -> None:
        share = self.MOMENTUM
        if self.batches is not None:
            self.batches += 1
            share = 1 / self.batches
        for running, value in ((self.running_mean, mean), (self.running_var, unbiased_variance)):
            running.data = ((1 - share) * running.data + share * value).astype(running.dtype)


class CrossEntropyLoss(Module):
    """The mean of -log softmax at the class."""

    def forward(self, *inputs: Any) -> Tensor:
        """For scores of shape (samples, classes) and int64 classes of shape (samples,)."""
        scores, classes = inputs
        rows = np.arange(len(scores))
        shifted = scores.data - scores.data.max(axis=1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

        def pull(gradient: Array) -> Any:
            share = np.exp(logs)
            share[rows, classes.data] -= 1
            return share * (gradient / len(rows))

        return operation(-logs[rows, classes.data].mean(), (scores, pull))


class MSELoss(Module):
    """The mean of the squared differences."""

    def forward(self, *inputs: Any) -> Tensor:
        """For outputs and targets of one shape."""
        outputs, targets = inputs
        difference = outputs.data - targets.data
        scale = np.float32(2 / difference.size)
        return operation((difference * difference).mean(), (outputs, lambda gradient: gradient * scale * difference))

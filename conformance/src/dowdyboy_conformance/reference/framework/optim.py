"""Optimizers, and the schedulers of their learning rates."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from .tensor import Array, Parameter, quiet


class Optimizer:
    """Updates parameters by their gradients.

    Attributes:
        parameters: what it updates.
        lr: the learning rate of the next step.
        slots: what the rule remembers of each parameter that has had a gradient, by its place in ``parameters``.
    """

    SLOTS: ClassVar[tuple[str, ...]] = ()

    def __init__(self, parameters: Iterable[Parameter], lr: float) -> None:
        self.parameters = list(parameters)
        self.lr = lr
        self.slots: dict[int, dict[str, Array]] = {}

    @quiet
    def step(self) -> None:
        """Updates every parameter that has a gradient."""
        for place, parameter in enumerate(self.parameters):
            if parameter.grad is not None:
                slots = self.slots.setdefault(place, self.fresh_slots(parameter))
                slots["steps"] = slots["steps"] + 1
                new = parameter.data - self.change(parameter.data, parameter.grad, slots)
                parameter.data = new.astype(parameter.dtype)

    def fresh_slots(self, parameter: Parameter) -> dict[str, Array]:
        """The slots of a parameter before its first step."""
        zeros = {name: np.zeros_like(parameter.data) for name in self.SLOTS}
        return {"steps": np.zeros(1, np.int64), **zeros}

    def change(self, value: Array, gradient: Array, slots: dict[str, Array]) -> Array:
        """What to subtract from a parameter; each rule has its own."""
        raise NotImplementedError(f"{type(self).__name__} has no rule.")


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum."""

    SLOTS = ("velocity",)

    def __init__(self, parameters: Iterable[Parameter], lr: float, momentum: float = 0.0) -> None:
        super().__init__(parameters, lr)
        self.momentum = momentum

    def change(self, value: Array, gradient: Array, slots: dict[str, Array]) -> Array:
        """Along the velocity, which the gradient adds to."""
        slots["velocity"] = self.momentum * slots["velocity"] + gradient
        return self.lr * slots["velocity"]


class Adam(Optimizer):
    """Adam (Kingma and Ba, algorithm 1); with a decay that of AdamW (Loshchilov and Hutter, algorithm 2)."""

    SLOTS = ("mean", "square")
    BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8

    def __init__(self, parameters: Iterable[Parameter], lr: float, decay: float = 0.0) -> None:
        super().__init__(parameters, lr)
        self.decay = decay

    def change(self, value: Array, gradient: Array, slots: dict[str, Array]) -> Array:
        """Along the mean of the gradients, over the root of that of their squares."""
        steps = int(slots["steps"][0])
        slots["mean"] = self.BETA1 * slots["mean"] + (1 - self.BETA1) * gradient
        slots["square"] = self.BETA2 * slots["square"] + (1 - self.BETA2) * gradient * gradient
        mean = slots["mean"] / (1 - self.BETA1**steps)
        root = np.sqrt(slots["square"] / (1 - self.BETA2**steps))
        return self.lr * (mean / (root + self.EPSILON) + self.decay * value)


class StepDecay:
    """Multiplies the learning rate by ``gamma`` at each step."""

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        self.optimizer = optimizer
        self.gamma = gamma
        self.steps = 0

    def step(self) -> None:
        """Goes on by one epoch."""
        self.steps += 1
        self.optimizer.lr *= self.gamma

    def state(self) -> dict[str, Any]:
        """How far it has come; the rate that it has come to is the optimizer's."""
        return {"steps": self.steps}

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes up what ``state`` gave."""
        self.steps = state["steps"]


class CosineDecay:
    """Lowers the learning rate to 0 along half a cosine of so many steps."""

    def __init__(self, optimizer: Optimizer, length: int) -> None:
        self.optimizer = optimizer
        self.length = length
        self.initial = optimizer.lr
        self.steps = 0

    def step(self) -> None:
        """Goes on by one step."""
        self.steps += 1
        self.optimizer.lr = self.initial * (1 + math.cos(math.pi * self.steps / self.length)) / 2

    def state(self) -> dict[str, Any]:
        """Where it began and how far it has come."""
        return {"initial": self.initial, "steps": self.steps}

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes up what ``state`` gave."""
        self.initial, self.steps = state["initial"], state["steps"]


class ReduceOnPlateau:
    """Multiplies the learning rate by ``factor`` when a value has not become better by a share of ``threshold``."""

    def __init__(self, optimizer: Optimizer, mode: str, factor: float, threshold: float = 1e-4) -> None:
        self.optimizer = optimizer
        self.mode = mode
        self.factor = factor
        self.threshold = threshold
        self.best: float | None = None
        self.steps = 0

    def step(self, value: float) -> None:
        """Looks at the value of an epoch."""
        self.steps += 1
        if self.best is None or self._is_better(value, self.best):
            self.best = value
        else:
            self.optimizer.lr *= self.factor

    def _is_better(self, value: float, best: float) -> bool:
        if self.mode == "min":
            return value < best - abs(best) * self.threshold
        return value > best + abs(best) * self.threshold

    def state(self) -> dict[str, Any]:
        """The best value so far, and of how many."""
        return {"best": self.best, "steps": self.steps}

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes up what ``state`` gave."""
        self.best, self.steps = state["best"], state["steps"]

"""An MLP with hand-written gradients and four optimizers in float64 NumPy, to compare every backend with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dowdyboy_conformance.harnesses.harness import Layers

Array = NDArray[np.float64]
Update = Callable[[Array, Array, dict[str, Array], int], Array]
"""``update(parameter, gradient, slots, t)`` gives the new parameter; t counts from 1."""


def cross_entropy(scores: Array, classes: NDArray[Any]) -> tuple[float, Array]:
    """The mean of -log softmax at the class, and its gradient by the scores."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(len(classes))
    gradient = np.exp(logs)
    gradient[rows, classes] -= 1
    return float(-logs[rows, classes].mean()), gradient / len(classes)


def mse(outputs: Array, targets: NDArray[Any]) -> tuple[float, Array]:
    """The mean squared error over all elements, and its gradient by the outputs."""
    difference = outputs - targets
    return float((difference**2).mean()), 2 * difference / difference.size


def forward(parameters: list[Array], inputs: Array) -> list[Array]:
    """The input of each layer, then the output; tanh stands between the layers."""
    values = [inputs]
    for place in range(0, len(parameters), 2):
        output = values[-1] @ parameters[place].T + parameters[place + 1]
        values.append(output if place == len(parameters) - 2 else np.tanh(output))
    return values


def backward(parameters: list[Array], values: list[Array], gradient: Array) -> list[Array]:
    """The gradients of the parameters from that of the output."""
    found: list[Array] = []
    for layer in reversed(range(len(parameters) // 2)):
        found = [gradient.T @ values[layer], gradient.sum(axis=0), *found]
        if layer:
            gradient = (gradient @ parameters[2 * layer]) * (1 - values[layer] ** 2)
    return found


def _sgd(lr: float, momentum: float) -> Update:
    def update(parameter: Array, gradient: Array, slots: dict[str, Array], t: int) -> Array:
        slots["velocity"] = momentum * slots.get("velocity", np.zeros_like(parameter)) + gradient
        return parameter - lr * slots["velocity"]

    return update


def _adam(lr: float, decay: float) -> Update:
    """Adam (Kingma and Ba, algorithm 1) with the decoupled decay of AdamW (Loshchilov and Hutter, algorithm 2)."""

    def update(parameter: Array, gradient: Array, slots: dict[str, Array], t: int) -> Array:
        zero = np.zeros_like(parameter)
        slots["m"] = 0.9 * slots.get("m", zero) + 0.1 * gradient
        slots["v"] = 0.999 * slots.get("v", zero) + 0.001 * gradient**2
        mean, square = slots["m"] / (1 - 0.9**t), slots["v"] / (1 - 0.999**t)
        return parameter * (1 - lr * decay) - lr * mean / (np.sqrt(square) + 1e-8)

    return update


def updater(name: str, lr: float) -> Update:
    """The rule of ``'sgd'``, ``'momentum'``, ``'adam'`` or ``'adamw'``."""
    rules = {
        "sgd": _sgd(lr, 0.0),
        "momentum": _sgd(lr, 0.9),
        "adam": _adam(lr, 0.0),
        "adamw": _adam(lr, 0.01),
    }
    return rules[name]


def flat(initial: Layers) -> list[Array]:
    """Weights and biases in turn, in float64."""
    return [np.asarray(item, dtype=np.float64) for layer in initial for item in layer]


def clip(gradients: list[Array], max_norm: float) -> list[Array]:
    """The gradients scaled down to a total 2-norm of at most ``max_norm``."""
    norm = float(np.sqrt(sum((item**2).sum() for item in gradients)))
    return [item * min(1.0, max_norm / norm) for item in gradients]


def train(
    initial: Layers,
    batches: list[tuple[NDArray[Any], NDArray[Any]]],
    *,
    loss: str = "cross_entropy",
    optimizer: str = "sgd",
    lr: float = 0.1,
    max_norm: float | None = None,
    max_value: float | None = None,
) -> tuple[list[float], list[Array]]:
    """The loss of each batch before its step, and the parameters after the last."""
    parameters, rule = flat(initial), updater(optimizer, lr)
    slots: list[dict[str, Array]] = [{} for _ in parameters]
    losses = []
    for t, (inputs, targets) in enumerate(batches, start=1):
        values = forward(parameters, inputs.astype(np.float64))
        value, gradient = (cross_entropy if loss == "cross_entropy" else mse)(values[-1], targets)
        losses.append(value)
        gradients = backward(parameters, values, gradient)
        gradients = gradients if max_norm is None else clip(gradients, max_norm)
        if max_value is not None:
            gradients = [np.clip(item, -max_value, max_value) for item in gradients]
        parameters = [rule(*item, t) for item in zip(parameters, gradients, slots, strict=True)]
    return losses, parameters


def cut(size: int, *arrays: NDArray[Any]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Batches of two arrays in their order."""
    first, second = arrays
    return [(first[at : at + size], second[at : at + size]) for at in range(0, len(first), size)]

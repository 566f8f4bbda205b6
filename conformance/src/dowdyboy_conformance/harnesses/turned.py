"""A second framework on NumPy that keeps everything otherwise than the reference: what the reference's runs cross to.

Its linear layers keep their weight as (inputs, outputs), its BatchNorm keeps weight and bias in one tensor and counts
its batches, and its Adam keeps powers of the betas in the place of a number of steps. So the suite can prove what the
core does for a run that crosses without any other framework.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dowdyboy_core import TrainerConfig
from dowdyboy_core import trainer as _core
from dowdyboy_core.backend import OptimizerWords, OwnTensor, Rules, Slot

from ..reference._backend import NumpyBackend
from ..reference._exchange import NumpyVocabulary
from ..reference.framework.layers import BatchNorm, Linear, Module
from ..reference.framework.optim import Adam
from ..reference.framework.tensor import Array, Parameter, Tensor, operation
from .harness import Layers, Optimizing
from .numpy import NumpyHarness


class TurnedLinear(Linear):
    """``x @ weight + bias``, with a weight of shape (inputs, outputs)."""

    def forward(self, *inputs: Any) -> Tensor:
        """For x of shape (samples, inputs)."""
        [x] = inputs
        given, weight = x.data, self.weight.data
        return operation(
            given @ weight + self.bias.data,
            (x, lambda gradient: gradient @ weight.T),
            (self.weight, lambda gradient: given.T @ gradient),
            (self.bias, lambda gradient: gradient.sum(axis=0)),
        )


class TurnedBatchNorm(BatchNorm):
    """Keeps weight and bias as the halves of ``both``, and in ``counted`` how many batches it has seen."""

    both: Parameter
    counted: Tensor

    def _scaled(self, x: Tensor, normal: Array, pull: Any) -> Tensor:
        weight, bias = np.split(self.both.data, 2)
        return operation(
            normal * weight + bias,
            (x, lambda gradient: pull(gradient * weight)),
            (self.both, lambda gradient: np.concatenate([(gradient * normal).sum(axis=0), gradient.sum(axis=0)])),
        )

    def _follow(self, mean: Array, unbiased_variance: Array) -> None:
        super()._follow(mean, unbiased_variance)
        self.counted.data = self.counted.data + 1


class TurnedAdam(Adam):
    """Adam that keeps the powers of its betas, each multiplied at every step, and no number of steps."""

    def fresh_slots(self, parameter: Parameter) -> dict[str, Array]:
        """The slots of a parameter before its first step."""
        powers = {name: np.ones(1, np.float32) for name in ("power2", "power1")}
        return powers | {name: np.zeros_like(parameter.data) for name in self.SLOTS}

    def step(self) -> None:
        """Updates every parameter that has a gradient."""
        for place, parameter in enumerate(self.parameters):
            if parameter.grad is not None:
                slots = self.slots.setdefault(place, self.fresh_slots(parameter))
                for name, beta in (("power1", self.BETA1), ("power2", self.BETA2)):
                    slots[name] = slots[name] * np.float32(beta)
                new = parameter.data - self.change(parameter.data, parameter.grad, slots)
                parameter.data = new.astype(parameter.dtype)

    def change(self, value: Array, gradient: Array, slots: dict[str, Array]) -> Array:
        """Along the mean of the gradients, over the root of that of their squares."""
        slots["mean"] = self.BETA1 * slots["mean"] + (1 - self.BETA1) * gradient
        slots["square"] = self.BETA2 * slots["square"] + (1 - self.BETA2) * gradient * gradient
        mean = slots["mean"] / (1 - slots["power1"])
        root = np.sqrt(slots["square"] / (1 - slots["power2"]))
        change: Array = self.lr * (mean / (root + self.EPSILON) + self.decay * value)
        return change


RULES = Rules("dowdyboy_conformance.reference.framework.", "dowdyboy_conformance.harnesses.turned")
RULES.add(TurnedLinear, "linear", (OwnTensor("weight", "weight", (1, 0)), OwnTensor("bias", "bias")))
RULES.add(
    TurnedBatchNorm,
    "batch_norm",
    (
        OwnTensor("both", ("weight", "bias")),
        OwnTensor("running_mean", "running_mean"),
        OwnTensor("running_var", "running_var"),
        OwnTensor("counted", "batches"),
    ),
)


def register_exchange(cls: type[Module], kind: str, tensors: Mapping[str, Any]) -> None:
    """Says what the tensors of a module class are."""
    RULES.register(cls, Module, kind, tensors)


class TurnedVocabulary(NumpyVocabulary):
    """The framework's words."""

    rules = RULES

    def optimizer(self, optimizer: Any) -> OptimizerWords:
        if type(optimizer) is not TurnedAdam:
            return super().optimizer(optimizer)
        powers = [
            Slot(name, "step", "power", {"beta": beta, "first": 0})
            for name, beta in (("power2", optimizer.BETA2), ("power1", optimizer.BETA1))
        ]
        slots = (*powers, Slot("mean", "first_moment"), Slot("square", "second_moment"))
        settings: dict[str, Any] = {"betas": [optimizer.BETA1, optimizer.BETA2], "epsilon": optimizer.EPSILON}
        settings |= {"weight_decay": optimizer.decay} if optimizer.decay else {}
        kind = "adamw" if optimizer.decay else "adam"
        return OptimizerWords(kind, "TurnedAdam", slots, (float(optimizer.lr),), settings)


class TurnedBackend(NumpyBackend):
    """The reference, with the layouts of these."""

    name = "turned"
    vocabulary = TurnedVocabulary()


class Trainer(_core.Trainer):
    """The trainer of it."""

    def __init__(self, config: TrainerConfig) -> None:
        super().__init__(config, TurnedBackend())


class TurnedHarness(NumpyHarness):
    """Binds the checks to it."""

    name = "turned"
    module = "dowdyboy_conformance.harnesses.turned"
    linear_is_transposed = True

    def make_trainer(self, config: TrainerConfig) -> Any:
        return Trainer(config)

    def model(self, layers: Layers, *, batch_norm: bool = False, dropout: float = 0.0) -> Any:
        return _turned(super().model(layers, batch_norm=batch_norm, dropout=dropout))

    def branched_model(self, layers: Layers) -> Any:
        return _turned(super().branched_model(layers))

    def optimizer(
        self, name: str, models: Sequence[Any], lr: float, *, schedule: str | None = None, mode: str = "min"
    ) -> Optimizing:
        made = super().optimizer(name, models, lr, schedule=schedule, mode=mode)
        if isinstance(made.optimizer, Adam):
            made.optimizer.__class__ = TurnedAdam
        return made

    def parameters(self, model: Any) -> dict[str, NDArray[Any]]:
        found = super().parameters(model)
        for path in [path for path in found if path.endswith(".both")]:
            weight, bias = np.split(found.pop(path), 2)
            found |= {path.replace("both", "weight"): weight, path.replace("both", "bias"): bias}
        return found


def _turned(model: Module) -> Module:
    """The same model, of the layers above."""
    for _, layer in model.modules():
        if type(layer) is Linear:
            layer.__class__ = TurnedLinear
            layer.weight.data = layer.weight.data.T.copy()
        elif type(layer) is BatchNorm:
            layer.__class__ = TurnedBatchNorm
            layer.both = Parameter(np.concatenate([layer.weight.data, layer.bias.data]))  # type: ignore[attr-defined]
            layer.counted = Tensor(np.zeros((), np.int64))  # type: ignore[attr-defined]
            del layer.weight, layer.bias
    return model

"""What the framework's classes are in the words that no framework owns: by class, never by shape or name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dowdyboy_core.backend import (
    Array,
    ModelWords,
    OptimizerWords,
    OwnTensor,
    Rules,
    ScheduleWords,
    Slot,
    Vocabulary,
    describe_layers,
)

from .framework.layers import BatchNorm, Linear, Module
from .framework.optim import SGD, Adam, CosineDecay, ReduceOnPlateau, StepDecay
from .framework.tensor import Parameter

_PLAIN = (OwnTensor("weight", "weight"), OwnTensor("bias", "bias"))
_RUNNING = (OwnTensor("running_mean", "running_mean"), OwnTensor("running_var", "running_var"))

RULES = Rules("dowdyboy_conformance.reference.framework.")
RULES.add(Linear, "linear", _PLAIN)  # (outputs, inputs), as in the neutral layout
RULES.add(BatchNorm, "batch_norm", (*_PLAIN, *_RUNNING))


def register_exchange(cls: type[Module], kind: str, tensors: Mapping[str, Any]) -> None:
    """Says what the tensors of a module class are, so that a run with it can cross to another framework.

    Args:
        cls: the class; subclasses that have no rule of their own count as it.
        kind: what it is, the same word on both sides: ``'my_attention'``, …
        tensors: for the name of each tensor in the module its role, the same word on both sides, or the role and the
            order of the axes: for each axis of the neutral tensor its place in this one.

    Raises:
        ConfigError: ``cls`` is no module class, or a role or an order of axes is none.
    """
    RULES.register(cls, Module, kind, tensors)


_STEPS = Slot("steps", "step", "count")
_KINDS = {StepDecay: "step", CosineDecay: "cosine", ReduceOnPlateau: "plateau"}


class NumpyVocabulary(Vocabulary):
    """The framework's words."""

    rules = RULES

    def model(self, model: Any) -> ModelWords:
        modules = {path.rstrip("."): module for path, module in model.modules()}
        state = model.state()
        tensors = {path: (tensor.shape, id(tensor)) for path, tensor in state.items()}
        trained = [path for path, tensor in state.items() if isinstance(tensor, Parameter)]
        return describe_layers(self.rules, modules, tensors, trained, lambda module, names: ())

    def optimizer(self, optimizer: Any) -> OptimizerWords:
        kind: str | None = None
        slots: tuple[Slot, ...] = ()
        settings: dict[str, Any] = {}
        if type(optimizer) is SGD:
            # It keeps a velocity without momentum, too, which no step looks at then.
            kind = "momentum" if optimizer.momentum else "sgd"
            slots = (_STEPS, Slot("velocity", "momentum", "tensor" if optimizer.momentum else "zeros"))
            settings = {"momentum": optimizer.momentum}
        elif type(optimizer) is Adam:
            kind = "adamw" if optimizer.decay else "adam"
            slots = (_STEPS, Slot("mean", "first_moment"), Slot("square", "second_moment"))
            settings = {"betas": [optimizer.BETA1, optimizer.BETA2], "epsilon": optimizer.EPSILON}
            settings |= {"weight_decay": optimizer.decay} if optimizer.decay else {}
        return OptimizerWords(kind, type(optimizer).__name__, slots, (float(optimizer.lr),), settings)

    def schedule(self, scheduler: Any) -> ScheduleWords:
        kind = _KINDS.get(type(scheduler))
        if kind is None:
            return ScheduleWords(None, type(scheduler).__name__)
        follows = {"best": scheduler.best, "bad": 0, "cooldown": 0} if kind == "plateau" else None  # of no patience
        return ScheduleWords(kind, type(scheduler).__name__, scheduler.steps, float(scheduler.optimizer.lr), follows)

    def optimizer_state(
        self, optimizer: Any, live: Any, slots: Mapping[str, Mapping[str, Array]], rates: Sequence[float], schedule: Any
    ) -> Any:
        return {**live, "state": dict(slots), "lr": rates[0]}

    def schedule_state(self, scheduler: Any, live: Any, words: ScheduleWords, rates: Sequence[float]) -> Any:
        tree = {**live, "steps": words.position}
        return tree if words.follows is None else {**tree, "best": words.follows["best"]}

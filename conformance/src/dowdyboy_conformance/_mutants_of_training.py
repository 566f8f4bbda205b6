"""Mutants of what happens while a run trains: steps, modes, records, the best value, schedulers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._mutation import Mutant, TorchMutant, change, nothing


class NoStep(Mutant):
    """Never updates a parameter."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "step", nothing)


class NoZeroGrad(Mutant):
    """Never clears the gradients."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "zero_grad", nothing)


class NeverEval(Mutant):
    """Leaves the models in training mode."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "set_training", lambda original: lambda model, training: original(model, True))


class NeverTrainAgain(Mutant):
    """Leaves the models in evaluation mode once they were validated."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda model, training: None if training and trainer.epoch > 1 else original(model, training)

        change(trainer._backend, "set_training", make)


class GradientsInVal(Mutant):
    """Validates with gradients on."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "forward_context", lambda original: lambda training: original(True))


class RecordsReversed(Mutant):
    """Gives the records of an epoch in reverse."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "stack", lambda original: lambda values, dtype: original(list(values)[::-1], dtype))


class RecordsAlias(Mutant):
    """Keeps the recorded tensors themselves, with their graphs."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "keep_tensor", lambda original: lambda value: value)


class RecordsStay(Mutant):
    """Doesn't clear the records after an epoch."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._records, "clear", nothing)


class RecordsNarrow(Mutant):
    """Keeps float64 records as float32."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda values, dtype: original(values, "float32" if dtype == "float64" else dtype)

        change(trainer._backend, "stack", make)


class MeanInFloat32(Mutant):
    """Takes the mean of a record in float32."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda tensor: float(np.float32(original(tensor)))

        change(trainer._backend, "mean", make)


class LastOfEqualsIsBest(Mutant):
    """Compares with <=."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda value: original(value) or value == trainer._position.best

        change(trainer, "_is_best", make)


class NanIsBest(Mutant):
    """Takes the first value as the best, whatever it is."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda value: original(value) or (trainer._position.best is None and math.isnan(value))

        change(trainer, "_is_best", make)


class BestForgotten(Mutant):
    """Doesn't take up the best value of a checkpoint."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def load(*args: Any, **named: Any) -> None:
                original(*args, **named)
                trainer._position.best = None

            return load

        change(trainer, "_load", make)


class SchedulerTwice(Mutant):
    """Steps a scheduler as if there were two processes."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def step(scheduler: Any, value: Any) -> None:
                original(scheduler, value)
                original(scheduler, value)

            return step

        change(trainer._backend, "step_scheduler", make)


class PlateauGetsNan(Mutant):
    """Hands NaN on to a plateau scheduler."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def step(scheduler: Any, value: Any) -> None:
                original(scheduler, math.nan if value is not None and abs(value) > 1e38 else value)

            return step

        change(trainer._backend, "step_scheduler", make)


class ClipsTooMuch(Mutant):
    """Clips to a bound that is smaller by a thousandth."""

    scenario = "long_training"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda optimizer, max_norm: original(optimizer, max_norm * 0.999)

        change(trainer._backend, "clip_gradients", make)


class VarianceBiased(TorchMutant):
    """Has BatchNorm follow the biased variance."""

    def spoil(self, trainer: Any) -> None:
        def undo(layer: Any, inputs: Any, output: Any) -> None:
            if layer.training:
                unbiased = inputs[0].detach().var(dim=0)
                # By .data, since autograd minds a buffer that changes between forward and backward.
                layer.running_var.data.sub_(layer.momentum * unbiased / len(inputs[0]))

        def make(original: Any) -> Any:
            def prepare(model: Any, **named: Any) -> Any:
                for layer in model.modules():
                    if hasattr(layer, "running_var"):
                        layer.register_forward_hook(undo)
                return original(model, **named)

            return prepare

        change(trainer._backend, "prepare_model", make)


class EveryLossRead(Mutant):
    """Reads the loss of each batch."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def backward(loss: Any, factor: float) -> None:
                trainer._backend.to_float(loss)
                original(loss, factor)

            return backward

        change(trainer._backend, "backward", make)


class StateReadAtOnce(Mutant):
    """Reads what set_bar_state is given when it is given."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def set_bar_state(values: Any) -> None:
                original({name: trainer._backend.to_float(value) for name, value in values.items()})

            return set_bar_state

        change(trainer, "set_bar_state", make)

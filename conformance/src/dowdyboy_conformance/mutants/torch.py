"""Mutants of PyTorch's backend, for what the reference hasn't got: memory that is shared, and autocast."""

from __future__ import annotations

from typing import Any

import torch

from dowdyboy_conformance.harnesses.torch import TorchHarness

from .mutant import Spoilt, caught, change


class TorchMutant(Spoilt, TorchHarness):
    """A spoilt backend of PyTorch's."""


@caught("P-3", "test_hooks_run_under_autocast")
class EvaluatedInFull(TorchMutant):
    """Validates and tests without autocast."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda training: original(True) if training else torch.no_grad()

        change(trainer._backend, "forward_context", make)


@caught("R-4", "test_a_recorded_loss_does_not_keep_its_graph")
class RecordsKeepGraphs(TorchMutant):
    """Keeps the graphs of what is recorded."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "keep_tensor", lambda original: lambda value: value.clone())


@caught("C-20", "test_training_goes_on_while_a_checkpoint_is_written")
class SavesWhatIsYetToCome(TorchMutant):
    """Saves the weights that the model has when they are written, not when they were to be saved."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def state(model: Any) -> Any:
                live = dict(model.state_dict())
                return {
                    name: array._replace(data=live[name].detach().view(-1).numpy().view("uint8"))
                    for name, array in original(model).items()
                }

            return state

        change(trainer._backend, "model_state", make)


@caught("N-3", "test_the_running_variance_is_biased_or_not_as_the_framework_has_it")
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

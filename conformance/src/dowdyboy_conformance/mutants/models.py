"""Mutants of what a model is in several processes, and of what of it is trained."""

from __future__ import annotations

from typing import Any

from dowdyboy_conformance._inside import inside
from dowdyboy_core.backend import replicas as _replica

from .mutant import Mutant, caught, change, nothing

_saver = inside("_run.saver")


@caught("W-24", "test_however_a_model_is_computed_it_trains_as_in_one_process")
class CallsAlone(Mutant):
    """Exchanges the gradients of what was computed by calling the model, and of nothing else."""

    scenario = "uses"

    def spoil(self, trainer: Any) -> None:
        if trainer.world_size > 1:  # in a process that was started for this, and is not used for anything else
            change(_replica.Exchange, "touch", nothing)


@caught("W-24", "test_what_the_trainer_gives_is_the_model_to_whoever_looks")
class AttributesAtHome(Mutant):
    """Keeps the attributes that are set on what the trainer gives from the user's model."""

    scenario = "disguise"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda model, name, value: None if name == "gain" else original(model, name, value)

        if trainer.world_size > 1:
            change(_replica.Replica, "__setattr__", make)


@caught("W-25", "test_what_is_frozen_may_change_from_epoch_to_epoch")
class AsAtFirst(Mutant):
    """Exchanges the gradients of those parameters that were trained at first."""

    scenario = "thawing"

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "follow_trained", nothing)


@caught("W-25", "test_processes_that_train_different_parameters_are_an_error")
class EachAsItLikes(Mutant):
    """Doesn't ask whether the processes train the same parameters."""

    scenario = "refusals"

    def spoil(self, trainer: Any) -> None:
        change(trainer._parts, "_agree_on_trained", nothing)


@caught("W-26", "test_what_is_frozen_may_not_change_within_an_epoch")
class FrozenUnseen(Mutant):
    """Doesn't look whether the same parameters are trained still."""

    scenario = "refusals"

    def spoil(self, trainer: Any) -> None:
        if trainer.world_size > 1:
            change(_replica.Exchange, "_check_trained", nothing)


@caught("W-26", "test_models_may_be_frozen_in_turn_within_a_step")
class FrozenForGood(Mutant):
    """Forgets a model that is wholly frozen when an epoch begins."""

    scenario = "adversarial"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def follow(model: Any) -> None:
                for exchange in _replica.exchanges_of([model]):
                    if not any(map(exchange.wants_gradient, exchange.parameters)):
                        exchange.names, exchange.parameters = [], []
                original(model)

            return follow

        change(trainer._backend, "follow_trained", make)


@caught("W-13", "test_weights_that_drift_are_noticed_in_the_first_epoch")
class ComparedWhenSaved(Mutant):
    """Compares the weights before a checkpoint only."""

    scenario = "drifting"

    def spoil(self, trainer: Any) -> None:
        if trainer.world_size > 1:
            change(_saver, "check_equal_weights", nothing)

"""Mutants that take what they should refuse, or refuse it in other words."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dowdyboy_conformance._inside import inside
from dowdyboy_conformance.reference.framework.tensor import Tensor
from dowdyboy_core import ConfigError, SetupError
from dowdyboy_core import trainer as trainer_module

from .mutant import Mutant, caught, change, nothing

if TYPE_CHECKING:
    from pytest import MonkeyPatch

_assembly = inside("_run.assembly")


@caught("A-9", "test_a_component_has_nothing_to_train")
class ComponentsTrained(Mutant):
    """Takes a component with something to train."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "wants_gradient", lambda original: lambda parameter: False)


@caught("B-4", "test_a_function_must_give_a_number")
class NoNumberIsNan(Mutant):
    """Takes what is no number for NaN."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def best_value(*given: Any) -> Any:
                try:
                    return original(*given)
                except ConfigError:
                    return math.nan

            return best_value

        change(trainer._following, "_own_value", make)


@caught("C-15", "test_loading_what_is_not_there")
class NothingToLoad(Mutant):
    """Begins anew where the checkpoint to load is not there."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda folder, **named: original(folder, **named) if Path(folder).exists() else None

        change(trainer, "load_checkpoint", make)


@caught("H-3", "test_a_hook_with_other_arguments_is_refused_before_any_work")
class HooksUntried(Mutant):
    """Finds out only when it calls a hook that it can't be called."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(trainer_module, "check_hook", nothing, patch)


@caught("H-3", "test_any_callable_with_four_arguments_is_a_hook")
class FunctionsOnly(Mutant):
    """Takes functions for hooks, and nothing else that can be called."""

    def alter(self, patch: MonkeyPatch) -> None:
        def check(name: str, hook: Any, arguments: str) -> None:
            if not inspect.isroutine(hook):
                raise ConfigError(f"{name}={hook!r} is no function.")

        change(trainer_module, "check_hook", lambda original: check, patch)


@caught("H-3", "test_other_hooks_are_refused_too")
class EndWithoutEpoch(Mutant):
    """Wants an on_epoch_end that takes the trainer alone."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            return lambda name, hook, arguments: original(name, hook, arguments.removesuffix(", ep"))

        change(inside("_run.hooks"), "check_hook", make, patch)


@caught("O-4", "test_a_loss_that_cannot_be_differentiated")
class LossSummed(Mutant):
    """Sums a loss up that has several elements."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda loss: original(loss.sum() if isinstance(loss, Tensor) and loss.size > 1 else loss)

        change(trainer._stepper, "backward", make)


@caught("X-2", "test_the_texts_of_errors", "test_a_loss_that_cannot_be_differentiated")
class OwnWords(Mutant):
    """Says in words of its own what is wrong with a loss."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda loss: str(original(loss) or "").replace("detached from", "not connected to") or None

        change(trainer._backend, "loss_problem", make)


@caught("O-6", "test_stepping_nothing_or_a_plateau_is_refused")
class NothingStepped(Mutant):
    """Steps nothing, without a word, where it is given nothing to step."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda *given, **named: original(*given, **named) if given or named else None

        change(trainer, "step", make)


@caught("O-7", "test_a_scheduler_of_another_optimizer_is_refused")
class StrangeSchedulers(Mutant):
    """Takes a scheduler that was made for another optimizer."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "scheduler_drives", lambda original: lambda scheduler, optimizer: True)


@caught("O-7", "test_an_optimizer_of_another_model_is_refused")
class StrangeParameters(Mutant):
    """Doesn't look at whose parameters an optimizer has."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "optimizer_parameters", lambda original: lambda optimizer: [])


@caught("R-7", "test_what_cannot_be_recorded_is_refused")
class RecordedOneByOne(Mutant):
    """Records the values of a call one by one, up to the bad one."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda values: [original({name: value}) for name, value in values.items()]

        change(trainer._records, "_add_checked", make)


@caught("D-1", "test_what_does_not_fit_is_refused")
class IteratorsTaken(Mutant):
    """Takes an iterator for data, and reads it to its end at once."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            return lambda role, loader: original(role, list(loader) if isinstance(loader, Iterator) else loader)

        change(_assembly, "_as_stream", make, patch)


@caught("X-3", "test_what_is_missing_is_told_in_this_order", "test_test_needs_a_loader_and_a_model")
class ModelFirst(Mutant):
    """Asks for the model first."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def check_ready(role: str) -> None:
                if not trainer._parts.models:
                    raise SetupError("There is no model. Call set_model or set_models first.")
                original(role)

            return check_ready

        change(trainer._parts, "check_ready", make)


@caught("X-3", "test_no_optimizer_is_needed_without_auto_optimize")
class OptimizerWanted(Mutant):
    """Asks for an optimizer also where the hooks do without one."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def check_ready(role: str) -> None:
                original(role)
                if role == "train" and not trainer._parts.optimizers:
                    raise SetupError("There is no optimizer. Call set_optimizer or set_optimizers first.")

            return check_ready

        change(trainer._parts, "check_ready", make)

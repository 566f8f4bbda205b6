"""Mutants that are wrong where several things come together, which scripts drawn from a number happen to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dowdyboy_conformance.reference import _state

from .mutant import Mutant, caught, change

if TYPE_CHECKING:
    from pytest import MonkeyPatch

_ALONE = "test_random_scripts_end_as_without_a_stop"
_TOGETHER = "test_random_scripts_of_several_processes_end_as_without_a_stop"


def _change_in_validation(trainer: Any, spoil: Callable[[Any], Any]) -> None:
    """Has ``spoil`` change the position of a run that goes on within a validation."""

    def make(original: Any) -> Any:
        def put_in_place(*given: Any, **named: Any) -> None:
            original(*given, **named)
            if trainer._position.val_batch is not None:
                spoil(trainer._position)

        return put_in_place

    change(trainer._saver.resumed, "put_in_place", make)


@caught("C-39", _ALONE)
class ForgetsThePassInValidation(Mutant):
    """Begins the pass over the data anew where an epoch is so many steps and a run was stopped in a validation."""

    def spoil(self, trainer: Any) -> None:
        def begin_anew(position: Any) -> None:
            position.marks = [(position.train_step, position.place()[0], 0)]

        _change_in_validation(trainer, begin_anew)


@caught("C-39", _TOGETHER)
class OneForgetsItsStreams(Mutant):
    """Has the second process draw on from wherever its streams are."""

    scenario = "scripts"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda *given: None if trainer.rank else original(*given)

        change(trainer._saver.resumed, "continue_streams", make)


@caught("C-5", "test_slots_stand_in_the_order_of_the_parameters")
class FirstStepsFirst(Mutant):
    """Writes the slots down in the order in which they were made."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            def optimizer_state(optimizer: Any, names: Any) -> Any:
                state = original(optimizer, names)
                paths = [names[id(item)] for item in optimizer.parameters]
                state["state"] = {paths[place]: state["state"][paths[place]] for place in optimizer.slots}
                return state

            return optimizer_state

        change(_state, "optimizer_state", make, patch)


@caught("O-3", "test_clipping_does_not_count_what_was_frozen_since")
class LeavesGradientsOfFrozen(Mutant):
    """Clears the gradients only of what is trained now."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def zero_grad(optimizer: Any) -> None:
                kept = [(item, item.grad) for item in optimizer.parameters if not item.trainable]
                original(optimizer)
                for item, gradient in kept:
                    item.grad = gradient

            return zero_grad

        change(trainer._backend, "zero_grad", make)


@caught("H-1", "test_validation_counts_alike_in_all_processes")
class CountsForItself(Mutant):
    """Counts in each process the batches of validation that it has had."""

    scenario = "counts"

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "largest", lambda original: list)

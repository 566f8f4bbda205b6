"""Mutants of what is refused at once, and of shared schedulers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dowdyboy_conformance._inside import inside

from .mutant import Mutant, caught, change, nothing

if TYPE_CHECKING:
    from pytest import MonkeyPatch

_assembly = inside("_run.assembly")
_refused = inside("_run.refused")


@caught("X-4", "test_what_is_no_scheduler_is_refused")
class AnythingSchedules(Mutant):
    """Takes anything for a scheduler."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_assembly, "check_scheduler", nothing, patch)


@caught("X-4", "test_several_loaders_are_not_one")
class ManyLoadersInOne(Mutant):
    """Takes several loaders for the batches of one."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_assembly, "check_loader", nothing, patch)


@caught("X-4", "test_an_optimizer_is_given_once", "test_an_optimizer_that_wants_a_closure_is_refused")
class AnyOptimizers(Mutant):
    """Takes an optimizer twice, and one that can't be stepped."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_assembly, "check_optimizers", nothing, patch)


@caught("X-4", "test_optimizers_that_would_rescale_one_gradient_are_refused")
class RescalesTwice(Mutant):
    """Takes optimizers that share a parameter."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_assembly, "check_shared", nothing, patch)


@caught("X-4", "test_optimizers_may_share_where_nothing_is_rescaled")
class NothingShared(Mutant):
    """Has the first of several optimizers alone step."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def step(optimizer: Any) -> None:
                if optimizer is trainer.get_optimizers()[0][0]:
                    original(optimizer)

            return step

        change(trainer._backend, "step", make)


@caught("X-4", "test_a_scheduler_must_have_a_value_to_follow")
class FollowsNothing(Mutant):
    """Lets a scheduler wait for a value that never comes."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._following, "check", nothing)


@caught("O-9", "test_a_shared_scheduler_steps_once")
class StepsForEachOptimizer(Mutant):
    """Steps a scheduler once for each optimizer that it is of."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._schedules, "_of", lambda original: lambda by: [*original(by), *original(by)])

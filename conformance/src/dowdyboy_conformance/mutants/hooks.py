"""Mutants of tests that hooks call."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from .mutant import Mutant, caught, change, nothing


def after_tests(trainer: Any, then: Callable[[], Any]) -> None:
    """Has something done at the end of each test."""

    def make(original: Any) -> Any:
        def test(*hooks: Any) -> None:
            try:
                original(*hooks)
            finally:
                then()

        return test

    change(trainer, "_test", make)


@caught("L-12", "test_tests_in_every_hook_change_nothing_that_follows", "test_one_loader_may_be_for_everything")
@caught("D-10", "test_tests_in_every_hook_change_nothing_that_follows")
class EndsAllWorkers(Mutant):
    """Ends the workers of training, too, where a test ends."""

    def spoil(self, trainer: Any) -> None:
        after_tests(trainer, trainer._parts.close_loaders)


@caught("L-12", "test_each_module_gets_its_mode_back", "test_tests_in_every_hook_change_nothing_that_follows")
class StaysInEvaluation(Mutant):
    """Leaves the models in evaluation mode."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "keep_modes", lambda original: lambda model: lambda: None)


@caught("L-12", "test_each_module_gets_its_mode_back")
class ModesAsAWhole(Mutant):
    """Puts a model back into the one mode that it is in, with all its parts."""

    def spoil(self, trainer: Any) -> None:
        def keep(model: Any) -> Any:
            training = model.training
            return lambda: model.train(training)

        change(trainer._backend, "keep_modes", lambda original: keep)


@caught("L-12", "test_tests_in_every_hook_change_nothing_that_follows")
@caught("S-5", "test_tests_in_every_hook_change_nothing_that_follows")
class DrawsFromTheRun(Mutant):
    """Has a test draw from the random streams of the training."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._interlude, "_streams", lambda original: _Shared())


class _Shared:
    """Random streams that are never set aside."""

    def isolated(self, seed: int) -> Any:
        return nullcontext()


@caught("L-12", "test_what_a_test_draws_follows_from_its_place_alone")
class DrawsAlwaysTheSame(Mutant):
    """Seeds every test alike."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._interlude, "undisturbed", lambda original: lambda place: original((0, 0, 0)))


@caught("L-12", "test_what_is_shown_is_of_the_fit_again")
class ShowsTheTest(Mutant):
    """Goes on to show what a test was given to show."""

    def spoil(self, trainer: Any) -> None:
        kept: dict[str, Any] = {}

        def make(original: Any) -> Any:
            def step(*given: Any) -> None:
                original(*given)
                kept.update(trainer._display.state)

            return step

        change(trainer, "_evaluate_batch", make)
        after_tests(trainer, lambda: trainer._display.state.update(kept))


@caught("L-9", "test_tests_around_a_fit_change_nothing")
@caught("L-12", "test_tests_around_a_fit_change_nothing")
class TestsClearRecords(Mutant):
    """Clears the records where a test ends."""

    __test__ = False

    def spoil(self, trainer: Any) -> None:
        after_tests(trainer, lambda: trainer._records.clear())


@caught("L-12", "test_no_hook_begins_what_is_under_way")
class FitsWithin(Mutant):
    """Begins a fit from a hook."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._interlude, "check_fit", nothing)


@caught("L-12", "test_no_hook_begins_what_is_under_way")
class TestsWithin(Mutant):
    """Begins a test from a hook of one."""

    __test__ = False

    def spoil(self, trainer: Any) -> None:
        change(trainer._interlude, "check_test", nothing)


# ---- of several processes


@caught("L-12", "test_a_test_amid_training_is_that_of_one_process")
class TestsOwnBuffers(Mutant):
    """Has each process test with the buffers that it has itself."""

    __test__ = False
    scenario = "interludes"

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "aligned", lambda original: lambda models: nullcontext())


@caught("L-12", "test_a_test_amid_training_is_that_of_one_process")
class KeepsTheBuffersOfTheFirst(Mutant):
    """Leaves all processes with the buffers of the first one."""

    scenario = "interludes"

    def spoil(self, trainer: Any) -> None:
        backend = trainer._backend

        def aligned(models: Any) -> Any:
            backend.align_untrained(models)
            return nullcontext()

        change(backend, "aligned", lambda original: aligned)


@caught("L-12", "test_a_test_in_validation_needs_all_processes")
class TestsAlone(Mutant):
    """Says nothing where processes have no batch like the one in which it tests."""

    __test__ = False
    scenario = "interludes"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda val_batch: None if not val_batch else 1 / 0  # would wait for ever

        change(trainer._interlude, "check_test", make)

"""Mutants of the average of the weights."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from dowdyboy_conformance._inside import inside
from dowdyboy_conformance.reference import _averaging

from .mutant import Mutant, caught, change, nothing

if TYPE_CHECKING:
    from pytest import MonkeyPatch

_snapshots, _checkpoints = inside("_run.snapshots"), inside("_run.checkpoints")


@caught("O-13", "test_the_average_moves_after_each_step")
class MovesTooLate(Mutant):
    """Moves the average at the next batch only: on_step_end and the end find that of the step before."""

    def spoil(self, trainer: Any) -> None:
        averaging, held = trainer._averaging, list[Any]()

        def make(original: Any) -> Any:
            def after_batch() -> None:
                for seen in held:
                    averaging._seen = seen
                    original()
                held[:] = [averaging._seen]
                averaging._seen = averaging._stepper.steps

            return after_batch

        change(averaging, "after_batch", make)


@caught("O-13", "test_what_is_stepped_by_hand_moves_the_average_once_a_batch")
class MovesWithEachOptimizer(Mutant):
    """Moves the average after each step of an optimizer, however many there are in a batch."""

    def spoil(self, trainer: Any) -> None:
        averaging = trainer._averaging

        def make(original: Any) -> Any:
            def step(*given: Any) -> Any:
                stepped = original(*given)
                averaging.after_batch()
                return stepped

            return step

        change(trainer._stepper, "step", make)


@caught(
    "O-14",
    "test_evaluation_uses_the_average_and_training_does_not",
    "test_a_run_that_ends_early_ends_with_its_average",
)
@caught("B-13", "test_the_best_is_decided_by_the_average")
class EvaluatesWhatIsTrained(Mutant):
    """Validates and tests with the trained weights."""

    def spoil(self, trainer: Any) -> None:
        averaging, saves = trainer._averaging, trainer._averaging.applied

        def make(original: Any) -> Any:
            return lambda: nullcontext() if trainer._interlude.phase is not None else original()

        change(averaging, "applied", make)
        change(averaging, "copies", lambda original: lambda: _with(averaging, saves, original))


def _with(averaging: Any, applied: Any, copies: Any) -> Any:
    spoilt, averaging.applied = averaging.applied, applied
    try:
        return copies()
    finally:
        averaging.applied = spoilt


@caught("O-14", "test_a_test_between_forward_and_backward_disturbs_nothing")
class NotPutBackAmidTraining(Mutant):
    """Leaves the average in the models after a test that train_step calls."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            @contextmanager
            def applied() -> Any:
                with original():
                    yield
                    if trainer._interlude.phase == "train":
                        trainer._averaging._in_place = False

            return applied

        change(trainer._averaging, "applied", make)


@caught("O-14", "test_an_exception_in_validation_leaves_the_trained_weights")
class LeftByAnException(Mutant):
    """Leaves the average in the models where validation fails."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            @contextmanager
            def applied() -> Any:
                trainer._averaging._put(True)
                yield
                trainer._averaging._put(False)

            return applied

        change(trainer._averaging, "applied", make)


@caught("O-14", "test_an_average_belongs_to_one_fit")
class AverageOutlivesItsFit(Mutant):
    """Goes on with the average of the fit before."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._averaging, "restart", nothing)


@caught("O-15", "test_what_is_trained_later_joins_with_its_value")
class LateComersForgotten(Mutant):
    """Averages only what was trained in the first epoch."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda *, resumed: original(resumed=resumed or trainer.epoch > 1)

        change(trainer._averaging, "begin_epoch", make)


@caught("O-15", "test_all_processes_have_the_same_average")
class OneProcessAverages(Mutant):
    """Keeps an average in the first process alone."""

    scenario = "average"

    def spoil(self, trainer: Any) -> None:
        if trainer.rank:
            change(trainer._averaging, "after_batch", nothing)


@caught("O-15", "test_the_statistics_of_an_average_can_be_computed")
class StatisticsOfWhatIsTrained(Mutant):
    """Computes the statistics with the trained weights."""

    def spoil(self, trainer: Any) -> None:
        change(trainer, "update_bn", lambda original: lambda *given: _without(trainer._averaging, original, given))


def _without(averaging: Any, function: Any, given: Any) -> None:
    kept, averaging._updates = averaging._updates, 0
    try:
        function(*given)
    finally:
        averaging._updates = kept


@caught("O-15", "test_the_statistics_of_an_average_can_be_computed")
class StatisticsAreLost(Mutant):
    """Leaves what a failed computation has come to."""

    def alter(self, patch: MonkeyPatch) -> None:
        @contextmanager
        def statistics_anew(models: Any) -> Any:
            with _averaging_of(models):
                try:
                    yield
                except ZeroDivisionError as error:
                    failed.append(error)
            if failed:
                raise failed.pop()

        failed: list[Exception] = []
        _averaging_of = _averaging.statistics_anew
        patch.setattr(_averaging, "statistics_anew", statistics_anew)


@caught("O-15", "test_where_statistics_can_not_be_computed")
class NoBatchIsEnough(Mutant):
    """Takes data without a batch for enough."""

    def alter(self, patch: MonkeyPatch) -> None:
        statistics = inside("_run.statistics")

        def make(original: Any) -> Any:
            return lambda trainer, loader, step, run: original(trainer, loader, step, run) if loader else None

        change(statistics, "_run_over", make, patch)


@caught("C-26", "test_a_checkpoint_holds_weights_and_average", "test_a_resumed_run_goes_on_with_its_average")
class AverageSavedForWeights(Mutant):
    """Saves the average in the place of the trained weights."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._averaging, "suspended", lambda original: trainer._averaging.applied)


@caught("C-26", "test_the_average_can_be_loaded")
class WeightsForTheAverage(Mutant):
    """Loads the trained weights where the average is asked for."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_checkpoints.Snapshot, "averaged", lambda original: lambda snapshot, folder: snapshot, patch)


@caught("C-26", "test_an_average_on_one_side_only_is_told")
class AverageDroppedSilently(Mutant):
    """Doesn't say that a run goes on without the average, or with a new one."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_snapshots, "_tell_of_average", nothing, patch)


@caught("C-26", "test_a_bad_average_replaces_no_good_one")
class BadAverageSaved(Mutant):
    """Looks at the weights alone before it saves."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda weights, trained: original(
                {name: arrays for name, arrays in weights.items() if not name.startswith("ema_")}, trained
            )

        change(trainer._run.losses, "check_weights", make)

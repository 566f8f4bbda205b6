"""Mutants of which checkpoints are kept, and of how a run goes on from them or comes to its end."""

from __future__ import annotations

import dataclasses
from typing import Any

from dowdyboy_core import CheckpointError

from .mutant import Mutant, caught, change, nothing


@caught("B-1", "test_a_function_may_compute_the_value")
class ValueComputedTwice(Mutant):
    """Computes the value of an epoch once for the best and once more for schedulers."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda *given: (original(*given), original(*given))[1]

        change(trainer._following, "_own_value", make)


@caught("B-1", "test_only_epochs_with_validation_have_a_value")
class ValueOfEveryEpoch(Mutant):
    """Computes a value also in epochs without validation."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda ep: original(trainer.config.val_interval)

        change(trainer._following, "wants_value", make)


@caught("B-4", "test_a_missing_record_is_an_error_and_the_epoch_is_kept")
class LastAloneKept(Mutant):
    """Saves of an epoch without the record that decides nothing but the last checkpoint."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def best_value(ep: int) -> Any:
                trainer._saver._kinds = lambda epoch, best: ["last_epoch"]
                value = original(ep)
                del trainer._saver._kinds
                return value

            return best_value

        change(trainer, "_value", make)


@caught("B-5", "test_neither_last_nor_best_need_be_kept")
class LastKeptAlways(Mutant):
    """Keeps the last checkpoint although it isn't wanted."""

    def spoil(self, trainer: Any) -> None:
        trainer._saver._config = dataclasses.replace(trainer.config, save_last=True)


@caught("B-7", "test_epochs_are_kept_at_an_interval")
class EveryEpochKept(Mutant):
    """Keeps every epoch, whatever the interval."""

    def spoil(self, trainer: Any) -> None:
        trainer._saver._config = dataclasses.replace(trainer.config, save_interval=1)


@caught("B-8", "test_nothing_is_saved_where_saving_is_off")
class FolderMadeAlways(Mutant):
    """Makes the folder for checkpoints although there will be none."""

    def spoil(self, trainer: Any) -> None:
        trainer._saver.checkpoints.path.mkdir(exist_ok=True)


@caught("B-9", "test_a_later_fit_knows_the_best_so_far")
class BestOfEachFit(Mutant):
    """Begins a second fit without the best value of the first."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def begin(*given: Any) -> None:
                original(*given)
                trainer._position.best = None

            return begin

        change(trainer._saver, "begin", make)


# ---- going on


@caught("C-6", "test_everything_comes_back")
@caught("C-7", "test_load_checkpoint_resumes_as_resume_does")
@caught("C-11", "test_resume_may_be_a_path")
class WeightsAlone(Mutant):
    """Takes the weights alone of a checkpoint that is named."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda folder, snapshot, *_, **named: original(folder, snapshot, True)

        change(trainer._saver.resumed, "put_in_place", make)


@caught("C-11", "test_auto_takes_the_newest_whole_checkpoint")
class NewestByName(Mutant):
    """Takes the checkpoint for the newest whose name comes last in the alphabet."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda *kinds: [((0, 0, 0, 0), name, path) for _, name, path in original(*kinds)]

        change(trainer._saver.checkpoints, "_ages", make)


@caught("C-11", "test_auto_starts_fresh_where_nothing_is")
class SomethingWanted(Mutant):
    """Wants a checkpoint to be there to go on from."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def newest() -> Any:
                found = original()
                if found is None:
                    raise CheckpointError(f"There is no checkpoint in {str(trainer._saver.checkpoints.path)!r}.")
                return found

            return newest

        change(trainer._saver.checkpoints, "newest", make)


@caught("C-11", "test_a_run_that_is_over_trains_nothing")
class LastEpochAgain(Mutant):
    """Trains the last epoch again of a run that is over."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def load(*given: Any, **named: Any) -> None:
                original(*given, **named)
                trainer._position.epoch = min(trainer._position.epoch, trainer.config.epoch - 1)

            return load

        change(trainer._saver.resumed, "put_in_place", make)


@caught("C-12", "test_what_a_killed_save_left_is_cleared_away")
class NothingTidied(Mutant):
    """Leaves lying what a killed run has left half-done."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._saver.checkpoints, "tidy", nothing)


@caught("C-13", "test_a_disk_that_refuses_does_not_stop_the_training")
class FailuresForgotten(Mutant):
    """Ends fit as if all were well where the last save has failed."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._saver, "check", nothing)


@caught("C-13", "test_a_later_save_makes_up_for_one_that_failed")
class FailuresCounted(Mutant):
    """Minds a save that failed although a later one made up for it."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def write(*given: Any) -> None:
                before = dict(trainer._saver._unsaved)
                original(*given)
                trainer._saver._unsaved = {**before, **trainer._saver._unsaved}

            return write

        change(trainer._saver, "_write", make)

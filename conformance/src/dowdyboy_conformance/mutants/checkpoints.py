"""Mutants of when checkpoints are written, and of how a run stops."""

from __future__ import annotations

import dataclasses
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from .mutant import Mutant, caught, change, nothing


@caught("C-20", "test_training_goes_on_while_a_checkpoint_is_written")
class WritesInTheLoop(Mutant):
    """Has the training wait for the disk."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._saver._writer, "start", lambda original: lambda job: job())


@caught("C-18", "test_a_stopped_run_is_saved_at_the_next_batch_and_goes_on")
class DeafToSignals(Mutant):
    """Notes no signal."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._stopping, "after_batch", lambda original: lambda phase: None)


@caught("C-18", "test_a_handler_of_the_user_stays_in_force")
class UserOverruled(Mutant):
    """Notes signals that the user has a handler for."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def listening() -> Any:
                signal.signal(signal.SIGTERM, trainer._stopping._note)
                return nullcontext()

            return listening

        change(trainer._stopping, "listening", make)


@caught("C-19", "test_a_stopped_run_is_saved_at_the_next_batch_and_goes_on")
class ValidatesAgain(Mutant):
    """Begins a validation anew that was stopped."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def validate(ep: int, val_step: Any) -> None:
                trainer._position.val_batch = 0
                original(ep, val_step)

            return validate

        change(trainer, "_validate", make)


@caught("B-10", "test_a_resumed_run_keeps_a_better_checkpoint")
class BetterOneLost(Mutant):
    """Knows no best value but that of the resumed checkpoint."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._saver.checkpoints, "best", lambda original: lambda: None)


@caught("W-19", "test_a_signal_to_one_process_stops_all_at_the_same_batch")
class StopsAtTheEnd(Mutant):
    """Heeds a signal when all is done."""

    scenario = "stopping"

    def spoil(self, trainer: Any) -> None:
        for name in ("after_batch", "after_all"):
            change(trainer._stopping, name, lambda original: lambda phase: original(phase) and None)


def after_each_batch_of_a_window(trainer: Any, action: Any) -> None:
    """Has ``action()`` run after the batches that leave a window open, with the position behind them."""

    def make(original: Any) -> Any:
        def train_batch(step: Any, bat: Any, closing: int) -> Any:
            loss, position = original(step, bat, closing), trainer._position
            if not closing:
                before = dataclasses.replace(position)
                position.batch, position.train_step = position.batch + 1, position.train_step + 1
                action()
                position.batch, position.train_step = before.batch, before.train_step
            return loss

        return train_batch

    change(trainer, "_train_batch", make)


@caught("C-14", "test_save_steps_refreshes_the_last_checkpoint", "test_resuming_between_windows_of_accumulation")
@caught("C-7", "test_every_combination_is_resumed")
class SavesWithinWindows(Mutant):
    """Saves within a window of accumulation, without the gradients that it has come to."""

    def spoil(self, trainer: Any) -> None:
        after_each_batch_of_a_window(trainer, lambda: trainer._saver.within_epoch(trainer.epoch, 1))


@caught("O-2", "test_an_open_window_is_closed_before_the_run_stops")
class StopsWithinWindows(Mutant):
    """Stops within a window of accumulation, and loses the gradients that it has come to."""

    def spoil(self, trainer: Any) -> None:
        def stop() -> None:
            trainer._saver.stop_if_asked(trainer.epoch, trainer._stopping.after_batch("train"))

        after_each_batch_of_a_window(trainer, stop)


@caught("C-18", "test_without_checkpoints_a_stopped_run_saves_none")
class SavedByASignal(Mutant):
    """Saves a run that is stopped although it was to save nothing."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def stop(ep: int, signum: Any) -> None:
                saver = trainer._saver
                saver._config = dataclasses.replace(trainer.config, enable_save_checkpoint=signum is not None)
                original(ep, signum)

            return stop

        change(trainer._saver, "stop_if_asked", make)


@caught("C-20", "test_a_checkpoint_can_be_waited_for")
class NotWaitedFor(Mutant):
    """Leaves a checkpoint until the next one comes, also where it is waited for."""

    def spoil(self, trainer: Any) -> None:
        left: list[Any] = []

        def make_start(original: Any) -> Any:
            def start(job: Any) -> None:
                trainer._saver._writer.wait()
                left.append(job)

            return start

        def make_wait(original: Any) -> Any:
            def wait() -> None:
                while left:
                    left.pop()()

            return wait

        change(trainer._saver._writer, "start", make_start)
        change(trainer._saver._writer, "wait", make_wait)
        change(trainer, "wait_for_checkpoint", nothing)


@caught("B-9", "test_a_killed_run_is_not_measured_by_an_earlier_one")
class MeasuredByAnEarlierRun(Mutant):
    """Has the best value of an earlier run count for a resumed one."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def best_of_all() -> Any:
                found = trainer._saver.checkpoints.best()
                if found is not None and trainer._saver._improves(found["best"]):
                    return found["best"], found["best_epoch"]
                return original()

            return best_of_all

        change(trainer._saver, "_best_of_all", make)


@caught("C-11", "test_auto_goes_on_from_the_run_that_went_on_last")
class RunsOfOneNumber(Mutant):
    """Numbers a run that goes back to an earlier epoch like the one that it leaves."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._saver.checkpoints, "holds_later", lambda original: lambda index: False)


@caught("C-18", "test_a_second_signal_ends_a_run_that_hangs_in_native_code")
class WaitsForEver(Mutant):
    """Tells of a first signal, and has a second one wait for the batch as well."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def tell(signum: int) -> None:
                original(signum)
                threading.Event().wait()

            return tell

        change(trainer._stopping, "_tell", make)


def _listening(trainer: Any, action: Any) -> None:
    """Has ``action()`` run once a run listens to signals, and what it gives when it does no longer."""

    def make(original: Any) -> Any:
        @contextmanager
        def listening() -> Iterator[None]:
            after: Any = None
            try:
                with original():
                    after = action()
                    yield
            finally:
                after()

        return listening

    change(trainer._stopping, "listening", make)


@caught("C-23", "test_other_signals_stop_a_run_in_the_same_way")
class DeafToOthers(Mutant):
    """Notes SIGTERM and Ctrl-C alone."""

    def spoil(self, trainer: Any) -> None:
        def ignore() -> Any:
            for signum in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
                signal.signal(signum, signal.SIG_IGN)
            return lambda: None

        _listening(trainer, ignore)


@caught("C-23", "test_what_others_handle_or_ignore_stops_nothing")
class OthersOverruled(Mutant):
    """Notes signals that Python takes for unhandled, as those that faulthandler has registered."""

    def spoil(self, trainer: Any) -> None:
        def overrule() -> Any:
            signal.signal(signal.SIGUSR1, trainer._stopping._note)
            return lambda: None

        _listening(trainer, overrule)


@caught("C-24", "test_the_users_own_way_of_hearing_of_signals_is_as_before")
class WakeupLost(Mutant):
    """Doesn't put back what the user has signals written to."""

    def spoil(self, trainer: Any) -> None:
        _listening(trainer, lambda: lambda: signal.set_wakeup_fd(-1))

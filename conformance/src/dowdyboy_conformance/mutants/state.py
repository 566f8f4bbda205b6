"""Mutants of what a run leaves and takes up again, of its data and its random numbers, and of its optimizing."""

from __future__ import annotations

import contextlib
import random
import threading
from typing import Any

from .mutant import Mutant, caught, change, change_loaders, nothing


@caught("B-5", "test_the_best_epoch")
class OldOnesStay(Mutant):
    """Doesn't remove the last checkpoint before the last."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._saver.checkpoints, "_folders", lambda original: lambda kind: set())


@caught("B-6", "test_folders_are_told_apart_by_their_whole_names")
class PrefixMatching(Mutant):
    """Takes every folder that begins with the name for its own."""

    def spoil(self, trainer: Any) -> None:
        path = trainer._saver.checkpoints.path
        change(trainer._saver.checkpoints, "_folders", lambda original: lambda kind: set(path.glob(f"{kind}_*")))


@caught("L-1", "test_the_order_of_events_with_a_clock_scheduler", "test_the_trace_of_a_run")
class SavedTooEarly(Mutant):
    """Saves before on_epoch_end."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def follow(ep: int) -> Any:
                trainer._saver.end_epoch(ep, None)
                return original(ep)

            return follow

        change(trainer, "_value", make)


@caught("S-5", "test_nothing_but_the_hooks_draws")
class SavingDraws(Mutant):
    """Draws a random number for each checkpoint."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def save(*args: Any) -> Any:
                random.random()
                return original(*args)

            return save

        change(trainer._saver.checkpoints, "save", make)


@caught("C-7", "test_a_resumed_run_is_bitwise_the_uninterrupted_one")
@caught("C-6", "test_everything_comes_back")
class SlotsForgotten(Mutant):
    """Doesn't restore the state of optimizers."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "load_optimizer_state", nothing)


@caught("C-7", "test_a_plateau_scheduler_is_resumed")
class SchedulerForgotten(Mutant):
    """Doesn't restore the state of schedulers."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "load_scheduler_state", nothing)


@caught("C-7", "test_a_resumed_run_is_bitwise_the_uninterrupted_one")
class StreamsForgotten(Mutant):
    """Doesn't restore the random streams."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._run.streams, "restore", nothing)


@caught("C-7", "test_a_resumed_run_is_bitwise_the_uninterrupted_one")
class RecordsForgotten(Mutant):
    """Doesn't restore the records of an epoch that had begun."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._records, "load_state", nothing)


@caught("C-7", "test_a_resumed_run_is_bitwise_the_uninterrupted_one")
class PositionForgotten(Mutant):
    """Begins the epoch of a checkpoint anew."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def load(*args: Any, **named: Any) -> None:
                original(*args, **named)
                trainer._position.batch = 0

            return load

        change(trainer._saver.resumed, "put_in_place", make)


@caught("C-8", "test_weights_only_takes_the_weights_alone")
class EverythingLoaded(Mutant):
    """Ignores weights_only."""

    def spoil(self, trainer: Any) -> None:
        change(trainer, "load_checkpoint", lambda original: lambda folder, weights_only=False: original(folder))


@caught(
    "G-4",
    "test_metrics_of_a_resumed_run_have_no_gap_and_no_double",
    "test_the_trace_of_a_run_that_was_killed_and_resumed",
)
@caught("G-5", "test_curves_of_a_resumed_run_have_no_gap_and_no_double")
class CurvesDoubled(Mutant):
    """Leaves the lines in metrics.jsonl that a resumed run writes again."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._metrics, "cut_back", nothing)


@caught("G-10", "test_lines_wait_for_a_disk_that_refuses_them")
class LinesForgotten(Mutant):
    """Forgets the lines that the disk refuses."""

    def spoil(self, trainer: Any) -> None:
        file = trainer._metrics._file.lines

        def make(original: Any) -> Any:
            def flush() -> None:
                original()
                file._pending.clear()

            return flush

        change(file, "flush", make)


@caught("G-10", "test_half_a_line_of_a_killed_run_is_dropped")
class HalfLineStays(Mutant):
    """Writes on behind half a line."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._metrics._file.lines, "_mend", nothing)


@caught("G-1", "test_the_run_log_is_appended_to")
class RunLogWiped(Mutant):
    """Begins the run log anew."""

    def spoil(self, trainer: Any) -> None:
        path = trainer._run.out_dir / f"{trainer.config.name}_run.log"
        path.write_text("")


@caught("D-2", "test_the_order_of_an_epoch_is_a_function_of_seed_and_epoch")
@caught("S-3", "test_another_seed_gives_another_order")
class SeedIgnored(Mutant):
    """Takes the order of an epoch from the epoch alone."""

    def spoil(self, trainer: Any) -> None:
        change_loaders(trainer, lambda loader: setattr(loader, "_seed", 0))


@caught("D-2", "test_the_order_of_an_epoch_is_a_function_of_seed_and_epoch")
class EpochIgnored(Mutant):
    """Gives every epoch the order of the first."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda epoch, start=0: original(min(epoch, 1), start)

        change_loaders(trainer, lambda loader: change(loader, "epoch", make))


@caught("S-5", "test_nothing_but_the_hooks_draws")
@caught("D-7", "test_a_batch_sampler_is_asked_anew_with_seeded_streams")
@caught("S-4", "test_streams_are_seeded_too")
class StreamsShared(Mutant):
    """Reads data with the run's own random streams."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._run.streams, "set_aside", lambda original: lambda seed: lambda: None)


@caught("S-2", "test_fit_seeds_them_again")
class FitUnseeded(Mutant):
    """Doesn't seed the random streams when fit begins."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._run.streams, "seed", nothing)


@caught("D-4", "test_a_batch_of_any_nesting_keeps_its_types")
class TuplesBecomeLists(Mutant):
    """Rebuilds batches from plain containers."""

    def spoil(self, trainer: Any) -> None:
        def flatten(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: flatten(item) for key, item in value.items()}
            return [flatten(item) for item in value] if isinstance(value, (list, tuple)) else value

        change(trainer._backend, "to_device", lambda original: flatten)


@caught("O-1", "test_a_window_steps_as_one_large_batch")
class LossUndivided(Mutant):
    """Sums the gradients of a window instead of averaging them."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "backward", lambda original: lambda loss, factor: original(loss, 1.0))


@caught("O-2", "test_a_last_window_is_averaged_over_what_it_has")
class PartialWindowDropped(Mutant):
    """Doesn't step for the last batches of an epoch if they fill no window."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda optimizer, batches=None: original(optimizer, batches) if batches != 2 else True

        change(trainer._stepper, "step", make)


@caught("O-3", "test_clipping_bounds_the_norm_of_the_averaged_gradient")
class NoClipping(Mutant):
    """Ignores clip_grad_norm."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "clip_gradients", nothing)


@caught("H-7", "test_an_error_in_a_hook_reaches_the_caller")
@caught("W-18", "test_an_error_in_one_process_ends_all")
class ErrorsSwallowed(Mutant):
    """Ends fit quietly when a hook fails."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def fit(*args: Any, **named: Any) -> None:
                with contextlib.suppress(Exception):
                    original(*args, **named)

            return fit

        change(trainer, "fit", make)


@caught("H-1", "test_the_order_of_events_with_a_clock_scheduler")
class StepsRestart(Mutant):
    """Counts the global step from 0 in every epoch."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def train(*args: Any) -> None:
                trainer._position.train_step = 0
                original(*args)

            return train

        change(trainer, "_train", make)


@caught("G-9", "test_a_point_reaches_the_files_by_itself")
class PointsStay(Mutant):
    """Keeps points in memory until something else writes them out."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._metrics, "_timer", lambda original: threading.Timer(1e6, lambda: None))

"""Trainers that are deliberately wrong in one point each, and the checks that must notice.

A mutant is a harness like any other, so ``--backend dowdyboy_conformance.mutants:NoStep`` runs the checks on it. With
``-p dowdyboy_conformance.mutants`` only the pairs of :data:`EXPECTED` are run.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from dowdyboy_core import Trainer, TrainerConfig

from .harnesses.torch import TorchHarness


class BrokenMutant(Exception):
    """A mutant no longer fits the code that it should spoil."""


def change(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replaces an object's method by what ``make`` gives for the original.

    Raises:
        BrokenMutant: the object has no such method.
    """
    if not hasattr(owner, name):
        raise BrokenMutant(f"{type(owner).__name__} has no {name}")
    setattr(owner, name, make(getattr(owner, name)))


def nothing(original: Any) -> Any:
    """Stands for a method that does nothing."""
    return lambda *args, **named: None


class Mutant(TorchHarness):
    """A harness whose trainers are spoilt."""

    def make_trainer(self, config: TrainerConfig) -> Trainer:
        """The trainer, spoilt after it was made."""
        trainer = super().make_trainer(config)
        self.spoil(trainer)
        return trainer

    def spoil(self, trainer: Any) -> None:
        """Changes nothing: the control, which every check must pass."""


class NoStep(Mutant):
    """Never updates a parameter."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "step", nothing)


class NoZeroGrad(Mutant):
    """Never clears the gradients."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "zero_grad", nothing)


class NeverEval(Mutant):
    """Leaves the models in training mode."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "set_training", lambda original: lambda model, training: original(model, True))


class NeverTrainAgain(Mutant):
    """Leaves the models in evaluation mode once they were validated."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda model, training: None if training and trainer.epoch > 1 else original(model, training)

        change(trainer._backend, "set_training", make)


class GradientsInVal(Mutant):
    """Validates with gradients on."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "forward_context", lambda original: lambda training: original(True))


class RecordsReversed(Mutant):
    """Gives the records of an epoch in reverse."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "stack", lambda original: lambda values, dtype: original(values[::-1], dtype))


class RecordsAlias(Mutant):
    """Keeps the recorded tensors themselves, with their graphs."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "keep_tensor", lambda original: lambda value: value)


class RecordsStay(Mutant):
    """Doesn't clear the records after an epoch."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._records, "clear", nothing)


class RecordsNarrow(Mutant):
    """Keeps float64 records as float32."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda values, dtype: original(values, "float32" if dtype == "float64" else dtype)

        change(trainer._backend, "stack", make)


class MeanInFloat32(Mutant):
    """Takes the mean of a record in float32."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda tensor: float(np.float32(original(tensor)))

        change(trainer._backend, "mean", make)


class LastOfEqualsIsBest(Mutant):
    """Compares with <=."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda value: original(value) or value == trainer._position.best

        change(trainer, "_is_best", make)


class NanIsBest(Mutant):
    """Takes the first value as the best, whatever it is."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda value: original(value) or (trainer._position.best is None and math.isnan(value))

        change(trainer, "_is_best", make)


class BestForgotten(Mutant):
    """Doesn't take up the best value of a checkpoint."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def load(*args: Any, **named: Any) -> None:
                original(*args, **named)
                trainer._position.best = None

            return load

        change(trainer, "_load", make)


class SchedulerTwice(Mutant):
    """Steps a scheduler as if there were two processes."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def step(scheduler: Any, value: Any) -> None:
                original(scheduler, value)
                original(scheduler, value)

            return step

        change(trainer._backend, "step_scheduler", make)


class PlateauGetsNan(Mutant):
    """Hands NaN on to a plateau scheduler."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def step(scheduler: Any, value: Any) -> None:
                original(scheduler, math.nan if value is not None and abs(value) > 1e38 else value)

            return step

        change(trainer._backend, "step_scheduler", make)


class OldOnesStay(Mutant):
    """Doesn't remove the last checkpoint before the last."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._checkpoints, "_folders", lambda original: lambda kind: set())


class PrefixMatching(Mutant):
    """Takes every folder that begins with the name for its own."""

    def spoil(self, trainer: Any) -> None:
        path = trainer._checkpoints.path
        change(trainer._checkpoints, "_folders", lambda original: lambda kind: set(path.glob(f"{kind}_*")))


class SavedTooEarly(Mutant):
    """Saves before on_epoch_end."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def follow(ep: int) -> Any:
                trainer._save_epoch(ep, None)
                return original(ep)

            return follow

        change(trainer, "_follow_value", make)


class SavingDraws(Mutant):
    """Draws a random number for each checkpoint."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def save(*args: Any) -> Any:
                random.random()
                return original(*args)

            return save

        change(trainer._checkpoints, "save", make)


class SlotsForgotten(Mutant):
    """Doesn't restore the state of optimizers."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "load_optimizer_state", nothing)


class SchedulerForgotten(Mutant):
    """Doesn't restore the state of schedulers."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "load_scheduler_state", nothing)


class StreamsForgotten(Mutant):
    """Doesn't restore the random streams."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._streams, "restore", nothing)


class RecordsForgotten(Mutant):
    """Doesn't restore the records of an epoch that had begun."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._records, "load_state", nothing)


class PositionForgotten(Mutant):
    """Begins the epoch of a checkpoint anew."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def load(*args: Any, **named: Any) -> None:
                original(*args, **named)
                trainer._position.batch = 0

            return load

        change(trainer, "_load", make)


class EverythingLoaded(Mutant):
    """Ignores weights_only."""

    def spoil(self, trainer: Any) -> None:
        change(trainer, "load_checkpoint", lambda original: lambda folder, weights_only=False: original(folder))


class CurvesDoubled(Mutant):
    """Leaves the lines in metrics.jsonl that a resumed run writes again."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._metrics, "cut_back", nothing)


class RunLogWiped(Mutant):
    """Begins the run log anew."""

    def spoil(self, trainer: Any) -> None:
        path = trainer._out_dir / f"{trainer.config.name}_run.log"
        path.write_text("")


class SeedIgnored(Mutant):
    """Takes the order of an epoch from the epoch alone."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def set_loader(role: str, loader: Any) -> None:
                original(role, loader)
                trainer._parts.loaders[role]._seed = 0

            return set_loader

        change(trainer._parts, "set_loader", make)


class EpochIgnored(Mutant):
    """Gives every epoch the order of the first."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def set_loader(role: str, loader: Any) -> None:
                original(role, loader)
                change(
                    trainer._parts.loaders[role],
                    "epoch",
                    lambda epoch_of: lambda epoch, start=0: epoch_of(min(epoch, 1), start),
                )

            return set_loader

        change(trainer._parts, "set_loader", make)


class StreamsShared(Mutant):
    """Reads data with the run's own random streams."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._streams, "isolated", lambda original: lambda seed: contextlib.nullcontext())


class FitUnseeded(Mutant):
    """Doesn't seed the random streams when fit begins."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._streams, "seed", nothing)


class TuplesBecomeLists(Mutant):
    """Rebuilds batches from plain containers."""

    def spoil(self, trainer: Any) -> None:
        def flatten(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: flatten(item) for key, item in value.items()}
            return [flatten(item) for item in value] if isinstance(value, (list, tuple)) else value

        change(trainer._backend, "to_device", lambda original: flatten)


class LossUndivided(Mutant):
    """Sums the gradients of a window instead of averaging them."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "backward", lambda original: lambda loss, factor: original(loss, 1.0))


class PartialWindowDropped(Mutant):
    """Doesn't step for the last batches of an epoch if they fill no window."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda optimizer, batches=None: original(optimizer, batches) if batches != 2 else True

        change(trainer._stepper, "step", make)


class NoClipping(Mutant):
    """Ignores clip_grad_norm."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "clip_gradients", nothing)


class ErrorsSwallowed(Mutant):
    """Ends fit quietly when a hook fails."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def fit(*args: Any, **named: Any) -> None:
                with contextlib.suppress(Exception):
                    original(*args, **named)

            return fit

        change(trainer, "fit", make)


class StepsRestart(Mutant):
    """Counts the global step from 0 in every epoch."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def train(*args: Any) -> None:
                trainer._position.train_step = 0
                original(*args)

            return train

        change(trainer, "_train", make)


EXPECTED: dict[type[Mutant], dict[str, str]] = {
    NoStep: {"N-1": "test_sixty_steps_follow_the_formulas"},
    NoZeroGrad: {"L-2": "test_gradients_are_cleared_between_windows", "N-1": "test_sixty_steps_follow_the_formulas"},
    NeverEval: {"H-4": "test_modes_and_gradients_in_each_hook", "N-2": "test_dropout_is_off_in_validation"},
    NeverTrainAgain: {"H-4": "test_modes_and_gradients_in_each_hook"},
    GradientsInVal: {"H-4": "test_modes_and_gradients_in_each_hook"},
    RecordsReversed: {"R-1": "test_values_are_stacked", "R-6": "test_records_are_of_one_epoch_and_of_some_batches"},
    RecordsAlias: {"R-4": "test_a_record_is_a_copy_without_a_graph"},
    RecordsStay: {"R-6": "test_records_are_of_one_epoch_and_of_some_batches"},
    RecordsNarrow: {"R-2": "test_values_are_stacked"},
    MeanInFloat32: {"B-1": "test_the_value_is_the_mean_of_the_record"},
    LastOfEqualsIsBest: {"B-2": "test_the_best_epoch"},
    NanIsBest: {"B-3": "test_without_a_finite_value_there_is_no_best"},
    BestForgotten: {"B-9": "test_a_later_fit_knows_the_best_so_far"},
    SchedulerTwice: {"L-4": "test_a_clock_scheduler_steps_once_per_epoch"},
    PlateauGetsNan: {"L-5": "test_a_plateau_scheduler_follows_the_value"},
    OldOnesStay: {"B-5": "test_the_best_epoch"},
    PrefixMatching: {"B-6": "test_folders_are_told_apart_by_their_whole_names"},
    SavedTooEarly: {"L-1": "test_the_order_of_events_with_a_clock_scheduler"},
    SavingDraws: {"S-5": "test_nothing_but_the_hooks_draws"},
    SlotsForgotten: {"C-7": "test_a_resumed_run_is_bitwise_the_uninterrupted_one"},
    SchedulerForgotten: {"C-7": "test_a_plateau_scheduler_is_resumed"},
    StreamsForgotten: {"C-7": "test_a_resumed_run_is_bitwise_the_uninterrupted_one"},
    RecordsForgotten: {"C-7": "test_a_resumed_run_is_bitwise_the_uninterrupted_one"},
    PositionForgotten: {"C-7": "test_a_resumed_run_is_bitwise_the_uninterrupted_one"},
    EverythingLoaded: {"C-8": "test_weights_only_takes_the_weights_alone"},
    CurvesDoubled: {"G-4": "test_metrics_of_a_resumed_run_have_no_gap_and_no_double"},
    RunLogWiped: {"G-1": "test_the_run_log_is_appended_to"},
    SeedIgnored: {"D-2": "test_the_order_of_an_epoch_is_a_function_of_seed_and_epoch"},
    EpochIgnored: {"D-2": "test_the_order_of_an_epoch_is_a_function_of_seed_and_epoch"},
    StreamsShared: {"S-5": "test_nothing_but_the_hooks_draws", "D-7": "test_a_batch_sampler_is_asked_anew_with_seeded_streams"},
    FitUnseeded: {"S-2": "test_fit_seeds_them_again"},
    TuplesBecomeLists: {"D-4": "test_a_batch_of_any_nesting_keeps_its_types"},
    LossUndivided: {"O-1": "test_a_window_steps_as_one_large_batch"},
    PartialWindowDropped: {"O-2": "test_a_last_window_is_averaged_over_what_it_has"},
    NoClipping: {"O-3": "test_clipping_bounds_the_norm_of_the_averaged_gradient"},
    ErrorsSwallowed: {"H-7": "test_an_error_in_a_hook_reaches_the_caller"},
    StepsRestart: {"H-1": "test_the_order_of_events_with_a_clock_scheduler"},
}
"""For each mutant the check that must fail, by the clause that it breaks. (A check with parameters must fail once.)"""

CONTROL = Mutant


def backend_of(mutant: type[Mutant]) -> str:
    """What ``--backend`` calls a mutant."""
    return f"{__name__}:{mutant.__name__}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps the checks that a mutant must fail, and for the control all of those."""
    wanted = {backend_of(mutant): set(checks.values()) for mutant, checks in EXPECTED.items()}
    wanted[backend_of(CONTROL)] = set().union(*wanted.values())
    kept = []
    for item in items:
        name, _, parameters = item.name.partition("[")
        if any(name in checks for backend, checks in wanted.items() if parameters.rstrip("]").split("-")[0] == backend):
            kept.append(item)
    items[:] = kept

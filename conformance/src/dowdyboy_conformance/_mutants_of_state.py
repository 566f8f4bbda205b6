"""Mutants of what a run leaves and takes up again, of its data and its random numbers, and of its optimizing."""

from __future__ import annotations

import contextlib
import random
import threading
from typing import Any

from ._mutation import Mutant, change, nothing


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


class LinesForgotten(Mutant):
    """Forgets the lines that the disk refuses."""

    def spoil(self, trainer: Any) -> None:
        file = trainer._metrics._file

        def make(original: Any) -> Any:
            def flush() -> None:
                original()
                file._pending.clear()

            return flush

        change(file, "flush", make)


class HalfLineStays(Mutant):
    """Writes on behind half a line."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._metrics._file, "_mend", nothing)


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


class PointsStay(Mutant):
    """Keeps points in memory until something else writes them out."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._metrics, "_timer", lambda original: threading.Timer(1e6, lambda: None))

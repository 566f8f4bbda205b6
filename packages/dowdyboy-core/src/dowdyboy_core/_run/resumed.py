"""The checkpoint that a run goes on from: taken up at once, or by fit, where it fits only after ``on_epoch_begin``."""

from __future__ import annotations

from pathlib import Path

from dowdyboy_core._errors import CheckpointError, ConfigError, SetupError
from dowdyboy_core._exchange.pairing import Names

from . import described, overruled
from .checkpoints import Snapshot, read_snapshot
from .crossing import crossed
from .frozen import frozen_names
from .replay import Replay, epochs_begun
from .run import Run
from .settings import adapt_to_world_size, check_steps
from .snapshots import apply_all, apply_weights, check_schedules, check_streams
from .untrained import completed


class Resumed:
    """Puts a checkpoint in place, and keeps of it what the run needs later.

    Args:
        run: the run.

    Attributes:
        snapshot: what is still needed of the checkpoint that is in place; None where a run of its own begins.
        curves_end: the length of metrics.jsonl at the checkpoint, if that is the run's own.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.snapshot: Snapshot | None = None
        self.curves_end: int | None = None
        self._folder = Path()
        self._script: list[str] | None = None  # what it had frozen, until on_epoch_begin has done its part
        self._waiting: Snapshot | None = None  # for on_epoch_begin, without which it doesn't fit
        self._names: Names = run.config.resume_names

    def load(self, folder: Path, *, weights_only: bool = False, average: bool = False, names: Names = None) -> None:
        """Takes up what a checkpoint holds, for the next ``fit`` to go on from.

        Raises:
            ConfigError: ``average`` without ``weights_only``.
            CheckpointError: it is missing, damaged, or doesn't fit the models and optimizers that were set.
            SetupError: there are no models yet.
        """
        if average and not weights_only:
            raise ConfigError(
                f"load_checkpoint got ema={average!r} and weights_only={weights_only!r}: a run goes on with the "
                "weights that it trains, and takes up its average by itself. Leave ema out, or set weights_only=True."
            )
        snapshot = read_snapshot(folder, weights_only=weights_only)
        if average:
            snapshot = completed(self._run.backend, self._run.parts, snapshot, folder).averaged(folder)
        later = not weights_only and snapshot.index.get("on_epoch_begin") and epochs_begun(snapshot.index)
        try:
            self.put_in_place(folder, snapshot, weights_only, tells=not later, names=names)
            self._run.begins_epochs = bool(later)
        except CheckpointError as error:
            if not later or described.is_strange(self._run, snapshot):
                raise
            self._folder, self._waiting, self.snapshot, self._names = folder, read_snapshot(folder), None, names
            self._run.warn(
                f"{error} But the saved run had an on_epoch_begin: fit runs that again for the {later} epochs that had "
                "begun, and takes the checkpoint up then. Until then nothing of it is in place."
            )

    def put_in_place(
        self, folder: Path, snapshot: Snapshot, weights_only: bool, tells: bool = True, names: Names = None
    ) -> None:
        """Puts a checkpoint in place, all of it or nothing.

        Args:
            folder: the checkpoint.
            snapshot: its content.
            weights_only: the weights alone, from which a run of its own begins.
            tells: whether to say now what the script has frozen otherwise.
            names: how the paths of its models begin here.

        Raises:
            CheckpointError: it doesn't fit.
            SetupError: there are no models yet.
        """
        run = self._run
        if not run.parts.models:
            raise SetupError("load_checkpoint needs the models to load into. Call set_model or set_models first.")
        described.check(snapshot)
        snapshot = crossed(run, snapshot, folder, names, weights_only=weights_only)
        if weights_only:
            apply_weights(run.backend, run.parts, snapshot, folder)
            run.averaging.restart()
            run.tell(f"took the weights of {str(folder)!r}")
            return
        stored = snapshot.trees.get("script")
        overruled.check(stored)
        rows = run.script.compare(snapshot.trees)
        rows += overruled.of_settings(snapshot.index, run.config.seed, run.precision)
        check_steps(run, folder, snapshot.index)
        check_streams(run.backend, run.streams, snapshot, folder)
        check_schedules(run, snapshot, folder)
        frozen = None if tells else frozen_names(run.backend, run.parts)
        apply_all(run, snapshot, folder, tells=tells)
        run.untrained.take_up(snapshot, folder)
        self._folder, self._script, self._waiting = folder, frozen, None
        run.position.load_state(snapshot.index)
        described.take_up(run, snapshot)
        adapt_to_world_size(run, snapshot.index)
        # What is still needed: the streams when the loader has been started, and not the weights' memory until then.
        needed = ("rng", "loader")
        self.snapshot = Snapshot(
            snapshot.index, trees={name: snapshot.trees[name] for name in needed if name in snapshot.trees}
        )
        own = folder.resolve().parent == (run.out_dir / "checkpoint").resolve()
        self.curves_end = int(snapshot.index["metrics_bytes"]) if own else None
        epochs, steps = run.position.epoch, run.position.train_step
        run.tell(f"resumed from {str(folder)!r}: {epochs} epochs, {steps} steps")
        run.script.take_up(stored)
        if rows:
            run.warn(overruled.described(str(folder), rows))

    def is_loaded(self) -> bool:
        """Whether there is a checkpoint to go on from, in place or not."""
        return self.snapshot is not None or self._waiting is not None

    def check_in_place(self, what: str) -> None:
        """Refuses what would be done with a run that is not what it seems.

        Raises:
            SetupError: a checkpoint waits for ``fit``.
        """
        if self._waiting is not None:
            raise SetupError(
                f"{what} was called, and {str(self._folder)!r} is not in place: it fits only when on_epoch_begin has "
                f"been run again, which fit does. Call {what} after that, or in a hook."
            )

    def go_on(self, replay: Replay) -> None:
        """Has ``on_epoch_begin`` do again what it had done, and everything be in place after that.

        Raises:
            CheckpointError: it doesn't fit.
        """
        if self._waiting is not None:
            self.take_up(self._folder, self._waiting, replay)
        elif self.snapshot is not None:
            script, self._script = self._script, None
            replay.around(self.snapshot.index, self._folder, script)

    def take_up(self, folder: Path, snapshot: Snapshot, replay: Replay) -> None:
        """Does so with a checkpoint of which nothing is in place yet.

        Raises:
            CheckpointError: it doesn't fit.
            SetupError: there are no models yet.
        """
        check_steps(self._run, folder, snapshot.index)
        self._run.script.look()  # before on_epoch_begin, which may change the numbers as it did in the saved run
        replay.again(snapshot.index)
        self.put_in_place(folder, snapshot, False, names=self._names)

    def continue_streams(self) -> None:
        """Puts the random streams where the resumed run had them, once its loader has been started."""
        if self.snapshot is not None:
            states = self.snapshot.trees["rng"]
            if len(states) == self._run.backend.world_size:
                self._run.streams.restore(states[self._run.backend.rank])
            self.snapshot = None

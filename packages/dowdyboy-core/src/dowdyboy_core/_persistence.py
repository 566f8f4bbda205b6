"""The part of the Trainer that saves a run, and takes one up again."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ._backend import Backend
from ._checkpoint import Snapshot, read_snapshot
from ._config import TrainerConfig
from ._errors import CheckpointError, SetupError
from ._files import Content
from ._saving import (
    Position,
    apply_all,
    apply_weights,
    check_equal_weights,
    check_streams,
    position_of,
    take_snapshot,
)
from ._stopping import Stopped, Stopping
from ._surface import Surface
from ._writer import Writer
from .rand import derive_seed


class Persistence(Surface):
    """When a checkpoint is written, which one is the best, and how a run goes on from one."""

    def __init__(self, config: TrainerConfig, backend: Backend) -> None:
        super().__init__(config, backend)
        self._resumed: Snapshot | None = None
        self._curves_end: int | None = None  # length of metrics.jsonl at the resumed checkpoint, if that is our own
        self._run = 1
        self._unsaved: dict[str, str] = {}
        self._writer = Writer()
        self._stopping = Stopping(backend.largest, backend.rank, backend.world_size)

    def load_checkpoint(self, checkpoint_dir: str | os.PathLike[str], *, weights_only: bool = False) -> None:
        """Takes up what a checkpoint holds; the next ``fit`` goes on where the saved one stopped.

        Args:
            checkpoint_dir: the folder of one checkpoint.
            weights_only: take the weights of the models and components alone, and start a run of its own from them.

        Raises:
            CheckpointError: it is missing, damaged, or doesn't fit the models and optimizers that were set.
        """
        folder = Path(checkpoint_dir)
        self._writer.wait()
        self._load(folder, read_snapshot(folder, weights_only=weights_only), weights_only)

    def wait_for_checkpoint(self) -> None:
        """Waits until the checkpoint under way, which is written beside the training, is on the disk."""
        self._writer.wait()

    def _load(self, folder: Path, snapshot: Snapshot, weights_only: bool) -> None:
        if not self._parts.models:
            raise SetupError("load_checkpoint needs the models to load into. Call set_model or set_models first.")
        if weights_only:
            apply_weights(self._backend, self._parts, snapshot, folder)
            self.print(f"took the weights of {str(folder)!r}")
            return
        check_streams(self._backend, self._streams, snapshot, folder)
        apply_all(self._backend, self._parts, snapshot, self._stepper.scaler, self._records, folder)
        self._position = position_of(snapshot)
        self._adapt_to_world_size(snapshot)
        self._epoch = self._position.epoch
        # What is still needed: the streams when the loader has been started, and not the weights' memory until then.
        self._resumed = Snapshot(snapshot.index, trees={"rng": snapshot.trees["rng"]})
        own = folder.resolve().parent == self._checkpoints.path.resolve()
        self._curves_end = int(snapshot.index["metrics_bytes"]) if own else None
        self.print(f"resumed from {str(folder)!r}: {self._position.epoch} epochs, {self._position.train_step} steps")

    def _adapt_to_world_size(self, snapshot: Snapshot) -> None:
        before = int(snapshot.index["world_size"])
        if before == self.world_size:
            return
        # Within an epoch the batches that all processes had done are skipped, as nearly as the new number allows.
        self._position.batch = self._position.batch * before // self.world_size
        if self._position.val_batch is not None:
            self._position.val_batch = self._position.val_batch * before // self.world_size
        self._warn(
            f"The checkpoint was saved by {before} processes and this run has {self.world_size}: it goes on, but not "
            "with the numbers that an uninterrupted run would have had."
        )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keeps other runs out of ``out_dir``: nothing in it is changed by a fit before, or once that has ended.

        Raises:
            SetupError: another one is under way there; in all processes, of which the first one looks.
        """
        problem = self._backend.gather(self._lock.take() if self.is_main_process() else "")[0]
        if problem:
            raise SetupError(problem)
        try:
            yield
        finally:
            self._lock.release()

    def _begin_fit(self) -> None:
        """Brings the run to its start, or to where a checkpoint left it."""
        self._unsaved = {}
        if self.is_main_process():
            self._checkpoints.tidy()
        self._backend.barrier()
        if self._resumed is None and self.config.resume is not None:
            self._resume()
        self._streams.seed(derive_seed(self.config.seed, "fit", self.rank))
        if self._resumed is None:
            self._records.clear()
            before = self._position  # of an earlier fit of this trainer, whose best checkpoint must not be lost
            self._position, self._epoch = Position(best=before.best), 0
        if self.is_main_process():
            self._begin_files()
        if self._resumed is not None and self.config.save_best and self.config.enable_save_checkpoint:
            self._position.best, self._position.best_epoch = self._backend.gather(self._best_of_all())[0]

    def _best_of_all(self) -> tuple[float | None, int | None]:
        """The best value, and its epoch: of the resumed checkpoint, or of a later and better one that lies there."""
        found = self._checkpoints.best() if self.is_main_process() else None
        assert self._resumed is not None
        # That of a run before this one never counted here: nor may it because this one was killed in between.
        if found is not None and found["run"] >= self._resumed.index["run"]:
            value = found["best"]
            if found["best_type"] == self.config.save_best_type and value is not None and self._improves(value):
                return value, found["best_epoch"]
        return self._position.best, self._position.best_epoch

    def _begin_files(self) -> None:
        """Has the files go on from the resumed checkpoint, or begin a run of their own."""
        before = self._checkpoints.last_run()
        if self._resumed is None:
            self._run = before + 1
            if before and self.config.enable_save_checkpoint:
                self._warn(
                    f"{str(self._checkpoints.path)!r} holds checkpoints of an earlier run, which those of this one "
                    "will replace one by one. Give another out_dir to keep them, or resume='auto' to go on."
                )
            if self.config.resume == "auto" and not before:
                self._curves_end = 0  # what a run drew that was killed before its first checkpoint
        elif self._checkpoints.holds_later(self._resumed.index):
            self._run = before + 1  # or the next restart would go on from those, which are not of this run
        else:
            self._run = max(before, int(self._resumed.index["run"]))
        if self._curves_end is not None:
            self._metrics.cut_back(self._curves_end)
            self._curves_end = None
        else:
            self._metrics.go_on()

    def _resume(self) -> None:
        if self.config.resume == "auto":
            # One process chooses: a file system may show others an older state of the folder.
            found = self._checkpoints.newest() if self.is_main_process() else None
            named = self._backend.gather(None if found is None else str(found[0]))[0]
            if named is not None:
                chosen = Path(named)
                snapshot = self._read_together(chosen, None if found is None else found[1])
                self._load(chosen, snapshot, weights_only=False)
                if self.is_main_process():
                    self._make_up_for_lost(snapshot)  # before training changes what the optimizers keep of it
        elif self.config.resume is not None:
            self.load_checkpoint(self.config.resume)

    def _read_together(self, folder: Path, snapshot: Snapshot | None) -> Snapshot:
        """Reads what one process chose, in all of them or in none: a machine may not see the disk of another."""
        problem = None
        if snapshot is None:
            try:
                snapshot = read_snapshot(folder)
            except CheckpointError as error:
                problem = str(error)
        # The index has the digest of every other file.
        seen = self._backend.gather((problem, None if snapshot is None else snapshot.index))
        for rank, (told, index) in enumerate(seen):
            if told is not None or index != seen[0][1]:
                raise CheckpointError(
                    f"Process 0 goes on from {str(folder)!r}, and process {rank} can't: "
                    f"{told or 'it finds another checkpoint there.'} Give an out_dir that all machines share, or copy "
                    "that folder to the same path on each of them."
                )
        assert snapshot is not None
        return snapshot

    def _continue_streams(self) -> None:
        """Puts the random streams where the resumed run had them, once its loader has been started."""
        if self._resumed is not None:
            states = self._resumed.trees["rng"]
            if len(states) == self.world_size:
                self._streams.restore(states[self.rank])
            self._resumed = None

    def _save_epoch(self, ep: int, value: float | None) -> None:
        best = self.config.save_best and value is not None and self._is_best(value)
        if best:
            self._position.best, self._position.best_epoch = value, ep
        kinds = self._kinds(ep) if self.config.enable_save_checkpoint else []
        if not kinds:
            check_equal_weights(self._backend, self._parts)  # as each snapshot does
            return
        self._save(kinds, ep, self._snapshot())
        if best:
            self.print(f"epoch {ep} is the best so far: {value:.6g}")

    def _kinds(self, ep: int) -> list[str]:
        """What is to be saved at the end of an epoch."""
        kinds = ["epoch"] if ep % self.config.save_interval == 0 else []
        kinds += ["last_epoch"] if self.config.save_last else []
        return kinds + (["best_epoch"] if self.config.save_best and self._position.best_epoch == ep else [])

    def _make_up_for_lost(self, snapshot: Snapshot) -> None:
        """Writes the other checkpoints of an epoch, where the run was killed after the first of them."""
        position = position_of(snapshot)
        if position.epoch and not position.batch and self.config.enable_save_checkpoint:
            epoch, there = position.epoch, self._checkpoints.has
            lost = [kind for kind in self._kinds(epoch) if not there(kind, epoch, snapshot.index)]
            self._write(lost, epoch, snapshot.content())

    def _is_best(self, value: float) -> bool:
        """Strictly better than all before; what is not a finite number is never the best."""
        if not math.isfinite(value):
            self._warn(f"The value that decides the best is {value} in epoch {self._epoch}, and so it isn't the best.")
            return False
        return self._improves(value)

    def _improves(self, value: float) -> bool:
        best = self._position.best
        return best is None or (value < best if self.config.save_best_type == "min" else value > best)

    def _save_within_epoch(self, ep: int, closing: int) -> None:
        """Refreshes the last checkpoint every ``save_steps`` training steps.

        Called where an accumulation window of ``closing`` batches closes: gradients under way are in no checkpoint.
        """
        every, step = self.config.save_steps, self._position.train_step
        if every is not None and self.config.enable_save_checkpoint and step // every > (step - closing) // every:
            self._save(["last_epoch"], ep, self._snapshot())

    def _stop_if_asked(self, ep: int, signum: int | None) -> None:
        """Saves and ends the run if there is a signal to stop for, in all processes alike.

        Raises:
            Stopped: it is saved, as far as the disk has it and ``enable_save_checkpoint`` allows.
        """
        if signum is None:
            return
        if self.config.enable_save_checkpoint:
            self._save(["last_epoch"], ep, self._snapshot())
            self._writer.wait()
        saved = self.config.enable_save_checkpoint and "last_epoch" not in self._unsaved
        self.print(
            f"stopped by signal {signum} in epoch {ep}, "
            + ("saved; resume='auto' goes on from here" if saved else "and this point is NOT saved")
        )
        self._backend.barrier()  # the first process that is gone may take the others with it
        raise Stopped(signum)

    def _snapshot(self) -> Snapshot:
        self._writer.wait()  # first, or two copies of the run would be in memory
        about = {
            "name": self.config.name,
            "run": self._run,
            "seed": self.config.seed,
            "precision": self._precision,
            "metrics_bytes": self._metrics.size(),
            "best_type": self.config.save_best_type,
        }
        scaler, streams, records = self._stepper.scaler, self._streams, self._records
        return take_snapshot(self._backend, self._parts, self._position, scaler, streams, records, about)

    def _save(self, kinds: list[str], ep: int, snapshot: Snapshot) -> None:
        """Hands a snapshot over to be written; the training goes on meanwhile."""
        if self.is_main_process():
            content = snapshot.content()  # here, since it may refuse
            self._writer.start(lambda: self._write(kinds, ep, content))

    def _write(self, kinds: list[str], ep: int, content: Content) -> None:
        self._metrics.sync()  # the checkpoint counts on what it has
        for kind in kinds:
            self._unsaved.pop(kind, None)
            if not self._checkpoints.save(kind, ep, content):
                self._unsaved[kind] = f"{kind}_{ep}"

    def _check_saved(self) -> None:
        """Ends a fit whose last checkpoint could not be written with an error, once everything else is done."""
        self._writer.wait()
        if self._unsaved:
            names = ", ".join(sorted(self._unsaved.values()))
            raise CheckpointError(
                f"Training is over, but the last save of {names} in {str(self._checkpoints.path)!r} failed; see the "
                "log. Older checkpoints are whole."
            )

"""When a checkpoint is written, which one is the best, and how a run goes on from one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dowdyboy_core._disk.files import Content
from dowdyboy_core._disk.writer import Writer
from dowdyboy_core._errors import CheckpointError, SetupError
from dowdyboy_core._exchange.pairing import Names
from dowdyboy_core.backend.signals import TIME_IS_UP, Stopped
from dowdyboy_core.backend.together import meet
from dowdyboy_core.rand import derive_seed

from .checkpoints import CheckpointFolder, Snapshot, read_snapshot
from .replay import Replay
from .requests import Requests
from .resumed import Resumed
from .run import Run
from .settings import follows_another, position_means_another
from .snapshots import (
    check_equal_weights,
    read_together,
    take_snapshot,
)
from .states import check_resumable
from .trial import Trial


class Saver:
    """Saves a run, and takes one up again.

    Args:
        run: what is saved, and what is put in place.

    Attributes:
        checkpoints: the folder of the run's checkpoints.
        requests: labels under which hooks want the run saved.
        resumed: the checkpoint that it goes on from.
        trial: tries the first save out.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._config = run.config
        self._backend = run.backend
        self._position = run.position
        self.checkpoints = CheckpointFolder(run.out_dir / "checkpoint", run.warn, run.config.max_keep_num)
        self.resumed = Resumed(run)
        self._number = 1  # of this run among those that were in out_dir
        self._unsaved: dict[str, str] = {}
        self.requests = Requests(run)
        self.trial = Trial(run)
        self._writer = Writer()

    # ---- taking up

    def load(self, folder: Path, *, weights_only: bool = False, average: bool = False, names: Names = None) -> None:
        """Takes up what a checkpoint holds, for the next ``begin`` to go on from."""
        self._writer.wait()
        self.resumed.load(folder, weights_only=weights_only, average=average, names=names)

    def begin(self, replay: Replay) -> None:
        """Brings the run to its start, or to where a checkpoint left it.

        Args:
            replay: has ``on_epoch_begin`` do again what it had done.
        """
        self._unsaved = {}
        self.trial.begin()
        if self._config.enable_save_checkpoint or self.resumed.is_loaded() or self._config.resume is not None:
            check_resumable(self._run)
        if self._run.is_main:
            self.checkpoints.tidy()
        self._backend.barrier()
        if self.resumed.is_loaded():
            self.resumed.go_on(replay)
        elif self._config.resume is not None:
            self._resume(replay)
        self._run.streams.seed(derive_seed(self._config.seed, "fit", self._backend.rank))
        if self.resumed.snapshot is None:
            self._run.records.clear()
            self._run.averaging.restart()
            self._position.restart()
            self._run.carried.forget()
            if self._config.enable_save_checkpoint:
                self._run.script.begin()
            self._run.untrained.begin()
        if self._run.is_main:
            self._begin_files()
        if self.resumed.snapshot is not None:
            self._run.loader_states.take_up(self.resumed.snapshot.trees.get("loader"))
            self._tell_of_others(self.resumed.snapshot.index)
        if self.resumed.snapshot is not None and self._config.save_best and self._config.enable_save_checkpoint:
            self._position.best, self._position.best_epoch = self._backend.gather(self._best_of_all())[0]

    def _tell_of_others(self, index: Mapping[str, Any]) -> None:
        """Says what the resumed checkpoint was saved with that this run has otherwise."""
        if told := position_means_another(self._run, index):
            self._run.warn(told)
        if told := follows_another(self._run, index):
            self._position.forget_best()
            self._run.warn(told)

    def _best_of_all(self) -> tuple[float | None, int | None]:
        """The best value, and its epoch: of the resumed checkpoint, or of a later and better one that lies there."""
        found = self.checkpoints.best() if self._run.is_main else None
        assert self.resumed.snapshot is not None
        # That of a run before this one never counted here: nor may it because this one was killed in between.
        if found is not None and found["run"] >= self.resumed.snapshot.index["run"]:
            value = found["best"]
            if follows_another(self._run, found) is None and value is not None and self._improves(value):
                return value, found["best_epoch"]
        return self._position.best, self._position.best_epoch

    def _begin_files(self) -> None:
        """Has the files go on from the resumed checkpoint, or begin a run of their own."""
        before = self.checkpoints.last_run()
        if self.resumed.snapshot is None:
            self._number = before + 1
            if before and self._config.enable_save_checkpoint:
                kept = self._config.max_keep_num
                also = "" if kept is None else f", and of whose epoch_N max_keep_num={kept} leaves the newest"
                self._run.warn(
                    f"{str(self.checkpoints.path)!r} holds checkpoints of an earlier run, which those of this one "
                    f"will replace one by one{also}. Give another out_dir to keep them, or resume='auto' to go on."
                )
            if self._config.resume == "auto" and not before:
                self.resumed.curves_end = 0  # what a run drew that was killed before its first checkpoint
        elif self.checkpoints.holds_later(self.resumed.snapshot.index):
            self._number = before + 1  # or the next restart would go on from those, which are not of this run
        else:
            self._number = max(before, int(self.resumed.snapshot.index["run"]))
        if self.resumed.curves_end is not None:
            self._run.metrics.cut_back(self.resumed.curves_end)
            self.resumed.curves_end = None
        else:
            self._run.metrics.go_on()

    def _resume(self, replay: Replay) -> None:
        if self._config.resume == "auto":
            # One process chooses: a file system may show others an older state of the folder.
            found = self.checkpoints.newest() if self._run.is_main else None
            named = self._backend.gather(None if found is None else str(found[0]))[0]
            if named is not None:
                chosen = Path(named)
                snapshot = self._read_together(chosen, None if found is None else found[1])
                lost = self._lost(snapshot) if self._run.is_main else []
                content = snapshot.content() if lost else None  # it is used up when it is taken up
                self.resumed.take_up(chosen, snapshot, replay)
                if content is not None:  # before training changes what the optimizers keep of it
                    self._write(lost, int(snapshot.index["epoch"]), content)
                if self._run.is_main and self._config.enable_save_checkpoint:
                    self.checkpoints.clear_epochs()
        elif self._config.resume is not None:
            self._writer.wait()
            chosen = Path(self._config.resume)
            self.resumed.take_up(chosen, read_snapshot(chosen), replay)

    def _read_together(self, folder: Path, snapshot: Snapshot | None) -> Snapshot:
        return read_together(self._backend, folder, snapshot)

    # ---- saving

    def note_value(self, ep: int, value: float | None) -> None:
        """Notes whether an epoch is the best so far, by what decides that; None if it has no such value."""
        wanted = self._config.save_best or self._config.early_stop is not None
        if wanted and value is not None and self._is_best(value):
            self._position.best, self._position.best_epoch = value, ep

    def end_epoch(self, ep: int, value: float | None) -> None:
        """Saves what is to be saved at the end of an epoch.

        Args:
            ep: the epoch.
            value: what decides which is the best; None if it has no such value.
        """
        kinds = (
            [*self._kinds(ep, self._position.best_epoch), *self.requests.take()]
            if self._config.enable_save_checkpoint
            else []
        )
        if not kinds:
            check_equal_weights(self._backend, self._run.parts)  # as each snapshot does
            return
        self._save(kinds, ep, self._snapshot())
        if "best_epoch" in kinds and value == self._position.best:
            self._run.tell(f"epoch {ep} is the best so far: {value:.6g}")

    def _kinds(self, ep: int, best: int | None) -> list[str]:
        """What is to be saved at the end of an epoch."""
        kinds = ["epoch"] if ep % self._config.save_interval == 0 else []
        kinds += ["last_epoch"] if self._config.save_last else []
        return kinds + (["best_epoch"] if self._config.save_best and best == ep else [])

    def _lost(self, snapshot: Snapshot) -> list[str]:
        """The other checkpoints of an epoch that are to be there, where the run was killed after the first of them."""
        epoch, there = int(snapshot.index["epoch"]), self.checkpoints.has
        if not epoch or snapshot.index["batch"] or not self._config.enable_save_checkpoint:
            return []
        kinds = self._kinds(epoch, snapshot.index["best_epoch"])
        return [kind for kind in kinds if not there(kind, epoch, snapshot.index)]

    def _is_best(self, value: float) -> bool:
        """Strictly better than all before; what is not a finite number is never the best."""
        if not math.isfinite(value):
            ep = self._position.running
            self._run.warn(f"The value that decides the best is {value} in epoch {ep}, and so it isn't the best.")
            return False
        return self._improves(value)

    def _improves(self, value: float) -> bool:
        best = self._position.best
        return best is None or (value < best if self._config.save_best_type == "min" else value > best)

    def within_epoch(self, ep: int, closing: int) -> None:
        """Refreshes the last checkpoint every ``save_steps`` training steps.

        Called where an accumulation window of ``closing`` batches closes: gradients under way are in no checkpoint.
        """
        self.trial.after_step()
        every, step = self._config.save_steps, self._position.train_step
        due = every is not None and self._config.enable_save_checkpoint and step // every > (step - closing) // every
        kinds = ["last_epoch"] if due else []
        if self.requests.due():
            kinds += self.requests.take()
        if kinds:
            self._save(kinds, ep, self._snapshot())

    def save_now(self) -> None:
        """Saves what was requested, outside of ``fit``, in all processes together.

        Raises:
            SetupError: there are no models yet, or another run is under way in ``out_dir``.
            CheckpointError: the disk won't have it.
        """
        self.resumed.check_in_place("save_checkpoint")
        meet(self._backend.gather, self._backend.rank, "save_checkpoint")
        kinds = self.requests.take()
        if not self._run.parts.models:
            raise SetupError("save_checkpoint needs the models to save. Call set_model or set_models first.")
        with self._run.alone():
            self._number = max(self._number, self.checkpoints.last_run())
            self._save(kinds, 0, self._snapshot())
            self._writer.wait()
        lost = self._backend.gather([self._unsaved.pop(kind) for kind in kinds if kind in self._unsaved])[0]
        if lost:
            raise CheckpointError(
                f"{', '.join(lost)} in {str(self.checkpoints.path)!r} could not be saved; see the log. Older "
                "checkpoints are whole."
            )

    def stop_if_asked(self, ep: int, signum: int | None) -> None:
        """Saves and ends the run if there is a signal to stop for, in all processes alike.

        Raises:
            Stopped: it is saved, as far as the disk has it and ``enable_save_checkpoint`` allows.
        """
        if signum is None:
            return
        saved = self.save_last(ep)
        self._run.tell(
            f"stopped {self._cause(signum)} in epoch {ep}, "
            + ("saved; resume='auto' goes on from here" if saved else "and this point is NOT saved")
        )
        self._backend.barrier()  # the first process that is gone may take the others with it
        raise Stopped(signum)

    def _cause(self, signum: int) -> str:
        return f"after {self._config.stop_after}" if signum == TIME_IS_UP else f"by signal {signum}"

    def save_last(self, ep: int, **changed: int) -> bool:
        """Saves the run as it is as the last checkpoint, whatever the settings but for ``enable_save_checkpoint``.

        Args:
            ep: the epoch under way.
            changed: what its index says otherwise.

        Returns:
            Whether it is on the disk.
        """
        if not self._config.enable_save_checkpoint:
            return False
        snapshot = self._snapshot()
        snapshot.index.update(changed)
        self._save(["last_epoch", *self.requests.take()], ep, snapshot)
        self._writer.wait()
        return "last_epoch" not in self._unsaved

    def _snapshot(self) -> Snapshot:
        self._writer.wait()  # first, or two copies of the run would be in memory
        self._run.losses.check()
        snapshot = take_snapshot(self._run, self._number)
        parts = self._run.parts
        self._run.losses.check_weights(snapshot.weights, parts.trained_parameters(parts.raw_models()))
        self._run.untrained.leave_out(snapshot)
        if self.resumed.snapshot is not None and len(self.resumed.snapshot.trees["rng"]) == self._backend.world_size:
            snapshot.trees["rng"] = self.resumed.snapshot.trees["rng"]  # which wait for a loader
        return snapshot

    def _save(self, kinds: list[str], ep: int, snapshot: Snapshot) -> None:
        """Hands a snapshot over to be written; the training goes on meanwhile."""
        if self._run.is_main:
            content = snapshot.content()  # here, since it may refuse
            self._writer.start(lambda: self._write(kinds, ep, content))

    def _write(self, kinds: list[str], ep: int, content: Content) -> None:
        self._run.metrics.sync()  # the checkpoint counts on what it has
        for kind in kinds:
            self._unsaved.pop(kind, None)
            number = int(content.index["train_step"]) if kind.startswith("chk_") else ep
            if not self.checkpoints.save(kind, number, content):
                self._unsaved[kind] = f"{kind}_{number}"

    def wait(self) -> None:
        """Waits until the checkpoint under way is on the disk."""
        self._writer.wait()

    def close(self) -> None:
        """Ends a fit, whether it came to its end or not."""
        self.resumed.snapshot = None
        self.requests.forget()
        self._writer.wait()

    def check(self) -> None:
        """Ends a fit whose last checkpoint could not be written with an error, once everything else is done."""
        self._writer.wait()
        if self._unsaved:
            names = ", ".join(sorted(self._unsaved.values()))
            raise CheckpointError(
                f"Training is over, but the last save of {names} in {str(self.checkpoints.path)!r} failed; see the "
                "log. Older checkpoints are whole."
            )

"""The Trainer: one loop for every framework, and the configuration it goes by.

Read ``fit`` and go down from there; each method stands below the one that calls it.

    for each epoch:                                   _run_epoch
        for each training batch:                      _train
            zero_grad, train_step, backward, step       (with auto_optimize)
        for each validation batch:                    _validate (every val_interval epochs)
            val_step
        step the schedulers                           _step_schedulers
        gather the records, compute the best value    _follow_value
        on_epoch_end
        save                                          _save_epoch
        clear the records, free memory
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ._assembly import check_hook
from ._backend import Backend
from ._checkpoint import Snapshot, read_snapshot
from ._config import TrainerConfig
from ._errors import CheckpointError, ConfigError, SetupError
from ._metrics import as_number
from ._progress import Progress, show_progress
from ._records import Records
from ._saving import Position, apply_rest, apply_weights, position_of, take_snapshot
from ._surface import Surface
from .rand import derive_seed

__all__ = ["Trainer", "TrainerConfig"]

Step = Callable[[Any, Any, int, int], Any]
"""``step(trainer, bat, bat_idx, global_step)``; the loss, if it gives one, is shown in the bar."""

# What a plateau scheduler is told for NaN or inf. In one framework NaN would stay the best for ever, and inf minus a
# share of inf is NaN again; a number worse than any real one is a bad epoch in both.
_WORST = 3e38

_STEP_ARGUMENTS = "trainer, bat, bat_idx, global_step"


class Trainer(Surface):
    """Trains, validates, tests, saves and resumes, by a few hooks.

    Args:
        config: the settings.
        backend: the framework; ``dowdyboy_torch.Trainer`` and ``dowdyboy_paddle.Trainer`` bring theirs.
    """

    def __init__(self, config: TrainerConfig, backend: Backend) -> None:
        super().__init__(config, backend)
        self._resumed: Snapshot | None = None
        self._unsaved: dict[str, str] = {}

    def fit(
        self,
        train_step: Step,
        val_step: Step | None = None,
        on_epoch_end: Callable[[Any, int], Any] | None = None,
    ) -> None:
        """Trains for ``config.epoch`` epochs, or for those that are left after ``load_checkpoint``.

        Args:
            train_step: ``train_step(trainer, bat, bat_idx, global_step)`` gives the loss of a batch, a tensor with one
                element. With ``auto_optimize=False`` it calls zero_grad, backward and step itself and may give nothing.
            val_step: ``val_step(trainer, bat, bat_idx, global_step)``, run in evaluation mode without gradients.
            on_epoch_end: ``on_epoch_end(trainer, ep)``, with the epoch's records at hand.

        Raises:
            ConfigError: a hook can't be called that way.
            SetupError: something that the run needs was not set, or a record that decides the best is missing.
            CheckpointError: the last checkpoint could not be saved (everything else is done by then).
        """
        self._check_fit(train_step, val_step, on_epoch_end)
        self._begin_fit()
        try:
            for ep in range(self._position.epoch + 1, self.config.epoch + 1):
                self._epoch = ep
                self._run_epoch(ep, train_step, val_step, on_epoch_end)
        finally:
            self._loss = None
            self._metrics.close()
            self._resumed = None
        if self._unsaved:
            names = ", ".join(sorted(self._unsaved.values()))
            raise CheckpointError(
                f"Training is over, but the last save of {names} in {str(self._checkpoints.path)!r} failed; see the log. "
                "Older checkpoints are whole."
            )

    def _run_epoch(
        self, ep: int, train_step: Step, val_step: Step | None, on_epoch_end: Callable[[Any, int], Any] | None
    ) -> None:
        self.print(f"======= epoch {ep}/{self.config.epoch} begin =======")
        self._train(ep, train_step)
        if val_step is not None and ep % self.config.val_interval == 0:
            self._validate(ep, val_step)
        if self.config.auto_schedule:
            self._step_schedulers()
        value = self._follow_value(ep)
        if on_epoch_end is not None:
            on_epoch_end(self, ep)
        self._position.epoch, self._position.batch = ep, 0
        self._save_epoch(ep, value)
        self._records.clear()
        if self.config.auto_free:
            self._backend.free_memory()

    def _train(self, ep: int, train_step: Step) -> None:
        """Runs the training batches of an epoch, from where the run stands in it."""
        loader, position, window = self._parts.loaders["train"], self._position, self.config.accumulate_steps
        auto, backend, stepper = self.config.auto_optimize, self._backend, self._stepper
        self._parts.set_training(True)
        batches = loader.epoch(ep, position.batch)
        self._continue_streams()
        with self._progress("train", ep, loader.count(), position.batch) as progress:
            for bat in batches:
                if auto and position.batch % window == 0:
                    self._zero_all()
                with backend.forward_context(True):
                    loss = train_step(self, backend.to_device(bat), position.batch, position.train_step)
                if auto:
                    stepper.backward(loss)
                    if (position.batch + 1) % window == 0:
                        self._step_all()
                stepper.scaler.update()
                position.batch += 1
                position.train_step += 1
                self._loss = loss
                progress.advance()
                self._save_within_epoch(ep)
            if auto and position.batch % window:
                self._step_all(batches=position.batch % window)
                stepper.scaler.update()

    def _zero_all(self) -> None:
        for optimizer in self._parts.optimizers:
            self._backend.zero_grad(optimizer)

    def _step_all(self, batches: int | None = None) -> None:
        for optimizer in self._parts.optimizers:
            self._stepper.step(optimizer, batches)

    def _validate(self, ep: int, val_step: Step) -> None:
        """Runs the validation batches; back to training mode is the next epoch's business."""
        loader = self._parts.loaders["val"]
        self._parts.set_training(False)
        batches = loader.epoch(ep)
        with self._progress("val", ep, loader.count()) as progress:
            for bat_idx, bat in enumerate(batches):
                self._evaluate_batch(val_step, bat, bat_idx, self._position.val_step, progress)
                self._position.val_step += 1

    def _evaluate_batch(self, step: Step, bat: Any, bat_idx: int, global_step: int, progress: Progress) -> None:
        with self._backend.forward_context(False):
            self._loss = step(self, self._backend.to_device(bat), bat_idx, global_step)
        progress.advance()

    def _step_schedulers(self) -> None:
        """Steps the schedulers that follow the clock; those that follow a value wait for it."""
        for scheduler in self._parts.schedulers:
            if scheduler is not None and self._backend.plateau_mode(scheduler) is None:
                self._backend.step_scheduler(scheduler, None)

    def _follow_value(self, ep: int) -> float | None:
        """Computes the value that decides the best, if anything follows it, and steps plateau schedulers by it.

        Returns:
            The value; None if this epoch has none.
        """
        plateaus = [item for item in self._parts.schedulers if item and self._backend.plateau_mode(item)]
        plateaus = plateaus if self.config.auto_schedule else []
        if not (plateaus or self.config.save_best) or ep % self.config.val_interval:
            return None
        value = self._best_value(ep)
        for scheduler in plateaus:
            worst = -_WORST if self._backend.plateau_mode(scheduler) == "max" else _WORST
            self._backend.step_scheduler(scheduler, value if math.isfinite(value) else worst)
        return value

    def _best_value(self, ep: int) -> float:
        if self._best_func is not None:
            given = self._best_func(self)
            value = as_number(given, self._backend.to_float)
            if value is None:
                raise ConfigError(f"The function of set_save_best_calc_func gave {given!r:.80}. Return a number.")
            return value
        records, name = self._records.stacked(), self.config.save_best_rec
        if name not in records:
            self._save("last_epoch", ep, self._snapshot(epoch=ep, batch=0))  # so that the epoch is not lost
            raise SetupError(
                f"save_best_rec={name!r} is not among the records of epoch {ep}: {sorted(records)}. Record it with "
                "set_records, or name one of these."
            )
        return self._backend.mean(records[name])

    def _save_epoch(self, ep: int, value: float | None) -> None:
        best = self.config.save_best and value is not None and self._is_best(value)
        if best:
            self._position.best = value
        if not self.config.enable_save_checkpoint:
            return
        kinds = ["epoch"] if ep % self.config.save_interval == 0 else []
        kinds += ["last_epoch"] if self.config.save_last else []
        kinds += ["best_epoch"] if best else []
        snapshot = self._snapshot() if kinds else None
        for kind in kinds:
            self._save(kind, ep, snapshot)
        if best:
            self.print(f"epoch {ep} is the best so far: {value:.6g}")

    def _is_best(self, value: float) -> bool:
        """Strictly better than all before; what is not a finite number is never the best."""
        if not math.isfinite(value):
            self._warn(f"The value that decides the best is {value} in epoch {self._epoch}, and so it isn't the best.")
            return False
        best = self._position.best
        return best is None or (value < best if self.config.save_best_type == "min" else value > best)

    def _save_within_epoch(self, ep: int) -> None:
        every, position = self.config.save_steps, self._position
        if every is None or not self.config.enable_save_checkpoint or position.train_step % every:
            return
        if position.batch % self.config.accumulate_steps:  # gradients are under way, and no checkpoint holds those
            return
        self._save("last_epoch", ep, self._snapshot())

    def _snapshot(self, **changed: int) -> Snapshot:
        position = Position(**{**vars(self._position), **changed})
        about = {
            "name": self.config.name,
            "seed": self.config.seed,
            "precision": self._precision,
            "metrics_bytes": self._metrics.size(),
        }
        scaler, streams, records = self._stepper.scaler, self._streams, self._records
        return take_snapshot(self._backend, self._parts, position, scaler, streams, records, about)

    def _save(self, kind: str, ep: int, snapshot: Snapshot | None) -> None:
        if snapshot is not None and self.is_main_process() and self.config.enable_save_checkpoint:
            self._unsaved.pop(kind, None)
            if not self._checkpoints.save(kind, ep, snapshot):
                self._unsaved[kind] = f"{kind}_{ep}"

    def test(self, test_step: Step, on_test_end: Callable[[Any], Any] | None = None) -> None:
        """Runs over the test data in evaluation mode without gradients, with records of its own.

        Args:
            test_step: ``test_step(trainer, bat, bat_idx, global_step)``, both counting from 0 each time.
            on_test_end: ``on_test_end(trainer)``, with the records of the test at hand.

        Raises:
            ConfigError: a hook can't be called that way.
            SetupError: a loader or a model is missing.
        """
        check_hook("test_step", test_step, _STEP_ARGUMENTS)
        if on_test_end is not None:
            check_hook("on_test_end", on_test_end, "trainer")
        self._parts.check_ready("test")
        loader = self._parts.loaders["test"]
        self._parts.set_training(False)
        records_of_fit, self._records = self._records, Records(self._backend)
        try:
            with self._progress("test", 0, loader.count()) as progress:
                for bat_idx, bat in enumerate(loader.epoch(0)):
                    self._evaluate_batch(test_step, bat, bat_idx, bat_idx, progress)
            if on_test_end is not None:
                on_test_end(self)
        finally:
            self._loss = None
            self._records = records_of_fit
            self._metrics.close()

    def backward(self, loss: Any) -> None:
        """Adds the gradients of a loss, scaled as the precision needs it; for ``auto_optimize=False``."""
        self._stepper.backward(loss)

    def zero_grad(self, optimizer: Any) -> None:
        """Clears the gradients of an optimizer's parameters; for ``auto_optimize=False``."""
        self._backend.zero_grad(optimizer)

    def step(self, optimizer: Any = None, lr_scheduler: Any = None) -> None:
        """Steps an optimizer, a scheduler or both; for ``auto_optimize=False`` and ``auto_schedule=False``.

        An optimizer whose gradients overflowed in fp16 skips its step, and then so does the scheduler given with it.
        """
        if optimizer is None and lr_scheduler is None:
            raise ConfigError("step got neither an optimizer nor a scheduler. Give at least one of them.")
        stepped = optimizer is None or self._stepper.step(optimizer)
        if lr_scheduler is not None and stepped:
            if self._backend.plateau_mode(lr_scheduler) is not None:
                raise ConfigError(
                    "step got a scheduler that follows a value. Leave it to auto_schedule=True, or step it yourself "
                    "with the value."
                )
            self._backend.step_scheduler(lr_scheduler, None)

    def load_checkpoint(self, checkpoint_dir: str | os.PathLike[str], *, weights_only: bool = False) -> None:
        """Takes up what a checkpoint holds; the next ``fit`` goes on where the saved one stopped.

        Args:
            checkpoint_dir: the folder of one checkpoint.
            weights_only: take the weights of the models and components alone, and start a run of its own from them.

        Raises:
            CheckpointError: it is missing, damaged, or doesn't fit the models and optimizers that were set.
        """
        folder = Path(checkpoint_dir)
        self._load(folder, read_snapshot(folder, weights_only=weights_only), weights_only)

    def _load(self, folder: Path, snapshot: Snapshot, weights_only: bool) -> None:
        if not self._parts.models:
            raise SetupError("load_checkpoint needs the models to load into. Call set_model or set_models first.")
        apply_weights(self._backend, self._parts, snapshot, folder)
        if weights_only:
            self.print(f"took the weights of {str(folder)!r}")
            return
        apply_rest(self._backend, self._parts, snapshot, self._stepper.scaler, self._records, folder)
        self._position = position_of(snapshot)
        self._epoch = self._position.epoch
        self._resumed = snapshot
        if folder.resolve().parent == self._checkpoints.path.resolve():  # our own run goes on: so do its curves
            self._metrics.cut_back(int(snapshot.index["metrics_bytes"]))
        self.print(f"resumed from {str(folder)!r}: {self._position.epoch} epochs, {self._position.train_step} steps")

    def _check_fit(self, train_step: Any, val_step: Any, on_epoch_end: Any) -> None:
        check_hook("train_step", train_step, _STEP_ARGUMENTS)
        self._parts.check_ready("train")
        if val_step is not None:
            check_hook("val_step", val_step, _STEP_ARGUMENTS)
            self._parts.check_ready("val")
        if on_epoch_end is not None:
            check_hook("on_epoch_end", on_epoch_end, "trainer, ep")

    def _begin_fit(self) -> None:
        """Brings the run to its start, or to where a checkpoint left it."""
        self._checkpoints.tidy()
        if self._resumed is None and self.config.resume is not None:
            self._resume()
        self._streams.seed(derive_seed(self.config.seed, "fit", self.rank))
        self._unsaved = {}
        if self._resumed is None:
            self._records.clear()
            best = self._position.best  # of an earlier fit of this trainer, whose best checkpoint must not be lost
            self._position, self._epoch = Position(best=best), 0

    def _resume(self) -> None:
        if self.config.resume == "auto":
            found = self._checkpoints.newest()
            if found is not None:
                self._load(*found, weights_only=False)
        elif self.config.resume is not None:
            self.load_checkpoint(self.config.resume)

    def _continue_streams(self) -> None:
        """Puts the random streams where the resumed run had them, once its loader has been started."""
        if self._resumed is not None:
            self._streams.restore(self._resumed.trees["rng"])
            self._resumed = None

    def _progress(self, phase: str, ep: int, total: int | None, done: int = 0) -> Progress:
        self._loss = None
        self._bar_state.clear()
        title = f"Epoch {ep}/{self.config.epoch} {phase}" if ep else phase
        shown = self.is_local_main_process() and not self.config.disable_tqdm
        return show_progress(title, total, self._describe_state, done=done, shown=shown)

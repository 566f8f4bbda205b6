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
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ._assembly import check_hook
from ._config import TrainerConfig
from ._errors import ConfigError, SetupError
from ._metrics import as_number
from ._optim import windows
from ._persistence import Persistence
from ._progress import Progress, show_progress
from ._records import Records
from ._stopping import Stopped
from ._together import in_step, meet

__all__ = ["Trainer", "TrainerConfig"]

Step = Callable[[Any, Any, int, int], Any]
"""``step(trainer, bat, bat_idx, global_step)``; the loss, if it gives one, is shown in the bar."""

# What a plateau scheduler is told for NaN or inf. In one framework NaN would stay the best for ever, and inf minus a
# share of inf is NaN again; a number worse than any real one is a bad epoch in both.
_WORST = 3e38

# Records of validation come after those of training, whatever the number of batches.
_AFTER_TRAINING = 2**48

_SYNCHRONISED: AbstractContextManager[None] = nullcontext()

_STEP_ARGUMENTS = "trainer, bat, bat_idx, global_step"


class Trainer(Persistence):
    """Trains, validates, tests, saves and resumes, by a few hooks.

    Args:
        config: the settings.
        backend: the framework; ``dowdyboy_torch.Trainer`` and ``dowdyboy_paddle.Trainer`` bring theirs.
    """

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
            SetupError: something that the run needs was not set, a record that decides the best is missing, or another
                run is under way in ``out_dir``.
            CheckpointError: the last checkpoint could not be saved (everything else is done by then).
            SystemExit: SIGTERM (status 143), Ctrl-C (130) or another signal that stops a run came; the run is saved at
                the batch it had come to.
        """
        self._check_fit(train_step, val_step, on_epoch_end)
        self._interlude.check_fit()
        meet(self._backend.gather, self.rank, "fit")
        with self._stopping.listening(), in_step(self.world_size), self._alone(), self._parts.naming_workers():
            self._begin_fit()
            if self._position.epoch >= self.config.epoch:
                self.print(f"nothing is left to train: {self._position.epoch} of {self.config.epoch} epochs are done")
            try:
                for ep in range(self._position.epoch + 1, self.config.epoch + 1):
                    self._epoch, self._interlude.phase = ep, "between"
                    self._run_epoch(ep, train_step, val_step, on_epoch_end)
                self._metrics.settle()
            finally:
                self._loss = self._interlude.phase = None
                self._parts.close_loaders()
                self._metrics.close()
                self._resumed = None
                self._writer.wait()
            signum = self._stopping.at_end()  # after the last of what takes long, or a signal meanwhile would be lost
        self._check_saved()
        if signum is not None:
            raise Stopped(signum)

    def _run_epoch(
        self, ep: int, train_step: Step, val_step: Step | None, on_epoch_end: Callable[[Any, int], Any] | None
    ) -> None:
        self.print(f"======= epoch {ep}/{self.config.epoch} begin =======")
        self._parts.follow_trained()
        if self._position.val_batch is None:
            self._train(ep, train_step)
        if val_step is not None and ep % self.config.val_interval == 0:
            self._validate(ep, val_step)
        if self.config.auto_schedule:
            self._step_schedulers()
        self._records.gather()
        value = self._follow_value(ep)
        if on_epoch_end is not None:
            on_epoch_end(self, ep)
        self._position.end_epoch(ep)
        self._save_epoch(ep, value)
        self._records.clear()
        if self.config.auto_free:
            self._backend.free_memory()

    def _train(self, ep: int, train_step: Step) -> None:
        """Runs the training batches of an epoch, from where the run stands in it."""
        loader, position, backend = self._parts.loaders["train"], self._position, self._backend
        window = self.config.accumulate_steps
        self._parts.set_training(True)
        batches = loader.epoch(ep, position.batch)
        self._continue_streams()
        self._stopping.begin("train")
        self._interlude.phase = "train"
        with self._progress("train", ep, loader.count(), position.batch) as progress:
            for bat, closing in windows(batches, window, position.batch):
                self._records.position = position.batch * self.world_size + self.rank
                with _SYNCHRONISED if closing else backend.unsynchronised(self._parts.models):
                    self._loss = self._train_batch(train_step, bat, closing)
                position.batch += 1
                position.train_step += 1
                progress.advance()
                if closing:
                    self._save_within_epoch(ep, closing)
                    self._stop_if_asked(ep, self._stopping.after_batch("train"))
        self._interlude.phase = "between"
        backend.align_untrained(self._parts.models)

    def _train_batch(self, train_step: Step, bat: Any, closing: int) -> Any:
        """Runs one training batch, and steps if it closes an accumulation window of ``closing`` batches."""
        auto, stepper, position = self.config.auto_optimize, self._stepper, self._position
        if auto and position.batch % self.config.accumulate_steps == 0:
            self._zero_all()
        with self._backend.forward_context(True):
            loss = train_step(self, self._backend.to_device(bat), position.batch, position.train_step)
        if auto:
            if closing:
                self._stopping.ask("train")
            stepper.backward(loss)
            if closing:
                self._step_all(closing)
        stepper.scaler.update()
        return loss

    def _zero_all(self) -> None:
        for optimizer in self._parts.optimizers:
            self._backend.zero_grad(optimizer)

    def _step_all(self, batches: int) -> None:
        for optimizer in self._parts.optimizers:
            self._stepper.step(optimizer, batches)

    def _validate(self, ep: int, val_step: Step) -> None:
        """Runs the validation batches; back to training mode is the next epoch's business."""
        loader, position = self._parts.loaders["val"], self._position
        self._parts.set_training(False)
        done = position.val_batch = position.val_batch or 0
        batches = loader.epoch(ep, done)
        self._continue_streams()
        self._stopping.begin("val")
        self._interlude.phase = "val"
        with self._progress("val", ep, loader.count(), done) as progress:
            for bat_idx, bat in enumerate(batches, done):
                self._evaluate_batch(val_step, bat, bat_idx, position.val_step, progress)
                position.val_step += 1
                position.val_batch += 1
                self._stop_if_asked(ep, self._stopping.after_batch("val"))
            self._stop_if_asked(ep, self._stopping.after_all("val"))
        self._interlude.phase = "between"

    def _evaluate_batch(self, step: Step, bat: Any, bat_idx: int, global_step: int, progress: Progress) -> None:
        self._records.position = _AFTER_TRAINING + bat_idx * self.world_size + self.rank
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
        # Whatever a function of the user computes, all processes follow one value.
        value: float = self._backend.gather(self._best_value(ep))[0]
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
            self._position.end_epoch(ep)
            self._save_epoch(ep, None)  # so that the epoch is not lost
            raise SetupError(
                f"save_best_rec={name!r} is not among the records of epoch {ep}: {sorted(records)}. Record it with "
                f"set_records{', or name one of these' if records else ''}."
            )
        return self._backend.mean(records[name])

    def test(self, test_step: Step, on_test_end: Callable[[Any], Any] | None = None) -> None:
        """Runs over the test data in evaluation mode without gradients, with records of its own.

        A hook of ``fit`` may call it, and the run goes on as if it had not.

        Args:
            test_step: ``test_step(trainer, bat, bat_idx, global_step)``, both counting from 0 each time.
            on_test_end: ``on_test_end(trainer)``, with the records of the test at hand.

        Raises:
            ConfigError: a hook can't be called that way.
            SetupError: a loader or a model is missing, or a test is under way already.
        """
        check_hook("test_step", test_step, _STEP_ARGUMENTS)
        if on_test_end is not None:
            check_hook("on_test_end", on_test_end, "trainer")
        self._parts.check_ready("test")
        self._interlude.check_test(self._position.val_batch)
        meet(self._backend.gather, self.rank, "test")
        if self._interlude.phase is not None:  # then fit cares for what follows from an error, if the hook lets it out
            self._test(test_step, on_test_end)
            return
        with in_step(self.world_size), self._parts.naming_workers():
            try:
                self._test(test_step, on_test_end)
            finally:
                self._metrics.close()

    def _test(self, test_step: Step, on_test_end: Callable[[Any], Any] | None) -> None:
        """Runs a test, and leaves everything as it was."""
        loader, position = self._parts.loaders["test"], self._position
        before = self._records, self._loss, self._bar_state
        self._records, self._bar_state = Records(self._backend), {}
        try:
            with self._interlude.undisturbed((position.epoch, position.train_step, position.val_step)):
                self._parts.set_training(False)
                with self._progress("test", 0, loader.count()) as progress:
                    for bat_idx, bat in enumerate(loader.epoch(0)):
                        self._evaluate_batch(test_step, bat, bat_idx, bat_idx, progress)
                self._records.gather()
                if on_test_end is not None:
                    on_test_end(self)
        finally:
            loader.close()
            self._records, self._loss, self._bar_state = before

    def backward(self, loss: Any) -> None:
        """Adds the gradients of a loss, scaled as the precision needs it; for ``auto_optimize=False``."""
        self._stopping.ask("train")
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

    def _check_fit(self, train_step: Any, val_step: Any, on_epoch_end: Any) -> None:
        check_hook("train_step", train_step, _STEP_ARGUMENTS)
        self._parts.check_ready("train")
        if val_step is not None:
            check_hook("val_step", val_step, _STEP_ARGUMENTS)
            self._parts.check_ready("val")
        if on_epoch_end is not None:
            check_hook("on_epoch_end", on_epoch_end, "trainer, ep")

    def _progress(self, phase: str, ep: int, total: int | None, done: int = 0) -> Progress:
        self._loss = None
        self._bar_state.clear()
        title = f"Epoch {ep}/{self.config.epoch} {phase}" if ep else phase
        shown = self.is_main_process() and not self.config.disable_tqdm
        return show_progress(title, total, self._describe_state, done=done, shown=shown)

"""The Trainer: one loop for every framework, and the configuration it goes by.

Read ``fit`` and go down from there; each method stands below the one that calls it. Above it stands what hooks and
scripts talk to, each method handed on to the part of the run that it is about.

    for each epoch:                                   _run_epoch (_run/ending.py says which)
        on_epoch_begin
        for each training batch:                      _train
            zero_grad, train_step, backward, step       _train_batch (with auto_optimize)
            step the schedulers that go by steps        _run/schedules.py
            on_step_end
        for each validation batch:                    _validate (every val_interval epochs)
            val_step
        step the schedulers that go by epochs         _run/schedules.py
        gather the records, compute the best value    _run/following.py
        on_epoch_end
        save                                          _run/saver.py
        clear the records, free memory
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from ._config import TrainerConfig, check_names
from ._errors import ConfigError, SetupError
from ._exchange.pairing import Names
from ._run.assembly import check_hook
from ._run.closures import stepping_by_hand
from ._run.ending import Ending
from ._run.hooks import STEP_ARGUMENTS, Hooks
from ._run.interlude import Interlude
from ._run.losses import check_not_empty
from ._run.progress import Display, Progress
from ._run.records import Records
from ._run.replay import Replay
from ._run.rescue import Rescue
from ._run.run import Run, set_up
from ._run.samples import check_samples
from ._run.saver import Saver
from ._run.schedules import Schedules
from ._run.statistics import update_statistics
from ._run.stepping import windows
from ._run.values import check_point, kept_numbers
from .backend.seam import Backend
from .backend.signals import Stopped
from .backend.together import in_step, meet

__all__ = ["Trainer", "TrainerConfig"]

Step = Callable[[Any, Any, int, int], Any]
"""``step(trainer, bat, bat_idx, global_step)``; the loss, if it gives one, is shown in the bar."""

# Records of on_epoch_begin come before those of training, those of validation after, whatever the number of batches.
_BEFORE_TRAINING, _AFTER_TRAINING = -1, 2**48

_SYNCHRONISED: AbstractContextManager[None] = nullcontext()


class Trainer:
    """Trains, validates, tests, saves and resumes, by a few hooks.

    Args:
        config: the settings.
        backend: the framework; ``dowdyboy_torch.Trainer`` and ``dowdyboy_paddle.Trainer`` bring theirs.
    """

    def __init__(self, config: TrainerConfig, backend: Backend) -> None:
        self._run = run = set_up(config, backend)
        weakref.finalize(self, _close, run)  # which must not hold the trainer, or that would never end
        self.config = config
        self._backend = backend
        self._parts = run.parts
        self._position = run.position
        self._records = run.records  # but for a test's, while one runs
        self._stepper = run.stepper
        self._weighing = run.weighing
        self._averaging = run.averaging
        self._metrics = run.metrics
        self._stopping = run.stopping
        self._saver = Saver(run)
        self._rescue = Rescue(run, self._saver)
        self._following = run.following
        self._schedules = Schedules(config, backend, run.parts, run.warn)
        self._ending = Ending(run)
        self._interlude = Interlude(backend, run.parts, run.streams, config.seed)
        self._replay = Replay(run, self._interlude)
        self._display = Display(backend, shown=run.is_main and not config.disable_tqdm)

    # ---- what it is given

    def set_save_best_calc_func(self, func: Callable[[Any], Any]) -> None:
        """Has ``func(trainer)`` compute the value that decides which checkpoint is the best.

        Args:
            func: gets the trainer, whose ``get_records`` are those of all processes, and gives a number. Without it
                the value is the mean of the record ``save_best_rec``.
        """
        self._following.set_function(func)

    def set_train_dataloader(self, train_loader: Any) -> None:
        """Sets the data to train on: a DataLoader, or anything that can be iterated over again and again."""
        self._parts.set_loader("train", train_loader)

    def set_val_dataloader(self, val_loader: Any) -> None:
        """Sets the data to validate on."""
        self._parts.set_loader("val", val_loader)

    def set_test_dataloader(self, test_loader: Any) -> None:
        """Sets the data that ``test`` runs over."""
        self._parts.set_loader("test", test_loader)

    @property
    def train_dataloader(self) -> Any:
        """What was set to train on; None before."""
        return self._parts.given_loaders.get("train")

    @property
    def val_dataloader(self) -> Any:
        """What was set to validate on; None before."""
        return self._parts.given_loaders.get("val")

    @property
    def test_dataloader(self) -> Any:
        """What was set for ``test``; None before."""
        return self._parts.given_loaders.get("test")

    def set_model(self, model: Any) -> None:
        """Sets the model and moves it to the device."""
        self.set_models([model])

    def set_models(self, model_list: Sequence[Any]) -> None:
        """Sets the models and moves them to the device."""
        self._averaging.restart()
        self._parts.set_models(model_list)

    def get_models(self) -> list[Any]:
        """The models to compute with, wrapped for as many processes as there are."""
        return list(self._parts.models)

    def get_raw_models(self) -> list[Any]:
        """The models as they were given, without a wrapper."""
        return self._parts.raw_models()

    def get_ema_models(self) -> list[Any]:
        """Copies of the models, as they were given, with the average of the weights that ``ema_decay`` keeps."""
        return self._averaging.copies()

    def set_component(self, component: Any) -> None:
        """Sets the component: a module (or any object) without anything to train, such as a loss function."""
        self.set_components([component])

    def set_components(self, component_list: Sequence[Any]) -> None:
        """Sets the components; those that are modules move to the device."""
        self._parts.set_components(component_list)

    def get_components(self) -> list[Any]:
        """The components."""
        return list(self._parts.components)

    def set_optimizer(self, optimizer: Any, lr_scheduler: Any = None) -> None:
        """Sets the optimizer and its learning rate scheduler, if it has one."""
        self.set_optimizers([optimizer], [lr_scheduler])

    def set_optimizers(self, optimizer_list: Sequence[Any], lr_scheduler_list: Sequence[Any] | None = None) -> None:
        """Sets the optimizers and their learning rate schedulers, with None for those that have none."""
        self._parts.set_optimizers(optimizer_list, lr_scheduler_list)

    def get_optimizers(self) -> tuple[list[Any], list[Any]]:
        """The optimizers, and a list as long of their schedulers (None for those that have none)."""
        return list(self._parts.optimizers), list(self._parts.schedulers)

    # ---- what it tells

    @property
    def epoch(self) -> int:
        """The running epoch, from 1; 0 before the first."""
        return self._position.running

    @property
    def global_step(self) -> int:
        """Training steps that are done, over all epochs."""
        return self._position.train_step

    @property
    def resuming(self) -> bool:
        """Whether ``on_epoch_begin`` runs for an epoch that had begun before, at a resume; see ``fit``."""
        return self._replay.resuming

    @property
    def best(self) -> tuple[float, int] | None:
        """The best value of this run and its epoch, with ``save_best`` or ``early_stop``; None before there is one."""
        value, epoch = self._position.best, self._position.best_epoch
        return None if value is None or epoch is None else (value, epoch)

    @property
    def schedule_steps(self) -> int | None:
        """How many steps a scheduler gets in the whole fit, to make it with; None where nobody knows.

        That is where an epoch has no known length, and where hooks step (``auto_schedule=False``, or
        ``schedule_by='step'`` with ``auto_optimize=False``). Where ``schedule_by`` is a list, it is of one by steps.
        """
        return self._schedules.steps()

    @property
    def rank(self) -> int:
        """Number of this process among all processes."""
        return self._backend.rank

    @property
    def world_size(self) -> int:
        """How many processes train together."""
        return self._backend.world_size

    @property
    def precision(self) -> str:
        """The precision in force; ``'no'`` where the device can't do what ``mixed_precision`` asks."""
        return self._run.precision

    def device(self) -> Any:
        """The device that this process computes on."""
        return self._backend.device()

    def is_main_process(self) -> bool:
        """Whether this is the process that writes files and logs."""
        return self._backend.rank == 0

    def is_local_main_process(self) -> bool:
        """Whether this is the first process on its machine."""
        return self._backend.local_rank == 0

    # ---- what it writes down

    def print(self, txt: object) -> None:
        """Prints a line, and appends it to ``out_dir/{name}_run.log``; in the main process only."""
        if not self.resuming:
            self._run.tell(txt)

    def log(self, value_dict: Mapping[str, Any], step: int) -> None:
        """Adds one point to each named curve, in ``out_dir/metrics.jsonl`` and in the viewer.

        Args:
            value_dict: numbers or one-element tensors by name.
            step: where on the axis the points stand.
        """
        check_point(value_dict, step)
        if self._run.is_main and not self.resuming:
            self._metrics.write(kept_numbers(value_dict, self._backend), step, self._position.running)

    def set_records(self, value_dict: Mapping[str, Any], *, samples: bool = False) -> None:
        """Adds one value to each named record, without waiting for the device.

        Args:
            value_dict: numbers, bools, arrays or tensors by name; under one name always of one shape.
            samples: the first axis of each value counts samples, of which every batch may have another number.
        """
        if samples is False:
            self._records.add(value_dict)
        else:
            check_samples(samples)
            self._records.add_samples(value_dict)

    def get_records(self) -> dict[str, Any]:
        """The records of this epoch (or test) so far, those of all processes once it is over.

        Returns:
            For each name one tensor on the device, of shape (number of values, *shape of a value), or with
            ``samples=True`` (number of samples, *shape of a sample): int64 for integers, bool for bools, float32 for
            other numbers, float64 where a value had that type.
        """
        return dict(self._records.stacked())

    def set_bar_state(self, state_dict: Mapping[str, Any]) -> None:
        """Shows values beside the loss in the progress bar; read only when the bar is drawn."""
        self._display.add(state_dict)

    # ---- the loop

    def fit(
        self,
        train_step: Step,
        val_step: Step | None = None,
        on_epoch_end: Callable[[Any, int], Any] | None = None,
        *,
        on_epoch_begin: Callable[[Any, int], Any] | None = None,
        on_step_end: Callable[[Any, int], Any] | None = None,
    ) -> None:
        """Trains for ``config.epoch`` epochs, or for those that are left after ``load_checkpoint``.

        Args:
            train_step: ``train_step(trainer, bat, bat_idx, global_step)`` gives the loss of a batch, a tensor with one
                element, or ``(loss, weight)``, by which it counts in its window and among the processes. With
                ``auto_optimize=False`` it calls zero_grad, backward and step itself and may give nothing.
            val_step: ``val_step(trainer, bat, bat_idx, global_step)``, run in evaluation mode without gradients.
            on_epoch_end: ``on_epoch_end(trainer, ep)``, with the epoch's records at hand.
            on_epoch_begin: ``on_epoch_begin(trainer, ep)``, before the first batch of an epoch. At a resume it runs
                once more for each epoch that had begun, with ``trainer.resuming`` True, before the state is taken up.
            on_step_end: ``on_step_end(trainer, global_step)``, after each step of the optimizers and of the schedulers
                that go by steps, with the ``global_step`` that ``train_step`` had; with ``auto_optimize=False`` after
                each batch.

        Raises:
            ConfigError: a hook can't be called that way.
            SetupError: something that the run needs was not set, a record that decides the best is missing, or another
                run is under way in ``out_dir``.
            CheckpointError: the last checkpoint could not be saved (everything else is done by then).
            SystemExit: SIGTERM (status 143), Ctrl-C (130) or another signal that stops a run came, or the time of
                ``stop_after`` is up (75); the run is saved at the batch it had come to.
        """
        hooks = Hooks(train_step, val_step, on_epoch_end, on_epoch_begin, on_step_end)
        self._parts.check_ready("train")
        if val_step is not None:
            self._parts.check_ready("val")
        self._schedules.check()
        self._following.check()
        self._interlude.check_fit()
        meet(self._backend.gather, self.rank, "fit")
        with self._stopping.listening(), in_step(self.world_size), self._run.alone(), self._parts.naming_workers():
            begin = hooks.on_epoch_begin
            self._replay.begin(None if begin is None else lambda ep: self._begin_epoch(ep, begin))
            self._saver.begin(self._replay)
            self._run.losses.begin()
            self._weighing.begin()
            self._schedules.tell_lengths()
            self._parts.tell_generators()
            try:
                for ep in self._ending.epochs():
                    self._position.running, self._interlude.phase = ep, "between"
                    self._run_epoch(ep, hooks)
                self._metrics.settle()
            finally:
                self._display.loss = self._interlude.phase = None
                self._parts.close_loaders()
                self._metrics.close()
                self._saver.close()
            signum = self._stopping.at_end()  # after the last of what takes long, or a signal meanwhile would be lost
        self._saver.check()
        if signum is not None:
            raise Stopped(signum)

    def _run_epoch(self, ep: int, hooks: Hooks) -> None:
        self.print(f"======= epoch {ep}/{self.config.epoch} begin =======")
        self._replay.begin_epoch(ep, self._saver.resumed.continue_streams)
        self._parts.follow_trained()
        self._averaging.begin_epoch(resumed=not self._position.is_between_epochs())
        self._saver.trial.before_batches()
        if self._position.val_batch is None:
            self._train(ep, hooks.train_step, hooks.on_step_end)
        if hooks.val_step is not None and ep % self.config.val_interval == 0:
            with self._averaging.applied():
                self._validate(ep, hooks.val_step)
        self._schedules.step_epoch()
        self._records.gather()
        value = self._value(ep)
        self._saver.note_value(ep, value)
        self._ending.note(value)
        if hooks.on_epoch_end is not None:
            with self._rescue.ending(ep, value):
                hooks.on_epoch_end(self, ep)
        self._position.end_epoch(ep)
        self._saver.end_epoch(ep, value)
        self._records.clear()
        if self.config.auto_free:
            self._backend.free_memory()

    def _begin_epoch(self, ep: int, on_epoch_begin: Callable[[Any, int], Any]) -> None:
        """Calls the hook; where that is for the second time, with records that nobody gets."""
        before = self._records
        self._records = Records(self._backend) if self.resuming else before
        self._records.position = _BEFORE_TRAINING
        try:
            on_epoch_begin(self, ep)
        finally:
            self._records = before

    def _train(self, ep: int, train_step: Step, on_step_end: Callable[[Any, int], Any] | None) -> None:
        """Runs the training batches of an epoch, from where the run stands in it."""
        loader, position, losses = self._parts.loaders["train"], self._position, self._run.losses
        window, backend = self.config.accumulate_steps, self._backend
        self._parts.set_training(True)
        batches = loader.epoch(ep, position.batch)
        position.window_begins = True  # where a run goes on, too: no checkpoint has half a window
        self._saver.resumed.continue_streams()
        self._schedules.begin_epoch()
        self._stopping.begin("train")
        self._interlude.phase = "train"
        with self._show("train", ep, loader.count(), position.batch) as progress:
            for bat, closing in windows(batches, window):
                self._records.position = position.batch * self.world_size + self.rank
                with _SYNCHRONISED if closing else backend.unsynchronised(self._parts.models):
                    self._display.loss = self._train_batch(train_step, bat, closing)
                losses.note(self._weighing.seen(self._display.loss), closing)
                self._averaging.after_batch()
                position.batch += 1
                position.train_step += 1
                progress.advance()
                if closing:
                    if on_step_end is not None:
                        on_step_end(self, position.train_step - 1)
                    signum = self._stopping.after_batch("train")  # which also tells whether to save
                    self._saver.within_epoch(ep, closing)
                    self._saver.stop_if_asked(ep, signum)
                    if self._stopping.ends:
                        loader.leave()
                        break
        self._interlude.phase = "between"
        check_not_empty("train", ep, position.batch)
        losses.end_epoch(last=ep == self.config.epoch)
        self._averaging.end_training(ep)
        backend.align_untrained(self._parts.models)

    def _train_batch(self, train_step: Step, bat: Any, closing: int) -> Any:
        """Runs one training batch, and steps if it closes an accumulation window of ``closing`` batches."""
        auto, stepper, position, backend = self.config.auto_optimize, self._stepper, self._position, self._backend
        weighing = self._weighing
        if auto and position.window_begins:
            for optimizer in self._parts.optimizers:
                backend.zero_grad(optimizer)
        position.window_begins = bool(closing)
        with backend.forward_context(True):
            loss = train_step(self, backend.to_device(bat), position.batch, position.train_step)
        if auto:
            loss, weight = weighing.split(loss)
            if closing:
                self._stopping.ask("train")
            stepper.backward(loss) if weight is None else weighing.backward(loss, weight, closing)
            if closing:
                self._schedules.after([weighing.step(optimizer, closing) for optimizer in self._parts.optimizers])
        else:
            weighing.check_by_hand(loss)
            self._schedules.end_batch()
        stepper.scaler.update()
        return loss

    def _validate(self, ep: int, val_step: Step) -> None:
        """Runs the validation batches; back to training mode is the next epoch's business."""
        loader, position = self._parts.loaders["val"], self._position
        self._parts.set_training(False)
        done = position.val_batch = position.val_batch or 0
        batches = loader.epoch(ep, done)
        self._saver.resumed.continue_streams()
        self._stopping.begin("val")
        self._interlude.phase = "val"
        with self._show("val", ep, loader.count(), done) as progress, self._rescue.validation(ep):
            for bat_idx, bat in enumerate(batches, done):
                self._evaluate_batch(val_step, bat, bat_idx, position.val_step, progress)
                position.val_step += 1
                position.val_batch += 1
                self._saver.stop_if_asked(ep, self._stopping.after_batch("val"))
            self._saver.stop_if_asked(ep, self._stopping.after_all("val"))
            # One may have had a batch less; a checkpoint has one count for all.
            position.val_step += self._backend.largest([position.val_batch])[0] - position.val_batch
            if self.world_size == 1:  # of several one may have none
                check_not_empty("val", ep, position.val_batch)
        self._interlude.phase = "between"

    def _evaluate_batch(self, step: Step, bat: Any, bat_idx: int, global_step: int, progress: Progress) -> None:
        self._records.position = _AFTER_TRAINING + bat_idx * self.world_size + self.rank
        with self._backend.forward_context(False):
            self._display.loss = step(self, self._backend.to_device(bat), bat_idx, global_step)
        progress.advance()

    def _value(self, ep: int) -> float | None:
        """The value that decides the best, by which plateau schedulers are stepped; None if this epoch has none."""
        if not self._following.wants_value(ep):
            return None
        self._rescue.refuse(ep, self._following.problem(self._records, ep))
        with self._rescue.ending(ep), self._averaging.applied():
            return self._following.value(self, self._records)

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
        check_hook("test_step", test_step, STEP_ARGUMENTS)
        if on_test_end is not None:
            check_hook("on_test_end", on_test_end, "trainer")
        if self.resuming:
            return
        self._parts.check_ready("test")
        self._saver.resumed.check_in_place("test")
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
        loader, position, before = self._parts.loaders["test"], self._position, self._records
        place = position.epoch, position.train_step, position.val_step
        self._records = Records(self._backend)
        try:
            with self._interlude.undisturbed(place), self._averaging.applied(), self._display.apart():
                self._parts.set_training(False)
                with self._show("test", 0, loader.count()) as progress:
                    for bat_idx, bat in enumerate(loader.epoch(0)):
                        self._evaluate_batch(test_step, bat, bat_idx, bat_idx, progress)
                self._records.gather()
                if on_test_end is not None:
                    on_test_end(self)
        finally:
            loader.close()
            self._records = before

    # ---- what hooks may do by themselves, and what is done between runs

    def stop(self) -> None:
        """Ends the running ``fit`` in order; for hooks, in any one of several processes.

        From ``on_epoch_end``, validation and the function of the best value it ends with this epoch, else when the
        accumulation window is over: then this epoch is cut short, and ends as every epoch does, with validation,
        schedulers, records, ``on_epoch_end`` and checkpoints. Several processes do so at the next place at which they
        ask one another. What resumes the run goes on with the next epoch.

        Raises:
            SetupError: no fit is under way.
        """
        if self._interlude.phase is None:
            raise SetupError("stop was called where no fit is under way. Call it in a hook of fit.")
        if not self.resuming:
            self._stopping.request()

    def backward(self, loss: Any) -> None:
        """Adds the gradients of a loss, scaled as the precision needs it; for ``auto_optimize=False``."""
        self._stopping.ask("train")
        self._stepper.backward(loss)

    def zero_grad(self, optimizer: Any) -> None:
        """Clears the gradients of an optimizer's parameters; for ``auto_optimize=False``."""
        self._stepper.zero_grad(optimizer)

    def unscale(self, optimizer: Any) -> None:
        """Takes the loss scale of fp16 out of an optimizer's gradients before ``step``; a second call does nothing.

        Raises:
            ConfigError: with ``auto_optimize=True``.
            SetupError: backward has run since the first call, and added scaled gradients.
        """
        if self.config.auto_optimize:
            raise ConfigError("unscale was called with auto_optimize=True, which unscales by itself. Leave it out.")
        self._stepper.unscale(optimizer)

    def step(
        self, optimizer: Any = None, lr_scheduler: Any = None, *, closure: Callable[[], Any] | None = None
    ) -> None:
        """Steps an optimizer, a scheduler or both; for ``auto_optimize=False`` and ``auto_schedule=False``.

        An optimizer whose gradients overflowed in fp16 skips its step, and then so does the scheduler given with it.

        Args:
            optimizer: the optimizer.
            lr_scheduler: the scheduler.
            closure: for LBFGS and its kind: clears the gradients, calls ``trainer.backward(loss)`` and gives the loss.

        Raises:
            ConfigError: neither is given, the scheduler follows a value, or the closure can't be or has to be given.
            UnsupportedError: a closure in one of several processes.
        """
        step = stepping_by_hand(self.config, self._backend, self._stepper, optimizer, closure)
        self._schedules.step_by_hand(optimizer, lr_scheduler, step)

    def load_checkpoint(
        self,
        checkpoint_dir: str | os.PathLike[str],
        *,
        weights_only: bool = False,
        ema: bool = False,
        names: Names = None,
    ) -> None:
        """Takes up what a checkpoint holds; the next ``fit`` goes on where the saved one stopped.

        Args:
            checkpoint_dir: the folder of one checkpoint.
            weights_only: take the weights of the models and components alone, and start a run of its own from them.
            ema: take the average of the weights that ``ema_decay`` keeps in their place; with ``weights_only``.
            names: beginnings of paths in its models, and what they are here; or a function from path to path.

        Raises:
            ConfigError: ``ema`` without ``weights_only``, or ``names`` is neither.
            CheckpointError: it is missing, damaged, or doesn't fit the models and optimizers that were set.
        """
        if not self.resuming:
            check_names("names", names)
            self._saver.load(Path(checkpoint_dir), weights_only=weights_only, average=ema, names=names)

    def update_bn(self, loader: Any, step: Callable[[Any, Any], Any] | None = None) -> None:
        """Computes the statistics of BatchNorm anew, for the average of the weights if there is one.

        Args:
            loader: the data; each process goes through all of it.
            step: ``step(trainer, bat)`` calls the models; without it the one model gets the batch, or its first item.

        Raises:
            SetupError: there is no model, several without ``step``, no batch, or it is called amid batches.
        """
        if not self.resuming:
            update_statistics(self, loader, step, self._run, self._interlude.phase)

    def save_checkpoint(self, label: str) -> None:
        """Saves the run as ``checkpoint/chk_{label}_step_N``, with N training steps, beside its other checkpoints.

        From a hook of ``fit`` this is done where the run can next be saved, outside at once, in all processes together.
        A label, such as ``'before_decay'``, has letters, digits, ``_``, ``-`` and ``.``.

        Raises:
            ConfigError, SetupError, CheckpointError: it is no label, or can't be saved at once.
        """
        if not self.resuming and self._saver.requests.add(label) and self._interlude.phase is None:
            self._saver.save_now()

    def wait_for_checkpoint(self) -> None:
        """Waits until the checkpoint under way, which is written beside the training, is on the disk."""
        self._saver.wait()

    def _show(self, phase: str, ep: int, total: int | None, done: int = 0) -> Progress:
        return self._display.begin(f"Epoch {ep}/{self.config.epoch} {phase}" if ep else phase, total, done)


def _close(run: Run) -> None:
    run.metrics.close()
    run.messages.close()

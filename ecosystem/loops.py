"""A run by the trainer and the same by hand, for either framework."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .frameworks import Framework, framework_named

EPOCHS = 3
SEED = 1024

Action = Callable[[], None]


@dataclass
class Parts:
    """What a user brings, and where in a loop it wants to be called.

    Attributes:
        model: the model.
        optimizer: its optimizer, or a list of several.
        loader: the training data.
        loss: ``loss(model, batch)`` gives the loss of a batch.
        scheduler: steps once an epoch, or after each step of the optimizer with ``by_step``; a list for several.
        by_step: the loop steps optimizer and scheduler itself, and then calls ``after_step``.
        val_loader: the validation data.
        components: what else the trainer keeps.
        before_batch: called before each training batch.
        after_step: called after each step of the optimizer, with ``by_step``.
        before_val_batch: called before each validation batch.
        after_epoch: called with the number of the epoch when it is over; a number that it gives has to be equal, too.
        train_batch_by_hand: what a loop by hand does in place of forward, backward and step; gives the loss.
        more: gives further tensors and numbers that have to be equal at the end, by name.
        told_of_scheduler: whether the trainer is given the scheduler, too.
        saved_as: the module whose names a checkpoint has to have, where the model wraps it.
    """

    model: Any
    optimizer: Any
    loader: Any
    loss: Callable[[Any, Any], Any]
    scheduler: Any = None
    by_step: bool = False
    val_loader: Any = None
    components: list[Any] = field(default_factory=list)
    before_batch: Action | None = None
    after_step: Action | None = None
    before_val_batch: Action | None = None
    after_epoch: Callable[[int], float | None] | None = None
    train_batch_by_hand: Callable[[Any], float] | None = None
    more: Callable[[], dict[str, Any]] | None = None
    told_of_scheduler: bool = True
    saved_as: Any = None

    def optimizers(self) -> list[Any]:
        """The optimizers."""
        return list(self.optimizer) if isinstance(self.optimizer, list) else [self.optimizer]

    def schedulers(self) -> list[Any]:
        """Their schedulers, place by place."""
        given = self.scheduler if isinstance(self.scheduler, list) else [self.scheduler]
        return [*given, *[None] * (len(self.optimizers()) - len(given))]


class Run(NamedTuple):
    """What both loops are told."""

    framework: str
    build: Callable[[], Parts]
    settings: dict[str, Any]
    processes: int


class Kill(NamedTuple):
    """Where a run is killed: before it computes training step ``number``, or in ``on_epoch_end`` of that epoch."""

    place: str
    number: int


class Journal:
    """Losses and learning rates, a line each, written at once so that a killed run leaves them."""

    def __init__(self, folder: Path, framework: Framework) -> None:
        self._path = folder / "journal.jsonl"
        self._framework = framework
        self._first = True

    def note(self, kind: str, step: int, loss: Any, optimizers: list[Any]) -> None:
        """Notes a step."""
        line = {
            "kind": kind,
            "step": step,
            "loss": loss if isinstance(loss, float) else self._framework.number(loss),
            "lr": [self._framework.learning_rate(optimizer) for optimizer in optimizers],
            "first": self._first,
        }
        self._first = False
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def read_steps(folder: Path, *, first_of_lives: bool = False) -> list[dict[str, Any]]:
    """The steps of a run in order, each as it was computed last; or the first training step of each life."""
    path = folder / "journal.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if first_of_lives:
        return [line for line in lines if line["first"] and line["kind"] == "train"]
    found = {(line["kind"], line["step"]): {name: line[name] for name in line if name != "first"} for line in lines}
    return [found[key] for key in sorted(found)]


def _write_weights(folder: Path, framework: Framework, parts: Parts, model: Any) -> None:
    named = {f"model/{name}": value for name, value in framework.weights(model).items()}
    modules = [item for item in parts.components if framework.is_module(item)]
    for number, component in enumerate(modules):
        named |= {f"component {number}/{name}": value for name, value in framework.weights(component).items()}
    if parts.more is not None:
        named |= {f"more/{name}": framework.array(value) for name, value in parts.more().items()}
    with (folder / "weights.npz").open("wb") as file:
        np.savez(file, **{str(number): named[name] for number, name in enumerate(named)})
    (folder / "names.json").write_text(json.dumps(list(named)))


def read_weights(folder: Path) -> dict[str, Any]:
    """The state of the model and of all else, by name."""
    with np.load(folder / "weights.npz") as stored:
        return {
            name: stored[str(number)] for number, name in enumerate(json.loads((folder / "names.json").read_text()))
        }


def _call(action: Action | None) -> None:
    if action is not None:
        action()


# ------------------------------------------------------------------------------------------------- the trainer


def by_trainer(run: Run, folder: Path, kill: Kill | None = None) -> None:
    """Trains by the trainer, going on from what a life before has left in ``folder``."""
    framework = framework_named(run.framework)
    settings: dict[str, Any] = {
        "out_dir": str(folder),
        "epoch": EPOCHS,
        "seed": SEED,
        "cpu": True,
        "disable_tqdm": True,
        "log_with": "none",
        "save_steps": 1,
        "save_interval": EPOCHS,
        "resume": "auto",
    }
    trainer = framework.trainer(settings | run.settings)
    parts = run.build()
    assert parts.by_step != trainer.config.auto_optimize, "a case with by_step=True needs auto_optimize=False"
    journal = Journal(folder, framework)

    def stop_at(place: str, number: int) -> None:
        if kill == (place, number):
            trainer.wait_for_checkpoint()
            framework.meet(run.processes)
            os.kill(os.getpid(), signal.SIGKILL)

    def train_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        stop_at("batch", global_step)
        [model] = trainer.get_models()
        _call(parts.before_batch)
        if parts.by_step:
            for optimizer in parts.optimizers():
                trainer.zero_grad(optimizer)
        loss = parts.loss(model, bat)
        if trainer.is_main_process():
            journal.note("train", global_step, loss, parts.optimizers())
        trainer.log({"loss": loss}, global_step)
        if parts.by_step:
            trainer.backward(loss)
            for optimizer, scheduler in zip(*trainer.get_optimizers(), strict=True):
                trainer.step(optimizer, scheduler)
            _call(parts.after_step)
        return loss

    def val_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        _call(parts.before_val_batch)
        loss = parts.loss(trainer.get_models()[0], bat)
        if trainer.is_main_process():
            journal.note("val", global_step, loss, parts.optimizers())
        trainer.log({"val_loss": loss}, global_step)
        trainer.set_records({"val_loss": loss})
        return loss

    def on_epoch_end(trainer: Any, ep: int) -> None:
        stop_at("end", ep)
        value = None if parts.after_epoch is None else parts.after_epoch(ep)
        if value is not None and trainer.is_main_process():
            journal.note("epoch", ep, value, parts.optimizers())

    trainer.set_train_dataloader(parts.loader)
    trainer.set_model(parts.model)
    if parts.components:
        trainer.set_components(parts.components)
    trainer.set_optimizers(parts.optimizers(), parts.schedulers() if parts.told_of_scheduler else None)
    if parts.val_loader is not None:
        trainer.set_val_dataloader(parts.val_loader)
    trainer.fit(train_step, None if parts.val_loader is None else val_step, on_epoch_end)
    if trainer.is_main_process():
        _write_weights(folder, framework, parts, trainer.get_raw_models()[0])
        if parts.saved_as is not None:
            wanted = sorted(framework.weights(parts.saved_as))
            (folder / "wanted.json").write_text(json.dumps(wanted))
    framework.meet(run.processes)


# ----------------------------------------------------------------------------------------------------- by hand


def by_hand(run: Run, folder: Path) -> None:
    """Trains by a loop as one writes it by hand; several processes are one that averages over their batches."""
    framework = framework_named(run.framework)
    framework.seed(SEED)
    parts = run.build()
    framework.seed_fit(SEED)
    journal = Journal(folder, framework)
    loop = _ByHand(run, framework, parts, journal)
    for epoch in range(1, EPOCHS + 1):
        loop.train(epoch)
        values = loop.validate(epoch)
        for scheduler in parts.schedulers():
            if scheduler is not None and not parts.by_step:
                framework.step_scheduler(scheduler, values)
        value = None if parts.after_epoch is None else parts.after_epoch(epoch)
        if value is not None:
            journal.note("epoch", epoch, value, parts.optimizers())
    _write_weights(folder, framework, parts, parts.model)


class _ByHand:
    def __init__(self, run: Run, framework: Framework, parts: Parts, journal: Journal) -> None:
        self._processes = run.processes
        self._window = run.settings.get("accumulate_steps", 1) * run.processes
        self._clip = run.settings.get("clip_grad_norm")
        self._precision = run.settings.get("mixed_precision", "no")
        self._framework, self._parts, self._journal = framework, parts, journal
        self._step = self._val_step = 0

    def train(self, epoch: int) -> None:
        """The training batches of an epoch."""
        parts = self._parts
        self._framework.train(parts.model)
        batches = list(self._framework.batches(parts.loader, SEED, "train", epoch))
        for number, bat in enumerate(batches):
            _call(parts.before_batch)
            done = number % self._window
            size = min(self._window, len(batches) - (number - done))  # a last window is averaged over what it has
            loss = parts.train_batch_by_hand(bat) if parts.train_batch_by_hand else self._backward(bat, done, size)
            if number % self._processes == 0:
                self._journal.note("train", self._step, loss, parts.optimizers())
                self._step += 1
            if done + 1 == size and not parts.train_batch_by_hand:
                self._update()

    def _backward(self, bat: Any, done: int, size: int) -> Any:
        """Adds the gradients of a batch, number ``done`` of ``size``, to those of its window."""
        if not done:
            for optimizer in self._parts.optimizers():
                self._framework.zero_grad(optimizer)
        with self._framework.autocast(self._precision):
            loss = self._parts.loss(self._parts.model, bat)
        (loss if size == 1 else loss / size).backward()
        return loss

    def _update(self) -> None:
        if self._clip is not None:
            self._framework.clip(self._parts.model, self._clip)
        for optimizer, scheduler in zip(self._parts.optimizers(), self._parts.schedulers(), strict=True):
            optimizer.step()
            if self._parts.by_step and scheduler is not None:
                scheduler.step()
        _call(self._parts.after_step)

    def validate(self, epoch: int) -> list[float]:
        """The validation batches of an epoch; gives their losses."""
        parts, values = self._parts, []
        if parts.val_loader is None:
            return []
        self._framework.evaluate(parts.model)
        for number, bat in enumerate(self._framework.batches(parts.val_loader, SEED, "val", epoch)):
            _call(parts.before_val_batch)
            with self._framework.no_grad(), self._framework.autocast(self._precision):
                loss = parts.loss(parts.model, bat)
            if number % self._processes == 0:
                self._journal.note("val", self._val_step, loss, parts.optimizers())
                self._val_step += 1
            values.append(self._framework.number(loss))
        return values

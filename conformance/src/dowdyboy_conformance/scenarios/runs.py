"""What each of several processes does, where the question is how a run goes: schedules, files, checkpoints, errors."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from dowdyboy_conformance._data import Augmented
from dowdyboy_conformance._inside import inside
from dowdyboy_conformance._problem import Run, build, config
from dowdyboy_conformance._resuming import Place, go, read_index, start
from dowdyboy_conformance.harnesses.harness import Harness

from .numbers import state, take_branches

_stopping = inside("_run.stopping")

# Validation losses of three batches, for each epoch. The means fall, rise, rise, fall; those of the first and of the
# second process's batches alone tell another story.
VALUES = [[3.0, 3.0, 3.0], [1.0, 9.0, 1.0], [4.0, 4.0, 4.0], [4.0, 0.5, 4.0]]


def schedules(harness: Harness, out_dir: Path) -> Any:
    """Learning rates with validation losses that are given."""
    found = {}
    for schedule in ("step", "plateau"):
        settings: dict[str, Any] = {"epoch": 4, "schedule": schedule, "save_best": True, "enable_save_checkpoint": True}
        run = build(harness, out_dir / schedule, **settings)
        run.trainer.set_val_dataloader(harness.loader(harness.dataset(np.arange(3)), 1))

        def val_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
            trainer.set_records({"val_loss": VALUES[trainer.epoch - 1][int(harness.numpy(bat[0])[0])]})

        rates: list[float] = []
        end = lambda trainer, ep, run=run, rates=rates: rates.append(harness.learning_rate(run.optimizer))  # noqa: E731
        run.trainer.fit(run.train_step, val_step, end)
        found[schedule] = rates
    return found


def own_values(harness: Harness, out_dir: Path) -> Any:
    """Learning rates where the function of the best value gives each process another number."""
    run = build(harness, out_dir, epoch=3, schedule="plateau", save_best=True, enable_save_checkpoint=True)
    run.trainer.set_save_best_calc_func(lambda trainer: trainer.epoch * (1.0 if trainer.rank else -1.0))
    rates: list[float] = []
    run.fit(on_epoch_end=lambda trainer, ep: rates.append(harness.learning_rate(run.optimizer)))
    return rates


def files(harness: Harness, out_dir: Path) -> Any:
    """A run that prints, logs and saves in every process; gives what this one printed."""
    run = build(harness, out_dir, log_with="auto", enable_save_checkpoint=True, epoch=2, samples=24)

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        trainer.log({"rank": trainer.rank}, global_step)
        return run.train_step(trainer, bat, bat_idx, global_step)

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        run.trainer.print(f"printed by {run.trainer.rank}")
        run.trainer.fit(step, run.val_step)
        run.trainer.test(run.val_step)
    return printed.getvalue()


def buffers(harness: Harness, out_dir: Path) -> Any:
    """The statistics of BatchNorm as validation sees them, and at the end."""
    run = build(harness, out_dir, batch_norm=True, samples=24)
    seen: list[Any] = []

    def val_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        if not bat_idx:
            seen.append(state(harness, run.model))
        return run.val_step(trainer, bat, bat_idx, global_step)

    run.trainer.fit(run.train_step, val_step)
    return [*seen, state(harness, run.model)]


def divergence(harness: Harness, out_dir: Path) -> Any:
    """The error where the last process changes a weight by itself."""
    run = build(harness, out_dir, epoch=3, enable_save_checkpoint=True)

    def end(trainer: Any, ep: int) -> None:
        if ep == 2 and trainer.rank == trainer.world_size - 1:
            harness.overwrite(dict(harness.native_parameters(run.model))["fc1.bias"], 5.0)

    return error_of(lambda: run.fit(on_epoch_end=end))


def exchanges(harness: Harness, out_dir: Path) -> Any:
    """How often a run exchanges anything but gradients: with few batches and names, more batches, more names.

    Not counted is what the processes ask one another about signals, since that follows the clock.
    """
    found = []
    for batches, names in [(6, 1), (24, 1), (6, 20)]:
        run = build(harness, out_dir / f"{batches}_{names}", samples=batches * 4, epoch=2)
        calls = _counted(run.trainer)

        def step(trainer: Any, bat: Any, bat_idx: int, global_step: int, run: Run = run, names: int = names) -> Any:
            trainer.set_records({f"record {number}": number for number in range(names)})
            return run.train_step(trainer, bat, bat_idx, global_step)

        run.trainer.fit(step, run.val_step)
        found.append(len(calls))
    return found


def _counted(trainer: Any) -> list[Any]:
    """What a trainer's backend gathers from here on."""
    calls: list[Any] = []
    backend, stopping = trainer._backend, trainer._stopping
    gather, largest = backend.gather, stopping._largest

    def counted(value: Any) -> Any:
        calls.append(value)
        return gather(value)

    def uncounted(numbers: Any) -> Any:
        backend.gather = gather  # which is behind it where the backend has nothing quicker
        try:
            return largest(numbers)
        finally:
            backend.gather = counted

    backend.gather, stopping._largest = counted, uncounted
    return calls


def error_of(action: Any) -> list[str] | None:
    """The kind and the text of the error that an action raises; None if it raises none."""
    try:
        action()
    except Exception as error:
        return [type(error).__name__, str(error)]
    return None


class Stopped(Exception):
    """Ends a run early, in all processes."""


def resuming(harness: Harness, out_dir: Path) -> Any:
    """A run with dropout and shuffling, whole and stopped within an epoch and resumed; with windows as well."""
    found = {}
    for name, settings in RESUMED.items():
        _random_run(harness, out_dir / name / "whole", **settings)
        with contextlib.suppress(Stopped):
            _random_run(harness, out_dir / name / "parts", stop_at=9, **settings)
        parts = _random_run(harness, out_dir / name / "parts", resume="auto", **settings)
        found[name] = {"state": state(harness, parts.model), "steps": parts.trainer.global_step}
    return found


# Step 9 is in the midst of a window with one process or two; with three it is a shorter one by itself.
RESUMED: dict[str, dict[str, Any]] = {"plain": {}, "windows": {"accumulate_steps": 4, "save_steps": 1}}


def _random_run(harness: Harness, out_dir: Path, stop_at: int | None = None, **settings: Any) -> Run:
    common: dict[str, Any] = {"shuffle": True, "dropout": 0.3, "optimizer": "momentum", "epoch": 3, "save_steps": 2}
    settings = {**common, "samples": 52, "dataset": Augmented(harness, 52), "enable_save_checkpoint": True, **settings}
    run = build(harness, out_dir, **settings)

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        if global_step == stop_at:
            raise Stopped
        loss = run.train_step(trainer, bat, bat_idx, global_step)
        trainer.log({"loss": loss}, global_step)
        return loss

    run.trainer.fit(step, run.val_step)
    return run


PLACES = {"train": Place("train", 2, 1), "val": Place("val", 2, 0)}


def stopping(harness: Harness, out_dir: Path) -> Any:
    """Runs of which one process gets a signal, and that go on; where each stood and what it ended with."""
    period, _stopping.PERIOD = _stopping.PERIOD, 0.0  # they ask one another after each batch
    try:
        shared: dict[str, Any] = {"samples": 28, "dataset": Augmented(harness, 28)}
        go(start(harness, out_dir / "whole", **shared))
        seen = {}
        for name, place in PLACES.items():
            run = start(harness, out_dir / name, **shared)
            last = run.trainer.rank == run.trainer.world_size - 1
            try:
                go(run, signal_at=place if last else None)
            except SystemExit as error:
                index = read_index(out_dir / name / "checkpoint" / "last_epoch_2")
                seen[name] = [error.code, index["epoch"], index["batch"], index["val_batch"]]
            run = start(harness, out_dir / name, resume="auto", **shared)
            go(run)
        return seen
    finally:
        _stopping.PERIOD = period


def signalled(spec: str, out_dir: str) -> None:
    """A process of a job of which the last gets a signal."""
    from dowdyboy_conformance._together import load

    run = start(load(spec)(), Path(out_dir), epoch=500)
    go(run, signal_at=Place("train", 2, 0) if run.trainer.rank == run.trainer.world_size - 1 else None)


def elsewhere(harness: Harness, out_dir: Path) -> Any:
    """A checkpoint within an epoch, and a run that goes on from that of one process fewer, twice."""
    with contextlib.suppress(Stopped):
        _random_run(harness, out_dir / "own", stop_at=3)
    trainer = build(harness, out_dir / "reader").trainer
    before = out_dir.parents[1] / str(trainer.world_size - 1) / out_dir.name / "own" / "checkpoint"
    if not before.is_dir():
        return None
    [folder] = before.glob("last_epoch_*")
    reader = build(harness, out_dir / "reader")
    reader.trainer.load_checkpoint(folder, weights_only=True)
    loaded = {name: array.tolist() for name, array in reader.parameters().items()}
    return {"loaded": loaded, "ends": [go_on(harness, out_dir / name, folder) for name in ("once", "again")]}


def go_on(harness: Harness, out_dir: Path, checkpoint: Path) -> Any:
    """How the model stands at the end of a run that goes on from a checkpoint of another number of processes."""
    return state(harness, _random_run(harness, out_dir, resume=str(checkpoint)).model)


def own_disks(harness: Harness, out_dir: Path) -> Any:
    """The errors where another process than the first finds no checkpoint in the same place, and another one."""
    rank = harness.make_trainer(config(out_dir / "none")).rank
    disk = out_dir / f"disk_{rank}"
    disk.mkdir(parents=True)
    home = Path.cwd()
    os.chdir(disk)  # one path, and another folder for each process, as on machines that share no disk
    try:
        settings: dict[str, Any] = {"epoch": 2, "enable_save_checkpoint": True}
        build(harness, Path("run"), **settings).fit()
        errors = [error_of(lambda: build(harness, Path("run"), resume="auto", **settings).fit())]
        if rank:
            shutil.copytree(out_dir / "disk_0/run/checkpoint/epoch_1", "run/checkpoint/last_epoch_2")
        errors.append(error_of(lambda: build(harness, Path("run"), resume="auto", **settings).fit()))
    finally:
        os.chdir(home)
    return errors


def in_use(harness: Harness, out_dir: Path) -> Any:
    """The error where the first process finds the folder in use, and the epoch that is trained once it is free."""
    run = build(harness, out_dir)
    other = inside("_disk.lock").RunLock(out_dir, print)
    if run.trainer.rank == 0:
        other.take()
    kind, text = error_of(run.fit) or ["", ""]
    other.release()
    run.fit()
    return kind, text, run.trainer.epoch


def skipped_branch(spec: str, out_dir: str, every: int) -> None:
    """A process of a job that skips a branch which another takes, without ``find_unused_parameters``."""
    from dowdyboy_conformance._together import load

    run = build(load(spec)(), Path(out_dir), samples=28, enable_save_checkpoint=True)
    take_branches(run, every)
    run.fit(val=False)


def failing(spec: str, out_dir: str) -> None:
    """A process of a job whose last process raises in the middle of training."""
    from dowdyboy_conformance._together import load

    run = build(load(spec)(), Path(out_dir), samples=28, epoch=50)

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        if global_step == 3 and trainer.rank == trainer.world_size - 1:
            raise ArithmeticError("raised on purpose")
        return run.train_step(trainer, bat, bat_idx, global_step)

    run.trainer.fit(step)


def hang(spec: str, out_dir: str, processes: int) -> None:
    """Begins a job that hangs."""
    from dowdyboy_conformance._together import load
    from dowdyboy_conformance._together import start as begin

    begin(load(spec)(), processes, hang_together, out_dir)


def hang_together(spec: str, out_dir: str) -> None:
    """A process of a job that hangs: in native code, and the first of several in waiting for the others."""
    from dowdyboy_conformance._together import load

    harness: Harness = load(spec)()
    run = build(harness, Path(out_dir) / "run", dataset=Augmented(harness, 24), samples=24, workers=1)

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        if bat_idx:
            Path(out_dir, f"hangs_{trainer.rank}").touch()
            if trainer.rank or trainer.world_size == 1:
                lock = ctypes.create_string_buffer(64)
                for _ in range(2):
                    ctypes.CDLL(None).pthread_mutex_lock(lock)
            trainer._backend.barrier()
        return run.train_step(trainer, bat, bat_idx, global_step)

    run.trainer.fit(step)

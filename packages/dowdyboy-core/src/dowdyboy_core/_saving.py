"""From a run to a snapshot of it and back."""

from __future__ import annotations

import platform
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._assembly import Assembly
from ._backend import Backend
from ._checkpoint import Snapshot, numbered
from ._errors import CheckpointError, SetupError
from ._optim import LossScaler
from ._records import Records
from ._rng import RandomStreams
from ._state import describe_differences
from ._version import __version__


@dataclass
class Position:
    """How far a run has come.

    Attributes:
        epoch: epochs that are over.
        batch: training batches that are done of the next epoch, in this process.
        train_step: training steps so far.
        val_step: validation steps so far.
        best: the best value so far, None before there was one.
        best_epoch: the epoch that it is of.
        val_batch: validation batches that are done of the next epoch, in this process; None while it trains.
    """

    epoch: int = 0
    batch: int = 0
    val_batch: int | None = None
    train_step: int = 0
    val_step: int = 0
    best: float | None = None
    best_epoch: int | None = None

    def end_epoch(self, epoch: int) -> None:
        """Notes that an epoch is over."""
        self.epoch, self.batch, self.val_batch = epoch, 0, None


def take_snapshot(
    backend: Backend,
    parts: Assembly,
    position: Position,
    scaler: LossScaler,
    streams: RandomStreams,
    records: Records,
    about: dict[str, Any],
) -> Snapshot:
    """Copies all that a run needs to go on from here."""
    index = {
        "dowdyboy": __version__,
        "backend": backend.name,
        "backend_version": backend.version,
        "python": platform.python_version(),
        "world_size": backend.world_size,
        **vars(position),
        **about,
    }
    snapshot = Snapshot(index)
    snapshot.trees["rng"] = backend.gather(streams.capture())
    snapshot.trees["records"] = records.state() if position.batch else {}
    check_equal_weights(backend, parts)
    if backend.rank != 0:  # it takes part in the above, and writes nothing
        return snapshot
    for number, model in enumerate(parts.raw_models()):
        snapshot.weights[f"model_{number}"] = backend.model_state(model)
    for number, component in parts.modules_of_components().items():
        buffers = backend.model_state(component)
        if buffers:
            snapshot.weights[f"component_{number}"] = buffers
    names = parts.parameter_names()
    for number, (optimizer, scheduler) in enumerate(zip(parts.optimizers, parts.schedulers, strict=True)):
        snapshot.trees[f"optimizer_{number}"] = backend.optimizer_state(optimizer, names)
        state = None if scheduler is None else backend.scheduler_state(scheduler)
        snapshot.trees[f"lr_scheduler_{number}"] = state
    snapshot.trees["scaler"] = scaler.state()
    return snapshot


def check_equal_weights(backend: Backend, parts: Assembly) -> None:
    """Compares the parameters of all processes by digests: those that are trained, or were when the epoch began.

    Raises:
        SetupError: they differ; the message names the first one that does.
    """
    if backend.world_size == 1:
        return
    compared = {**parts.trained, **parts.trained_parameters(parts.raw_models())}
    own = {name: zlib.crc32(backend.tensor_state(parameter).data) for name, parameter in compared.items()}
    for rank, other in enumerate(backend.gather(own)):
        # Of what only some of them train since on_epoch_end the next epoch tells.
        common = [name for name in own if name in other or name in parts.trained]
        different = [name for name in common if other.get(name) != own[name]]
        if different:
            raise SetupError(
                f"The weights of processes {backend.rank} and {rank} differ, first in {different[0]!r} "
                f"({len(different)} of {len(own)} parameters). Let every process run the same steps; compute with the "
                "models of get_models(), since gradients of get_raw_models() stay in their process; and if some "
                "parameters get no gradient in some steps, set find_unused_parameters=True."
            )


def position_of(snapshot: Snapshot) -> Position:
    """How far the run had come that a snapshot is of."""
    return Position(**{name: snapshot.index[name] for name in vars(Position())})


def apply_weights(backend: Backend, parts: Assembly, snapshot: Snapshot, folder: Path) -> None:
    """Puts the weights of models and components in place, all or none of them.

    Raises:
        CheckpointError: they don't fit; the message lists every difference.
    """
    for name, target in _check_weights(backend, parts, snapshot, folder).items():
        backend.load_model_state(target, snapshot.weights.get(name, {}))


def apply_all(
    backend: Backend, parts: Assembly, snapshot: Snapshot, scaler: LossScaler, records: Records, folder: Path
) -> None:
    """Puts everything in place, or nothing.

    Raises:
        CheckpointError: something doesn't fit; the message lists every difference.
    """
    _check_weights(backend, parts, snapshot, folder)
    optimizers, schedules = _check_optimizers(parts, snapshot, folder)
    before = _states(backend, parts)
    try:
        _load_states(backend, parts, optimizers, schedules)
        scaler.load_state(snapshot.trees["scaler"])
        # They are those of all processes: one of them takes them up, and gathering brings them into order.
        records.load_state(snapshot.trees["records"] if backend.rank == 0 else {})
    except Exception as error:
        _load_states(backend, parts, *before)
        records.clear()
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{str(folder)!r} holds a state that can't be taken up: {type(error).__name__}: {error}. Nothing was "
            "loaded. Use another checkpoint, or load the weights alone with weights_only=True."
        ) from error
    apply_weights(backend, parts, snapshot, folder)


def check_streams(backend: Backend, streams: RandomStreams, snapshot: Snapshot, folder: Path) -> None:
    """Tries the stored state of the random streams out, which can't be put in place before the loader is started.

    Raises:
        CheckpointError: it is none.
    """
    stored = snapshot.trees["rng"]
    if len(stored) != backend.world_size:
        return
    now = streams.capture()
    try:
        streams.restore(stored[backend.rank])
    except Exception as error:
        raise CheckpointError(
            f"{str(folder)!r} holds random streams that can't be taken up: {type(error).__name__}: {error}. Nothing "
            "was loaded. Use another checkpoint, or load the weights alone with weights_only=True."
        ) from error
    finally:
        streams.restore(now)


def _check_weights(backend: Backend, parts: Assembly, snapshot: Snapshot, folder: Path) -> dict[str, Any]:
    """The models and components by the names that their weights have in the snapshot, which fits them."""
    if snapshot.index["backend"] != backend.name:
        raise CheckpointError(
            f"{str(folder)!r} was saved by {snapshot.index['backend']!r} and this is {backend.name!r}, which lays out "
            "weights in another way. Load it there, or convert its model_I.safetensors by hand."
        )
    targets = {f"model_{number}": model for number, model in enumerate(parts.raw_models())}
    stored_models = numbered(snapshot.weights, "model")
    if len(stored_models) != len(targets):
        raise CheckpointError(
            f"{str(folder)!r} holds {len(stored_models)} models and the trainer has {len(targets)}. Give set_models as "
            "many models, in the same order, as when it was saved."
        )
    targets |= {f"component_{number}": item for number, item in parts.modules_of_components().items()}
    differences = []
    for name, target in targets.items():
        for line in describe_differences(snapshot.weights.get(name, {}), backend.model_layout(target)):
            differences.append(f"{name}: {line}")
    if differences:
        listed = "\n  ".join(differences)
        raise CheckpointError(f"{str(folder)!r} doesn't fit the models; nothing was loaded. Differences:\n  {listed}")
    return targets


def _check_optimizers(parts: Assembly, snapshot: Snapshot, folder: Path) -> tuple[list[Any], list[Any]]:
    """The stored states of the optimizers and of their schedulers, as many of each as the trainer has."""
    optimizers = numbered(snapshot.trees, "optimizer")
    if len(optimizers) != len(parts.optimizers):
        raise CheckpointError(
            f"{str(folder)!r} holds {len(optimizers)} optimizers and the trainer has {len(parts.optimizers)}. Give as "
            "many as when it was saved, or load the weights alone with weights_only=True."
        )
    schedules = numbered(snapshot.trees, "lr_scheduler")
    if len(schedules) != len(optimizers):
        raise CheckpointError(
            f"{str(folder)!r} holds {len(optimizers)} optimizers and {len(schedules)} lr_schedulers, of which each has "
            "one, if only null. Use another checkpoint, or load the weights alone with weights_only=True."
        )
    for number, (scheduler, state) in enumerate(zip(parts.schedulers, schedules, strict=True)):
        if (scheduler is None) != (state is None):
            had, has = ("none", "one") if state is None else ("one", "none")
            raise CheckpointError(
                f"{str(folder)!r} has {had} lr_scheduler for optimizer {number} and the trainer has {has}. Give the "
                "same as when it was saved, or load the weights alone with weights_only=True."
            )
    return optimizers, schedules


def _states(backend: Backend, parts: Assembly) -> tuple[list[Any], list[Any]]:
    """The states of the optimizers and of their schedulers, to put back if others are refused half-way."""
    names = parts.parameter_names()
    optimizers = [backend.optimizer_state(optimizer, names) for optimizer in parts.optimizers]
    return optimizers, [None if item is None else backend.scheduler_state(item) for item in parts.schedulers]


def _load_states(backend: Backend, parts: Assembly, optimizers: list[Any], schedules: list[Any]) -> None:
    names = parts.parameter_names()
    for optimizer, state in zip(parts.optimizers, optimizers, strict=True):
        backend.load_optimizer_state(optimizer, names, state)
    for scheduler, state in zip(parts.schedulers, schedules, strict=True):
        if scheduler is not None:
            backend.load_scheduler_state(scheduler, state)

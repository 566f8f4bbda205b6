"""From a run to a snapshot of it and back."""

from __future__ import annotations

import platform
import zlib
from functools import partial, reduce
from pathlib import Path
from typing import Any

from dowdyboy_core._disk.files import numbered
from dowdyboy_core._errors import CheckpointError, SetupError
from dowdyboy_core._version import __version__
from dowdyboy_core.backend.arrays import Array
from dowdyboy_core.backend.growing import grows_to_fit
from dowdyboy_core.backend.random_streams import RandomStreams
from dowdyboy_core.backend.seam import Backend
from dowdyboy_core.backend.trees import describe_differences

from . import described, frozen, own_state
from .assembly import Assembly
from .checkpoints import Snapshot, read_snapshot
from .run import Run
from .schedules import schedule_ways
from .settings import settings_of
from .states import model_states, states_of
from .untrained import completed


def take_snapshot(run: Run, number: int, *, everywhere: bool = False) -> Snapshot:
    """Copies all that a run needs to go on from here.

    Args:
        run: the run.
        number: which run in its folder it is.
        everywhere: whether each process needs all of it; else the first one, which writes.
    """
    backend, parts, position = run.backend, run.parts, run.position
    index = {
        "dowdyboy": __version__,
        "backend": backend.name,
        "backend_version": backend.version,
        "python": platform.python_version(),
        "world_size": backend.world_size,
        **position.state(),
        "name": run.config.name,
        "run": number,
        "seed": run.config.seed,
        "precision": run.precision,
        "metrics_bytes": run.metrics.size(),
        "best_type": run.config.save_best_type,
        **settings_of(run),
        "steps_per_epoch": run.config.steps_per_epoch,
        "passes": _places(run),
        "schedule_by": schedule_ways(run.config, backend, parts),
        "on_epoch_begin": run.begins_epochs,
    }
    snapshot = Snapshot(index)
    snapshot.trees |= run.gathered()
    snapshot.trees["records"] = run.records.state() if position.batch else {}
    snapshot.trees |= own_state.capture(backend, parts)
    with run.averaging.suspended():
        check_equal_weights(backend, parts)
        if backend.rank != 0 and not everywhere:  # it takes part in the above, and writes nothing
            return snapshot
        weights, trees = states_of(run)
    snapshot.weights |= weights
    snapshot.trees |= trees
    if run.averaging.decay is not None:
        snapshot.trees["ema"] = run.averaging.state()
        with run.averaging.applied():
            snapshot.weights |= model_states(backend, parts, "ema")
    snapshot.trees[described.EXCHANGE] = described.describe(run, snapshot)
    if carried := run.carried.state(position.train_step):
        snapshot.trees[described.PASSENGERS] = carried
    return snapshot


def read_together(backend: Backend, folder: Path, snapshot: Snapshot | None) -> Snapshot:
    """Reads what one process chose, in all of them or in none: a machine may not see the disk of another.

    Args:
        backend: by which they talk.
        folder: the checkpoint.
        snapshot: its content, where it is read already.

    Raises:
        CheckpointError: one of them can't read it, or reads another one.
    """
    problem = None
    if snapshot is None:
        try:
            snapshot = read_snapshot(folder)
        except CheckpointError as error:
            problem = str(error)
    # The index has the digest of every other file.
    seen = backend.gather((problem, None if snapshot is None else snapshot.index))
    for rank, (told, index) in enumerate(seen):
        if told is not None or index != seen[0][1]:
            raise CheckpointError(
                f"Process 0 goes on from {str(folder)!r}, and process {rank} can't: "
                f"{told or 'it finds another checkpoint there.'} Give an out_dir that all machines share, or copy "
                "that folder to the same path on each of them."
            )
    assert snapshot is not None
    return snapshot


def _places(run: Run) -> list[tuple[int, int]] | None:
    """Where in its passes over the data the run is; None where a pass is an epoch."""
    if run.config.steps_per_epoch is None:
        return None
    place = run.position.place()
    return run.backend.gather(place) if run.position.apart else [place]


def check_equal_weights(backend: Backend, parts: Assembly) -> None:
    """Compares the parameters of all processes by digests: those that are trained, or were when the epoch began.

    Raises:
        SetupError: they differ; the message names the first one that does.
    """
    if backend.world_size == 1:
        return
    compared = {**parts.trained, **parts.trained_parameters(parts.raw_models())}
    own = {name: _checksum(backend.tensor_state(parameter)) for name, parameter in compared.items()}
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


def _checksum(array: Array) -> int:
    return reduce(lambda known, buffer: zlib.crc32(buffer, known), array.buffers(), 0)


def apply_weights(backend: Backend, parts: Assembly, snapshot: Snapshot, folder: Path) -> None:
    """Puts the weights of models and components in place, all or none of them.

    Raises:
        CheckpointError: they don't fit; the message lists every difference.
    """
    snapshot = completed(backend, parts, snapshot.without_wrappers(backend.wrappers), folder)
    for name, target in _check_weights(backend, parts, snapshot, folder).items():
        backend.load_model_state(target, snapshot.weights.get(name, {}))


def apply_all(run: Run, snapshot: Snapshot, folder: Path, *, tells: bool = True) -> None:
    """Puts everything in place, or nothing.

    Args:
        run: the run.
        snapshot: what is put in place.
        folder: where it is from.
        tells: whether to say what the script has frozen otherwise.

    Raises:
        CheckpointError: something doesn't fit; the message lists every difference.
    """
    backend, parts, records = run.backend, run.parts, run.records
    snapshot = completed(backend, parts, snapshot.without_wrappers(backend.wrappers), folder)
    _check_weights(backend, parts, snapshot, folder)
    if run.averaging.decay is not None and "ema" in snapshot.trees:
        run.averaging.check(snapshot.trees["ema"])
        _check_weights(backend, parts, snapshot.averaged(folder), folder)
    optimizers, schedules = _check_optimizers(parts, snapshot, folder)
    version = int(snapshot.index["format_version"])
    own_state.check(backend, parts, snapshot.trees, version, str(folder))
    frozen.check(snapshot.trees.get("frozen"))
    before, before_own = _states(backend, parts), own_state.capture(backend, parts)
    try:
        _load_states(backend, parts, optimizers, schedules)
        own_state.load(backend, parts, snapshot.trees)
        run.load_scale_state(snapshot.trees["scaler"])
        # They are those of all processes: one of them takes them up, and gathering brings them into order.
        records.load_state(snapshot.trees["records"] if backend.rank == 0 else {})
    except Exception as error:
        _load_states(backend, parts, *before)
        own_state.load(backend, parts, before_own)
        records.clear()
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{str(folder)!r} holds a state that can't be taken up: {type(error).__name__}: {error}. Nothing was "
            "loaded. Use another checkpoint, or load the weights alone with weights_only=True."
        ) from error
    told = frozen.restore(backend, parts, snapshot.trees.get("frozen"))  # first: what is trained is averaged
    if told is not None and tells:
        run.warn(told)
    averaged = "ema" in snapshot.trees and run.averaging.decay is not None
    if averaged:  # by way of the models, whose own weights follow
        average = snapshot.averaged(folder)
        run.averaging.load(snapshot.trees["ema"], partial(apply_weights, backend, parts, average, folder))
    apply_weights(backend, parts, snapshot, folder)
    if not averaged:
        run.averaging.restart_from_weights()
        _tell_of_average(run, snapshot, folder)
    if missing := own_state.missing(backend, parts, snapshot.trees):
        run.warn(
            f"{str(folder)!r} has no state of {', '.join(missing)}, which an older version of dowdyboy didn't store: "
            "it is as the script made it."
        )


def _tell_of_average(run: Run, snapshot: Snapshot, folder: Path) -> None:
    """Says that a run goes on without the average of the checkpoint, or with one that the checkpoint hasn't."""
    decay, state = run.averaging.decay, snapshot.trees.get("ema")
    if decay is not None:
        run.warn(
            f"{str(folder)!r} holds no average of the weights: it was saved without ema_decay. With ema_decay={decay} "
            "one begins from the weights that were loaded."
        )
    elif state is not None:
        run.warn(
            f"{str(folder)!r} holds an average of the weights, and this run keeps none: ema_decay is None. It is left "
            f"there. Set ema_decay={state.get('decay')!r:.20} to go on with it."
        )


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
        stored = snapshot.weights.get(name, {})
        lines = describe_differences(stored, backend.model_layout(target))
        if lines and not grows_to_fit(backend, target, stored):
            differences += [f"{name}: {line}" for line in lines]
    if differences:
        listed = "\n  ".join(differences)
        raise CheckpointError(f"{str(folder)!r} doesn't fit the models; nothing was loaded. Differences:\n  {listed}")
    return targets


def check_schedules(run: Run, snapshot: Snapshot, folder: Path) -> None:
    """Refuses a schedule that went by something else: how far it has come would be nonsense.

    Raises:
        CheckpointError: epochs and steps differ.
    """
    now = schedule_ways(run.config, run.backend, run.parts)
    before = snapshot.index.get("schedule_by", ["epoch"] * len(now))  # as it was before there was a choice
    for place, (had, has) in enumerate(zip(before, now, strict=False)):
        if None not in (had, has) and had != has:
            raise CheckpointError(
                f"In {str(folder)!r} the scheduler of optimizer {place} goes by schedule_by={had!r}, and here by "
                f"{has!r}. Set what it was saved with, or load the weights alone with weights_only=True."
            )


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
        # Before the optimizer's own scheduler was taken up, its state was with the optimizer's alone.
        own = state is None and scheduler is not None and parts.is_own(number)
        own = own and optimizers[number].get("LR_Scheduler") is not None
        if (scheduler is None) != (state is None) and not own:
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
        if scheduler is not None and state is not None:
            backend.load_scheduler_state(scheduler, state)

"""Settings by which a position in a run is meant: saved beside it, and told where a resumed run has others.

Checkpoints of format version 1 have none of them; theirs are taken to be those of the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dowdyboy_core._errors import CheckpointError

from .run import Run


def settings_of(run: Run) -> dict[str, Any]:
    """What the index says of them; null of what nobody knows, and of data that no position is in."""
    position, loaders = run.position, run.parts.loaders
    found: dict[str, Any] = {
        "best_rec": run.following.record(),
        "accumulate_steps": run.config.accumulate_steps,
    }
    inside = {"train": bool(position.batch), "val": position.val_batch is not None}
    for role, prefix in (("train", ""), ("val", "val_")):
        loader = loaders.get(role) if inside[role] else None
        found[f"{prefix}batches"] = None if loader is None else loader.count()
        found[f"{prefix}batch_size"] = None if loader is None else loader.batch_size()
    return found


def follows_another(run: Run, index: Mapping[str, Any]) -> str | None:
    """What decides the best now, where another value did when the run was saved, in words; None if it is the same."""
    before = index.get("best_rec", run.following.record()), index["best_type"]
    now = run.following.record(), run.config.save_best_type
    best, to_beat = index["best"], index.get("to_beat")
    if before == now or best is to_beat is None:
        return None
    known = f"value to beat, {to_beat:.6g}" if best is None else f"best of epoch {index['best_epoch']}, {best:.6g}"
    taken = f", and the next one takes the place of best_epoch_{index['best_epoch']}. Copy that elsewhere to keep it"
    return (
        f"The {known}, is that by {_described(*before)}, and this run goes by {_described(*now)}: it starts with no "
        f"best{taken if run.config.save_best and best is not None else ''}."
    )


def _described(record: str | None, kind: str) -> str:
    return f"{'the function of set_save_best_calc_func' if record is None else repr(record)} ({kind})"


def position_means_another(run: Run, index: Mapping[str, Any]) -> str | None:
    """What a place within an epoch was counted in, where the run counts otherwise, in words; None if it doesn't."""
    validating = index["val_batch"] is not None
    if not validating and not index["batch"]:
        return None
    names = ["val_batches", "val_batch_size"] if validating else ["batches", "batch_size", "accumulate_steps"]
    now = settings_of(run)
    lines = [
        f"{name} was {index[name]} and is {now[name]}"
        for name in names
        if index.get(name) is not None and now[name] is not None and index[name] != now[name]
    ]
    if index["world_size"] != run.backend.world_size:  # which is told by itself, and changes how many batches there are
        lines = [line for line in lines if not line.startswith(("batches", "val_batches"))]
    if not lines:
        return None
    done = f"{index['val_batch']} batches of validation" if validating else f"{index['batch']} batches"
    return (
        f"The checkpoint was saved within an epoch, after {done}, and they are others now: {'; '.join(lines)}. The run "
        "goes on after as many batches, which needn't be the same data, and a window of accumulation begins there. Go "
        "on from the end of an epoch, or with the settings that it was saved with, to have an epoch as any other."
    )


def adapt_to_world_size(run: Run, index: Mapping[str, Any]) -> None:
    """Has a run go on where one of maybe another number of processes had come to."""
    before, now = int(index["world_size"]), run.backend.world_size
    if run.config.steps_per_epoch is not None:
        run.position.take_place(index["passes"], run.backend.rank, now)
    if before == now:
        return
    # Within an epoch the batches that all processes had done are skipped, as nearly as the new number allows.
    if run.config.steps_per_epoch is None:  # else the place in the data is kept by itself, and steps stay steps
        run.position.batch = run.position.batch * before // now
    if run.position.val_batch is not None:
        run.position.val_batch = run.position.val_batch * before // now
    run.warn(
        f"The checkpoint was saved by {before} processes and this run has {now}: it goes on, but not with the numbers "
        "that an uninterrupted run would have had."
    )


def check_steps(run: Run, folder: Path, index: Mapping[str, Any]) -> None:
    """Refuses a checkpoint whose epochs are other ones.

    Raises:
        CheckpointError: it was saved with another ``steps_per_epoch``.
    """
    saved, ours = index.get("steps_per_epoch"), run.config.steps_per_epoch
    if saved != ours:
        raise CheckpointError(
            f"{str(folder)!r} was saved with steps_per_epoch={saved} and this run has steps_per_epoch={ours}: its "
            f"epochs are other ones. Give steps_per_epoch={saved} to go on, or load it with weights_only=True."
        )

"""PyTorch's loaders that read in a way of their own, and objects around loaders: run as they are."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from dowdyboy_core.backend import (
    OwnReading,
    StreamParts,
    WorkerInit,
    known_length,
    loaders_within,
    note_reader,
    reads_for_itself,
)

from ._data import _reseed

_READING = (
    "__iter__",
    "__len__",
    "_get_iterator",
    "_index_sampler",
    "_auto_collation",
    "dataset",
    "sampler",
    "batch_sampler",
    "batch_size",
    "drop_last",
    "collate_fn",
)
"""What a subclass that reads in a way of its own defines, of these at least one."""


def own_parts(loader: Any) -> StreamParts | None:
    """What reads in a way of its own, as a stream; None for a loader to take apart and for what holds none."""
    if isinstance(loader, DataLoader):
        held = [loader] if reads_for_itself(type(loader), DataLoader, _READING) else []
    else:
        held = [item for item in loaders_within(loader) if isinstance(item, DataLoader)]
    if not held or hasattr(loader, "__next__") or not hasattr(loader, "__iter__"):
        return None
    return StreamParts(
        partial(_start, loader, held),
        known_length(loader) if hasattr(loader, "__len__") else None,
        end_workers=OwnReading.close,
        samplers=held,
        streams=[item.dataset for item in held if isinstance(item.dataset, IterableDataset)],
        # What workers draw is in no state of a loader: with some it is run on, which gives the same numbers.
        itself=None if any(item.num_workers for item in held) else loader,
    )


def _start(loader: Any, held: list[DataLoader[Any]]) -> Iterator[Any]:
    seed = int(torch.empty((), dtype=torch.int64).random_().item())
    for item in held:
        for owner in (item, item.sampler, item.batch_sampler):
            _reseed(owner, seed)
    # Loaders whose __iter__ asks nothing of their base class start workers of their own.
    kept = [(vars(item), item.persistent_workers) for item in held]
    for settings, _ in kept:
        settings["persistent_workers"] = False
    try:
        reading = OwnReading(loader, _Between, _end_reader)
    finally:
        for settings, persistent in kept:
            settings["persistent_workers"] = persistent
    if hasattr(reading.batches, "_shutdown_workers"):
        note_reader(loader, reading.batches)
    return reading


def _end_reader(reader: Any) -> None:
    reader._shutdown_workers()


class _Between(DataLoader[Any]):
    """Stands below a subclass of the user's while the trainer reads."""

    def __iter__(self) -> Any:
        return self._get_iterator()

    def _get_iterator(self) -> Any:
        if not self.num_workers:
            return super()._get_iterator()
        settings, kept = vars(self), (self.worker_init_fn, self.persistent_workers)
        settings["worker_init_fn"] = WorkerInit(self.worker_init_fn)
        settings["persistent_workers"] = False  # they would go on with random numbers that a resumed run doesn't have
        try:
            return note_reader(self, super()._get_iterator())
        finally:
            settings["worker_init_fn"], settings["persistent_workers"] = kept

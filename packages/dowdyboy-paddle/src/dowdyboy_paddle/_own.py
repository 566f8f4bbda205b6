"""PaddlePaddle's loaders that read in a way of their own, and objects around loaders: run as they are."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from functools import partial
from typing import Any

from paddle.io import DataLoader, IterableDataset

from dowdyboy_core._data import StreamParts
from dowdyboy_core._dealt import loaders_within
from dowdyboy_core._nested import map_leaves
from dowdyboy_core._order import known_length
from dowdyboy_core._own import OwnReading, note_reader, reads_for_itself

from ._data import Mover, _collate, _end_workers, _stream, _Workers

_READING = (
    "__iter__",
    "__len__",
    "dataset",
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
        partial(OwnReading, loader, _Between, Generator.close),
        known_length(loader) if hasattr(loader, "__len__") else None,
        end_workers=OwnReading.close,
        samplers=held,
        streams=[item.dataset for item in held if isinstance(item.dataset, IterableDataset)],
    )


class _Between(DataLoader):
    """Stands below a subclass of the user's while the trainer reads.

    PaddlePaddle's own iterators read ahead in a thread, so that what a dataset draws there disturbs what is drawn
    elsewhere, and workers of theirs that are left go on.
    """

    def __iter__(self) -> Any:
        return note_reader(self, _by_workers(self) if self.num_workers else _here(self))


def _here(loader: DataLoader) -> Iterator[Any]:
    move = Mover("cpu")
    for batch in _batches(loader):
        yield map_leaves(move, batch)


def _batches(loader: DataLoader) -> Iterator[Any]:
    data: Any = loader.dataset
    collate, sampler = _collate(loader), loader.batch_sampler
    if isinstance(data, IterableDataset):
        return _stream(loader)
    if sampler is None:
        return (collate(data[index]) for index in range(len(data)))
    return (collate([data[index] for index in indices]) for indices in sampler)


def _by_workers(loader: DataLoader) -> Iterator[Any]:
    workers = _Workers(loader)
    if isinstance(loader.dataset, IterableDataset):
        batches: Any = iter(workers.stream(loader))
    else:
        batches = iter(workers(loader.dataset, loader.batch_sampler, _collate(loader)))
    try:
        yield from batches
    finally:
        _end_workers(batches)

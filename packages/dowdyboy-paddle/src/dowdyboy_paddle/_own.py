"""PaddlePaddle's loaders that read in a way of their own, and objects around loaders: run as they are."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from functools import partial
from itertools import repeat
from typing import Any

from paddle.io import DataLoader, Dataset, IterableDataset

from dowdyboy_core import log
from dowdyboy_core.backend import (
    Failure,
    OwnReading,
    StreamParts,
    StreamSource,
    WorkerInit,
    WorkerWatch,
    known_length,
    loaders_within,
    map_leaves,
    note_reader,
    reads_for_itself,
)

from ._data import Mover, _collate
from ._workers import PaddleWorkers

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
        # What workers draw is in no state of a loader: with some it is run on, which gives the same numbers.
        itself=None if any(item.num_workers for item in held) else loader,
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
        size: Any = loader.batch_size  # annotated as an int, though None is accepted
        return StreamSource(data, collate, size, loader.drop_last)()
    if sampler is None:
        return (collate(data[index]) for index in range(len(data)))
    return (collate([data[index] for index in indices]) for indices in sampler)


def _by_workers(loader: DataLoader) -> Iterator[Any]:
    workers = PaddleWorkers(loader)
    collate: Any = _Collated(_collate(loader), _is_batched(loader))
    if isinstance(loader.dataset, IterableDataset):
        stream = _CaughtStream(loader.dataset)
        batches: Any = iter(workers.build_stream(loader, stream, collate, _Begin(loader, stream)))
    else:
        data = _Caught(loader.dataset)
        sampler = [[index] for index in range(len(data))] if loader.batch_sampler is None else loader.batch_sampler
        batches = iter(workers.build(data, sampler, collate, _Begin(loader, data)))
    # Nobody knows here what the loader is for.
    watch = WorkerWatch(workers, "DataLoader" if type(loader) is _Between else type(loader).__name__, log.warn)
    try:
        yield from watch.read(batches)
    finally:
        workers.end(batches, now=watch.late)


def _is_batched(loader: DataLoader) -> bool:
    cut = loader.batch_size if isinstance(loader.dataset, IterableDataset) else loader.batch_sampler
    return cut is not None


class _Begin:
    """What a worker begins with."""

    def __init__(self, loader: DataLoader, data: _Caught | _CaughtStream) -> None:
        self._dataset = loader.dataset
        self._then = loader.worker_init_fn
        self._data = data  # the very object that the worker reads

    def __call__(self, worker_id: int) -> None:
        WorkerInit(None)(worker_id)
        PaddleWorkers.tell(self._dataset)
        if self._then is not None:
            try:
                self._then(worker_id)
            except Exception as error:
                self._data.failure = _failure(error)


def _failure(error: Exception) -> Failure:
    return Failure(error, f"a worker (process {os.getpid()})")


class _Caught(Dataset[Any]):
    """Gives a :class:`Failure` for a sample that can't be read: PaddlePaddle's own workers would end without a word."""

    failure: Failure | None = None

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: Any) -> Any:
        if self.failure is not None:
            return self.failure
        try:
            return self._dataset[index]
        except Exception as error:
            return _failure(error)


class _CaughtStream(IterableDataset[Any]):
    """The same for a stream, which ends so."""

    failure: Failure | None = None

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __iter__(self) -> Iterator[Any]:
        if self.failure is not None:
            yield from repeat(self.failure)
        try:
            yield from self._dataset
        except Exception as error:
            yield from repeat(_failure(error))  # a batch of it, or more, since what is not full may be dropped


class _Collated:
    """Makes a batch, or hands on why there is none."""

    def __init__(self, collate: Any, batched: bool) -> None:
        self._collate = collate
        self._batched = batched

    def __call__(self, samples: Any) -> Any:
        given = samples if isinstance(samples, list) else [samples]
        failed = next((item for item in given if isinstance(item, Failure)), None)
        if failed is not None:
            return failed
        try:
            return self._collate(samples if self._batched else given[0])
        except Exception as error:
            return _failure(error)

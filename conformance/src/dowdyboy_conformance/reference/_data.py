"""The framework's loader taken apart: what is read and how is its business, in which order the core's."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import Any

from dowdyboy_core._data import MapParts, StreamParts
from dowdyboy_core._order import (
    Batching,
    FixedSizeBatches,
    Isolate,
    Order,
    SampledBatches,
    SequentialOrder,
    ShuffledOrder,
    SingleIndices,
    known_length,
)
from dowdyboy_core._own import close_generator, reads_for_itself
from dowdyboy_core._stopping import WorkerInit

from .framework.data import DataLoader, IterableDataset

_READING = ("__iter__", "__len__", "dataset", "batch_sampler", "batch_size", "drop_last", "collate_fn")
"""What a subclass that reads in a way of its own defines, of these at least one."""


def split_loader(loader: Any, isolate: Isolate) -> MapParts | StreamParts | None:
    """Takes a loader apart; None if ``loader`` is none of the framework's."""
    if not isinstance(loader, DataLoader):
        return None
    streams = [loader.dataset] if isinstance(loader.dataset, IterableDataset) else []
    if reads_for_itself(type(loader), DataLoader, _READING):
        own = partial(iter, loader)
        return StreamParts(own, known_length(loader), end_workers=close_generator, samplers=[loader], streams=streams)
    if streams:
        return StreamParts(loader.__iter__, None, streams=streams)
    return MapParts(
        dataset=loader.dataset,
        batching=_batching(loader, isolate),
        collate=loader.collate_fn,
        batched=loader.batch_sampler is not None or loader.batch_size is not None,
        workers=loader.num_workers,
        with_workers=_like(loader),
        end_workers=Generator.close,
    )


def _batching(loader: DataLoader, isolate: Isolate) -> Batching:
    if loader.batch_sampler is not None:
        return SampledBatches(loader.batch_sampler, isolate, _reseed, loader.dataset)
    size = len(loader.dataset)
    order: Order = ShuffledOrder(size) if loader.shuffle else SequentialOrder(size)
    if loader.batch_size is None:
        return SingleIndices(order)
    return FixedSizeBatches(order, loader.batch_size, loader.drop_last)


def _reseed(sampler: Any, seed: int) -> None:
    """Nothing to do: the framework has no generators but the global one, which the core seeds."""


def _like(loader: DataLoader) -> Callable[[Any, Any, Callable[[Any], Any]], Iterable[Any]]:
    """Makes loaders with as many workers as another one has."""

    def make(dataset: Any, batch_sampler: Any, collate: Callable[[Any], Any]) -> DataLoader:
        return DataLoader(
            dataset,
            batch_sampler=batch_sampler,
            collate_fn=collate,
            num_workers=loader.num_workers,
            worker_init=WorkerInit(loader.worker_init),
        )

    return make

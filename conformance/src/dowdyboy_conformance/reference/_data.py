"""The framework's loader taken apart: what is read and how is its business, in which order the core's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from dowdyboy_core.backend import (
    Batching,
    Failure,
    FixedSizeBatches,
    Isolate,
    MapParts,
    Order,
    SampledBatches,
    SequentialOrder,
    ShuffledOrder,
    SingleIndices,
    StreamParts,
    StreamSource,
    Workers,
    close_generator,
    known_length,
    reads_for_itself,
)

from .framework.data import DataLoader, IterableDataset, WorkerInfo, get_worker_info, send_instead, set_worker_info

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
    workers = _Workers(loader) if loader.num_workers else None
    if streams:
        source = StreamSource(loader.dataset, loader.collate_fn, loader.batch_size, loader.drop_last)
        return StreamParts(source, None, workers=workers, streams=streams)
    return MapParts(
        dataset=loader.dataset,
        batching=_batching(loader, isolate),
        collate=loader.collate_fn,
        batched=loader.batch_sampler is not None or loader.batch_size is not None,
        workers=workers,
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


class _Workers(Workers):
    """Those of a loader with the settings of another one."""

    def __init__(self, loader: DataLoader) -> None:
        self.count = loader.num_workers
        self.timeout = loader.timeout
        self.init = loader.worker_init

    def build(
        self, dataset: Any, batch_sampler: Any, collate: Callable[[Any], Any], begin: Callable[[int], None]
    ) -> DataLoader:
        return DataLoader(
            dataset,
            batch_sampler=batch_sampler,
            collate_fn=collate,
            num_workers=self.count,
            timeout=self.timeout,
            worker_init=begin,
        )

    def end(self, batches: Any, *, now: bool) -> None:
        batches.close()

    def processes(self, batches: Any) -> Sequence[Any]:
        return batches.workers  # type: ignore[no-any-return]

    def awaited(self, batches: Any) -> int | None:
        return batches.turns[0] if batches.turns else None

    @classmethod
    def tell(cls, dataset: Any) -> None:
        info = get_worker_info()
        if info is not None:
            set_worker_info(WorkerInfo(info.id, info.num_workers, dataset))

    @classmethod
    def when_unsendable(cls, failure_of: Callable[[Exception], Failure]) -> None:
        send_instead(failure_of)

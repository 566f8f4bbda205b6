"""PaddlePaddle's DataLoader taken apart, and batches moved to the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import paddle
from paddle.io import (
    BatchSampler,
    DataLoader,
    DistributedBatchSampler,
    IterableDataset,
    RandomSampler,
    SequenceSampler,
    TensorDataset,
    WeightedRandomSampler,
)
from paddle.io.dataloader.collate import default_collate_fn, default_convert_fn

from dowdyboy_core._data import MapParts, StreamParts
from dowdyboy_core._nested import map_leaves
from dowdyboy_core._order import (
    Batching,
    FixedSizeBatches,
    Isolate,
    Order,
    SampledBatches,
    SamplerOrder,
    SequentialOrder,
    ShuffledOrder,
    SingleIndices,
    WeightedOrder,
    known_length,
)
from dowdyboy_core._stopping import WorkerInit

_PATIENCE = 5.0
"""Seconds to wait for each worker that is told to end."""


def split_loader(loader: Any, isolate: Isolate) -> MapParts | StreamParts | None:
    """Takes a DataLoader apart; None if ``loader`` is none."""
    if not isinstance(loader, DataLoader):
        return None
    if isinstance(loader.dataset, IterableDataset):
        return _stream_parts(loader)
    collate = _collate(loader)
    return MapParts(
        dataset=loader.dataset,
        batching=_batching(loader, isolate),
        collate=collate,
        batched=loader.batch_sampler is not None,
        workers=loader.num_workers,
        with_workers=_Workers(loader),
        end_workers=_end_workers,
        read_at_once=_read_at_once(loader, collate),
    )


def _read_at_once(loader: DataLoader, collate: Callable[[Any], Any]) -> Callable[[Sequence[int]], Any] | None:
    """Reads a batch of plain tensors in one go: what the default collate function would stack, sample by sample."""
    data: Any = loader.dataset
    if type(data) is not TensorDataset or loader.batch_sampler is None or collate is not default_collate_fn:
        return None
    if not all(isinstance(tensor, paddle.Tensor) for tensor in data.tensors):
        return None

    def read(indices: Sequence[int]) -> list[paddle.Tensor]:
        chosen: Any = np.asarray(indices, np.int64)
        return [tensor[chosen] for tensor in data.tensors]

    return read


def _collate(loader: DataLoader) -> Callable[[Any], Any]:
    default = default_convert_fn if loader.batch_sampler is None else default_collate_fn
    return loader.collate_fn or default


def _batching(loader: DataLoader, isolate: Isolate) -> Batching:
    sampler: Any = loader.batch_sampler
    if sampler is None:
        return SingleIndices(SequentialOrder(len(loader.dataset)))
    if type(sampler) is BatchSampler:
        return FixedSizeBatches(_order(sampler.sampler, isolate, loader.dataset), sampler.batch_size, sampler.drop_last)
    if type(sampler) is DistributedBatchSampler:  # dealing out is the trainer's business
        size = len(sampler.dataset)
        order = ShuffledOrder(size) if sampler.shuffle else SequentialOrder(size)
        return FixedSizeBatches(order, sampler.batch_size, sampler.drop_last)
    return SampledBatches(sampler, isolate, _reseed, loader.dataset)


def _order(sampler: Any, isolate: Isolate, data: Any) -> Order:
    """The order of a sampler of PaddlePaddle's own drawn anew; only its exact class is known to mean just that."""
    kind = type(sampler)
    if kind is SequenceSampler:
        return SequentialOrder(len(sampler))
    if kind is RandomSampler and sampler.generator is None:
        return ShuffledOrder(len(sampler.data_source), sampler.num_samples, sampler.replacement)
    if kind is WeightedRandomSampler and np.ndim(sampler.weights) == 1:
        return WeightedOrder(sampler.weights, sampler.num_samples, sampler.replacement)
    return SamplerOrder(sampler, isolate, _reseed, data)


def _reseed(sampler: Any, seed: int) -> None:
    """Nothing to do: PaddlePaddle's samplers draw from the global streams alone."""


class _Workers:
    """Builds a DataLoader with the settings of another one, and its workers."""

    def __init__(self, loader: DataLoader) -> None:
        self._settings: dict[str, Any] = {
            name: getattr(loader, name)
            for name in (
                "places",
                "num_workers",
                "use_buffer_reader",
                "reader_buffer_size",
                "prefetch_factor",
                "use_shared_memory",
                "timeout",
            )
        }
        self._settings["persistent_workers"] = loader._persistent_workers
        self._settings["worker_init_fn"] = WorkerInit(loader.worker_init_fn)

    def __call__(self, dataset: Any, batch_sampler: Any, collate: Any) -> _Unpacked:
        packed: Any = _Packed(collate)
        return _Unpacked(DataLoader(dataset, batch_sampler=batch_sampler, collate_fn=packed, **self._settings))

    def stream(self, loader: DataLoader) -> _Unpacked:
        """The same over a dataset without indices."""
        # PaddlePaddle waits without end for the second epoch of a stream whose workers persist.
        settings = {**self._settings, "persistent_workers": False}
        packed: Any = _Packed(_collate(loader))
        size: Any = loader.batch_size  # annotated as an int, though None is accepted
        return _Unpacked(
            DataLoader(
                loader.dataset,
                batch_size=size,
                drop_last=loader.drop_last,
                collate_fn=packed,
                **settings,
            )
        )


class _Slot:
    """Stands for a tensor in the shape of a batch."""

    def __init__(self, number: int) -> None:
        self.number = number


class _Shape:
    """A batch with slots for its tensors. Workers send tensors and shape apart: sent whole, types would be lost."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch


class _Packed:
    """Collates, then takes the tensors out of the batch."""

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self._collate = collate

    def __call__(self, samples: Any) -> list[Any]:
        """Gives the tensors, then the batch's shape."""
        tensors: list[Any] = []

        def take_out(leaf: Any) -> Any:
            if not isinstance(leaf, (np.ndarray, paddle.Tensor)):
                return leaf
            tensors.append(leaf)
            return _Slot(len(tensors) - 1)

        shape = _Shape(map_leaves(take_out, self._collate(samples)))
        # The queue between the processes wants at least one array.
        return [*tensors, np.zeros(1, np.int8), shape]


class _Unpacked:
    """Puts the tensors back into the batches."""

    def __init__(self, loader: DataLoader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        return _UnpackedBatches(iter(self._loader))


class _UnpackedBatches:
    """The batches of one iteration."""

    def __init__(self, native: Any) -> None:
        self.native = native

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return _put_back(next(self.native))


def _end_workers(batches: _UnpackedBatches) -> None:
    # Letting go is not enough: a thread of the iterator reads on, and holds it. One that is stuck is not waited for.
    batches.native._try_shutdown_all(timeout=_PATIENCE)


def _put_back(packed: list[Any]) -> Any:
    *tensors, _, shape = packed
    return map_leaves(lambda leaf: tensors[leaf.number] if isinstance(leaf, _Slot) else leaf, shape.batch)


def _stream_parts(loader: DataLoader) -> StreamParts:
    count = _stream_length(loader)
    if loader.num_workers:
        workers = _Workers(loader).stream(loader)
        return StreamParts(
            lambda: iter(workers), count, lazy=False, end_workers=_end_workers, streams=(loader.dataset,)
        )
    return StreamParts(lambda: _stream(loader), count, streams=(loader.dataset,))


def _stream_length(loader: DataLoader) -> int | None:
    size, batch = known_length(loader.dataset), loader.batch_size
    if size is None:
        return None
    if batch is None:
        return size
    return size // batch if loader.drop_last else -(-size // batch)


def _stream(loader: DataLoader) -> Iterator[Any]:
    samples, collate = iter(loader.dataset), _collate(loader)
    if loader.batch_size is None:
        yield from map(collate, samples)
        return
    while batch := list(islice(samples, loader.batch_size)):
        if len(batch) < loader.batch_size and loader.drop_last:
            return
        yield collate(batch)


class Mover:
    """Moves leaves of a batch to a device."""

    def __init__(self, device: str) -> None:
        self._device = device

    def __call__(self, leaf: Any) -> Any:
        """The leaf on the device: tensors, and arrays as tensors, as PaddlePaddle's own loader gives them."""
        if isinstance(leaf, np.ndarray):
            return paddle.to_tensor(leaf) if leaf.dtype.kind in "biufc" else leaf
        if isinstance(leaf, paddle.Tensor) and self._device != "cpu":
            return leaf.to(self._device, blocking=False)
        return leaf

"""PaddlePaddle's DataLoader taken apart, and batches moved to the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

from dowdyboy_core.backend import (
    Batching,
    FixedSizeBatches,
    Isolate,
    MapParts,
    Order,
    SampledBatches,
    SamplerOrder,
    SequentialOrder,
    ShuffledOrder,
    SingleIndices,
    StreamParts,
    StreamSource,
    WeightedOrder,
    known_length,
)

from ._workers import PaddleWorkers


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
        workers=PaddleWorkers(loader) if loader.num_workers else None,
        read_at_once=_read_at_once(loader, collate),
        asks_at_once=False,
    )


def _read_at_once(loader: DataLoader, collate: Callable[[Any], Any]) -> Callable[[Sequence[int]], Any] | None:
    """Reads a batch of plain tensors in one go: what the default collate function would stack, sample by sample."""
    data: Any = loader.dataset
    if type(data) is not TensorDataset or loader.batch_sampler is None or collate is not default_collate_fn:
        return None
    if not all(isinstance(tensor, paddle.Tensor) for tensor in data.tensors):
        return None
    return _Rows(data.tensors)


class _Rows:
    """Reads the rows of tensors."""

    def __init__(self, tensors: Sequence[paddle.Tensor]) -> None:
        self._tensors = tensors

    def __call__(self, indices: Sequence[int]) -> list[paddle.Tensor]:
        chosen: Any = np.asarray(indices, np.int64)
        return [tensor[chosen] for tensor in self._tensors]


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


def _stream_parts(loader: DataLoader) -> StreamParts:
    size: Any = loader.batch_size  # annotated as an int, though None is accepted
    source = StreamSource(loader.dataset, _collate(loader), size, loader.drop_last)
    workers = PaddleWorkers(loader) if loader.num_workers else None
    return StreamParts(source, _stream_length(loader), workers=workers, streams=(loader.dataset,))


def _stream_length(loader: DataLoader) -> int | None:
    size, batch = known_length(loader.dataset), loader.batch_size
    if size is None:
        return None
    if batch is None:
        return size
    return size // batch if loader.drop_last else -(-size // batch)


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

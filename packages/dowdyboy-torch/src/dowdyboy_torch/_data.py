"""PyTorch's DataLoader taken apart, and batches moved to the device."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    IterDataPipe,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

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

from ._workers import TorchWorkers


def split_loader(loader: Any, isolate: Isolate) -> MapParts | StreamParts | None:
    """Takes a DataLoader apart; None if ``loader`` is none."""
    if not isinstance(loader, DataLoader):
        return None
    if isinstance(loader.dataset, IterableDataset):
        return _stream_parts(loader)
    return MapParts(
        dataset=loader.dataset,
        batching=_batching(loader, isolate),
        collate=loader.collate_fn,
        batched=loader.batch_sampler is not None,
        workers=TorchWorkers(loader) if loader.num_workers else None,
        read_at_once=_read_at_once(loader),
    )


def _read_at_once(loader: DataLoader[Any]) -> Callable[[Sequence[int]], Any] | None:
    """Reads a batch of plain tensors in one go: what the default collate function would stack, sample by sample."""
    data: Any = loader.dataset
    if type(data) is not TensorDataset or loader.batch_sampler is None or loader.collate_fn is not default_collate:
        return None
    return _Rows(data.tensors)


class _Rows:
    """Reads the rows of tensors."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self._tensors = tensors

    def __call__(self, indices: Sequence[int]) -> list[torch.Tensor]:
        chosen = torch.tensor(indices, dtype=torch.int64)
        return [tensor[chosen] for tensor in self._tensors]


def _batching(loader: DataLoader[Any], isolate: Isolate) -> Batching:
    sampler: Any = loader.batch_sampler
    if sampler is None:
        return SingleIndices(_order(loader.sampler, isolate, loader.dataset))
    if type(sampler) is BatchSampler:
        return FixedSizeBatches(_order(sampler.sampler, isolate, loader.dataset), sampler.batch_size, sampler.drop_last)
    return SampledBatches(sampler, isolate, _reseed, loader.dataset)


def _order(sampler: Any, isolate: Isolate, data: Any) -> Order:
    """The order of a sampler of PyTorch's own drawn anew; only its exact class is known to mean just that."""
    kind = type(sampler)
    if kind is SequentialSampler:
        return SequentialOrder(len(sampler))
    if kind is RandomSampler:
        return ShuffledOrder(len(sampler.data_source), sampler.num_samples, sampler.replacement)
    if kind is WeightedRandomSampler:
        weights = np.asarray(torch.as_tensor(sampler.weights, device="cpu"))  # which may have been replaced
        return WeightedOrder(weights, sampler.num_samples, sampler.replacement)
    if kind is DistributedSampler:  # dealing out is the trainer's business
        size = len(sampler.dataset)
        return ShuffledOrder(size) if sampler.shuffle else SequentialOrder(size)
    return SamplerOrder(sampler, isolate, _reseed, data)


def _reseed(sampler: Any, seed: int) -> None:
    """Seeds the generators that a sampler, or the sampler inside a batch sampler, may carry."""
    for owner in (sampler, getattr(sampler, "sampler", None)):
        generator = getattr(owner, "generator", None)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(seed)


def _end_stream(loader: DataLoader[Any], batches: Any) -> None:
    loader._iterator = None  # where persistent workers are kept
    batches._shutdown_workers()


def _stream_parts(loader: DataLoader[Any]) -> StreamParts:
    count = known_length(loader)  # of streams that are chained one may have none
    of = (loader.dataset,)
    if loader.num_workers and isinstance(loader.dataset, IterDataPipe):
        # Pipes are dealt out over the workers by PyTorch's own loader, which seeds them alike, too.
        own = copy.copy(loader)  # for this role alone: it keeps the one iterator that persistent workers read for
        own._iterator = None
        end = partial(_end_stream, own)
        return StreamParts(lambda: iter(own), count, lazy=False, end_workers=end, streams=of)
    source = StreamSource(loader.dataset, loader.collate_fn, loader.batch_size, loader.drop_last)
    return StreamParts(source, count, workers=TorchWorkers(loader) if loader.num_workers else None, streams=of)


class Mover:
    """Moves leaves of a batch to a device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self, leaf: Any) -> Any:
        """The leaf on the device: tensors, and whatever else knows how to go there."""
        if isinstance(leaf, torch.Tensor):
            return leaf.to(self._device, non_blocking=True)
        move = getattr(leaf, "to", None)
        return move(self._device) if callable(move) else leaf

"""Datasets, and a loader that reads batches of them, in processes of its own if it is told to."""

from __future__ import annotations

import multiprocessing
import random as python_random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from . import random
from .tensor import Tensor


class TensorDataset:
    """Tensors of equal length; a sample is the tuple of their rows."""

    def __init__(self, *tensors: Tensor) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(Tensor(tensor.data[index]) for tensor in self.tensors)


class IterableDataset:
    """Data without indices; a subclass has ``__iter__``."""


class DataLoader:
    """The batches of a dataset.

    Args:
        dataset: has ``__getitem__`` and ``__len__``, or is an :class:`IterableDataset`.
        batch_size: samples in a batch; None where an item of the dataset is a batch already.
        shuffle: whether the order is another in each epoch.
        batch_sampler: gives the lists of indices instead of ``batch_size`` and ``shuffle``.
        num_workers: how many processes read; a stream is read in this one all the same, since nobody but its author
            knows how to divide it.
        drop_last: leave out a last batch that is not full.
        collate_fn: makes a batch of a list of samples (or of one item, without a batch size).
        worker_init: what a worker begins with; gets its number.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        *,
        shuffle: bool = False,
        batch_sampler: Iterable[Any] | None = None,
        num_workers: int = 0,
        drop_last: bool = False,
        collate_fn: Callable[[Any], Any] | None = None,
        worker_init: Callable[[int], None] = lambda number: None,
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.batch_sampler = batch_sampler
        self.num_workers = num_workers
        self.drop_last = drop_last
        self.collate_fn = collate_fn or (as_tensors if batch_size is None else collate)
        self.worker_init = worker_init

    def __iter__(self) -> Iterator[Any]:
        """Reads the batches of a stream, those of ``batch_sampler``, or of an order from NumPy's global stream."""
        if isinstance(self.dataset, IterableDataset):
            return self._stream()
        batches = self._own_order() if self.batch_sampler is None else iter(self.batch_sampler)
        return self._by_workers(batches) if self.num_workers else map(self._read, batches)

    def __len__(self) -> int:
        if isinstance(self.dataset, IterableDataset):
            raise TypeError("A stream has no length.")
        if self.batch_sampler is not None:
            return len(self.batch_sampler)  # type: ignore[arg-type] # if it has one
        size, batch = len(self.dataset), self.batch_size or 1
        return size // batch if self.drop_last else -(-size // batch)

    def _own_order(self) -> Iterator[Any]:
        order = np.random.permutation(len(self.dataset)) if self.shuffle else np.arange(len(self.dataset))
        size = self.batch_size
        if size is None:
            return iter(order.tolist())
        end = len(order) - len(order) % size if self.drop_last else len(order)
        return (order[start : min(start + size, end)].tolist() for start in range(0, end, size))

    def _read(self, indices: Any) -> Any:
        if self.batch_sampler is None and self.batch_size is None:
            return self.collate_fn(self.dataset[indices])
        return self.collate_fn([self.dataset[index] for index in indices])

    def _stream(self) -> Iterator[Any]:
        samples = iter(self.dataset)
        if self.batch_size is None:
            yield from map(self.collate_fn, samples)
            return
        while batch := list(islice(samples, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield self.collate_fn(batch)

    def _by_workers(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Each worker reads one batch ahead; whose turn it is to deliver goes round, so that the order stays."""
        pipes = self._start_workers()
        try:
            turns: deque[Connection] = deque()
            for pipe, indices in zip(pipes, batches, strict=False):
                pipe.send(indices)
                turns.append(pipe)
            while turns:
                pipe = turns.popleft()
                batch = _receive(pipe)
                for indices in islice(batches, 1):
                    pipe.send(indices)
                    turns.append(pipe)
                yield batch
        finally:
            for pipe in pipes:
                pipe.close()  # which ends the worker

    def _start_workers(self) -> list[Connection]:
        # Forked, so that datasets and functions of any kind get there as they are.
        context = multiprocessing.get_context("fork")
        base = int(np.random.randint(2**31))  # a forked process would have the streams of this one, or none that repeat
        pipes: list[Connection] = []
        for number in range(self.num_workers):
            ours, theirs = context.Pipe()
            pipes.append(ours)
            context.Process(target=self._work, args=(number, base + number, theirs, list(pipes)), daemon=True).start()
            theirs.close()
        return pipes

    def _work(self, number: int, seed: int, pipe: Connection, of_parent: list[Connection]) -> None:
        """What a worker does until its pipe is closed, or the process at its other end is no more."""
        for other in of_parent:  # or it would keep them open itself
            other.close()
        python_random.seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        self.worker_init(number)
        while True:
            try:
                indices = pipe.recv()
            except EOFError:
                return
            try:
                pipe.send((self._read(indices), None))
            except Exception as error:
                pipe.send((None, error))


def _receive(pipe: Connection) -> Any:
    try:
        batch, error = pipe.recv()
    except EOFError:
        raise RuntimeError("A worker of the loader has ended. What it printed says why.") from None
    if error is not None:
        raise error
    return batch


def collate(samples: list[Any]) -> Any:
    """Stacks samples: arrays and numbers into tensors, dicts and tuples part by part; anything else stays a list."""
    first = samples[0]
    if isinstance(first, Mapping):
        return {key: collate([sample[key] for sample in samples]) for key in first}
    if isinstance(first, (tuple, list)):
        return [collate(list(column)) for column in zip(*samples, strict=True)]
    made: list[Any] = [as_tensors(sample) for sample in samples]
    return Tensor(np.stack([item.data for item in made])) if isinstance(made[0], Tensor) else samples


def as_tensors(value: Any) -> Any:
    """A tensor for a number or an array of numbers; anything else as it is."""
    if type(value) is float:
        return Tensor(np.float32(value))
    is_array = isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biuf"
    return Tensor(value) if is_array or isinstance(value, (bool, int)) else value

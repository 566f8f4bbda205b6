"""Datasets, and a loader that reads batches of them, in processes of its own if it is told to."""

from __future__ import annotations

import multiprocessing
import random as python_random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
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


@dataclass(frozen=True)
class WorkerInfo:
    """What a worker knows of itself.

    Attributes:
        id: its number.
        num_workers: how many there are.
        dataset: what it reads.
    """

    id: int
    num_workers: int
    dataset: Any


_worker_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """What this process knows of itself, if it is a worker."""
    return _worker_info


def set_worker_info(info: WorkerInfo) -> None:
    """Tells a worker about itself."""
    global _worker_info
    _worker_info = info


_instead: Callable[[Exception], Any] | None = None


def send_instead(make: Callable[[Exception], Any]) -> None:
    """Has this worker send what ``make`` gives for an error in the place of a batch that can't be pickled."""
    global _instead
    _instead = make


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
        timeout: seconds after which a wait for a batch is an error; 0 for never.
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
        timeout: float = 0,
        worker_init: Callable[[int], Any] | None = None,
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.batch_sampler = batch_sampler
        self.num_workers = num_workers
        self.drop_last = drop_last
        self.collate_fn = collate_fn or (as_tensors if batch_size is None else collate)
        self.timeout = timeout
        self.worker_init = worker_init

    def __iter__(self) -> Iterator[Any]:
        """Reads the batches of a stream, those of ``batch_sampler``, or of an order from NumPy's global stream."""
        if isinstance(self.dataset, IterableDataset):
            return self._stream()
        return _Reading(self) if self.num_workers else map(self.read, self.batches())

    def __len__(self) -> int:
        if isinstance(self.dataset, IterableDataset):
            raise TypeError("A stream has no length.")
        if self.batch_sampler is not None:
            return len(self.batch_sampler)  # type: ignore[arg-type] # if it has one
        size, batch = len(self.dataset), self.batch_size or 1
        return size // batch if self.drop_last else -(-size // batch)

    def batches(self) -> Iterator[Any]:
        """The indices of an epoch, batch by batch."""
        if self.batch_sampler is not None:
            return iter(self.batch_sampler)
        order = np.random.permutation(len(self.dataset)) if self.shuffle else np.arange(len(self.dataset))
        size = self.batch_size
        if size is None:
            return iter(order.tolist())
        end = len(order) - len(order) % size if self.drop_last else len(order)
        return (order[start : min(start + size, end)].tolist() for start in range(0, end, size))

    def read(self, indices: Any) -> Any:
        """Reads one batch."""
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


class _Reading:
    """The batches that workers read: each one batch ahead, in turn, so that the order stays."""

    def __init__(self, loader: DataLoader) -> None:
        self._loader = loader
        self._batches = loader.batches()
        self.workers: list[Any] = []
        self.turns: deque[int] = deque()
        self._pipes: list[Connection] = []
        # Forked, so that datasets and functions of any kind get there as they are.
        context = multiprocessing.get_context("fork")
        base = int(np.random.randint(2**31))  # a forked process would have the streams of this one, or none that repeat
        for number in range(loader.num_workers):
            ours, theirs = context.Pipe()
            self._pipes.append(ours)
            given = loader, number, base + number, theirs, list(self._pipes)
            worker = context.Process(target=_work, args=given, daemon=True)
            worker.start()
            self.workers.append(worker)
            theirs.close()
            self._ask(number)

    def _ask(self, number: int) -> None:
        for indices in islice(self._batches, 1):
            self._pipes[number].send(indices)
            self.turns.append(number)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if not self.turns:
            self.close()
            raise StopIteration
        number = self.turns[0]
        if self._loader.timeout and not self._pipes[number].poll(self._loader.timeout):
            raise RuntimeError(f"Worker {number} of the loader has not answered for {self._loader.timeout} seconds.")
        try:
            batch, error = self._pipes[number].recv()
        except EOFError:
            raise RuntimeError("A worker of the loader has ended. What it printed says why.") from None
        self.turns.popleft()
        if error is not None:
            raise error
        self._ask(number)
        return batch

    def close(self) -> None:
        """Ends the workers."""
        for pipe in self._pipes:
            pipe.close()


def _work(loader: DataLoader, number: int, seed: int, pipe: Connection, of_parent: list[Connection]) -> None:
    """What a worker does until its pipe is closed, or the process at its other end is no more."""
    for other in of_parent:  # or it would keep them open itself
        other.close()
    python_random.seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    set_worker_info(WorkerInfo(number, loader.num_workers, loader.dataset))
    if loader.worker_init is not None:
        loader.worker_init(number)
    with suppress(EOFError, ConnectionError):  # its end; the latter where something was still on its way to the other
        while True:
            indices = pipe.recv()
            try:
                batch = loader.read(indices)
            except Exception as error:
                pipe.send((None, error))
                continue
            try:
                pipe.send((batch, None))
            except (AttributeError, TypeError, ValueError) as error:  # it can't be pickled
                pipe.send((None, error) if _instead is None else (_instead(error), None))


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

"""Streams of samples, read here or by workers.

Workers read a stream like any other data, by keys: each holds the stream, and a key asks it for its next batch. So what
is drawn while a batch is read is a function of (seed, epoch, number of the batch) with workers, too, also where they
persist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from dowdyboy_core.rand import derive_seed, numbered_seeds

from .dealt import tell_epoch
from .pool import WorkerPool
from .random_streams import RandomStreams
from .workers import KeyDataset, Reader, Workers


@dataclass(frozen=True)
class StreamSource:
    """The batches of a dataset without indices; each call starts it afresh.

    Attributes:
        dataset: has ``__iter__``.
        collate: makes a batch of a list of samples (or of one item, where the data comes batched).
        batch_size: samples in a batch; None where an item is a batch already.
        drop_last: leave out a last batch that is not full.
    """

    dataset: Any
    collate: Callable[[Any], Any]
    batch_size: int | None
    drop_last: bool = False

    def __call__(self) -> Iterator[Any]:
        """Starts the dataset at once, and gives its batches."""
        return self._batches(iter(self.dataset))

    def _batches(self, samples: Iterator[Any]) -> Iterator[Any]:
        if self.batch_size is None:
            yield from map(self.collate, samples)
            return
        while batch := list(islice(samples, self.batch_size)):
            if len(batch) < self.batch_size and self.drop_last:
                return
            yield self.collate(batch)


def same_source(one: Any, other: Any) -> bool:
    """Whether workers that hold one stream would give the batches of the other."""
    if not (isinstance(one, StreamSource) and isinstance(other, StreamSource)):
        return False
    same = one.dataset is other.dataset and one.collate is other.collate
    return same and (one.batch_size, one.drop_last) == (other.batch_size, other.drop_last)


@dataclass(frozen=True)
class StreamKey:
    """Asks for the next batch of a worker's stream.

    Attributes:
        turn: the number of the epoch among all that these workers have read; a new one starts the stream afresh.
        begin: the seed of what the stream draws when it starts, in the first worker.
        seed: the seed of what is drawn while this batch is read.
        epoch: of which a worker that persists tells the dataset.
    """

    turn: int
    begin: int
    seed: int
    epoch: int


@dataclass(frozen=True)
class EndOfStream:
    """What a worker gives when its stream is at its end."""

    worker: int | None


class ReadStream(Reader):
    """Reads the stream of one worker, batch by batch."""

    def __init__(self, source: StreamSource, workers: Workers | None, streams: RandomStreams) -> None:
        super().__init__(source.dataset, workers)
        self._source = source
        self._streams = streams
        self._turn: int | None = None
        self._batches: Iterator[Any] = iter(())

    def read(self, key: StreamKey) -> Any:
        """Gives the next batch, or :class:`EndOfStream`."""
        if key.turn != self._turn:
            if self._turn is not None:
                tell_epoch(self._source.dataset, key.epoch)
            self._turn = key.turn
            self._streams.seed(derive_seed(key.begin, "worker", self.worker) if self.worker else key.begin)
            self._batches = self._source()
        self._streams.seed(key.seed)
        return next(self._batches, EndOfStream(self.worker))

    def read_here(self, key: StreamKey) -> Any:
        """The same in the process that trains, for a loader whose workers are none."""
        with self._streams.isolated(key.seed):
            return self.read(key)


class StreamKeys:
    """The batch sampler that a native loader runs on: endless until it is told to end.

    It ends after as many keys as make whole rounds, so that in the next epoch the first worker begins again.

    Args:
        workers: how many read.
        global_number: the number among all batches of all processes, of what this process reads at a place.
    """

    def __init__(self, workers: int, global_number: Callable[[int], int]) -> None:
        self._workers = workers
        self._global_number = global_number
        self._turn = 0
        self._seed = self._epoch = 0
        self._ended = False

    def begin(self, seed: int, epoch: int) -> None:
        """Has what is iterated over next be the keys of an epoch."""
        self._seed, self._epoch = seed, epoch
        self._turn += 1
        self._ended = False

    def end(self) -> None:
        """Has the keys come to an end."""
        self._ended = True

    def __iter__(self) -> Iterator[list[StreamKey]]:
        begin = derive_seed(self._seed, "stream", self._epoch)
        seed_of = numbered_seeds(self._seed, "batch", self._epoch)
        number = 0
        while number % self._workers or not self._ended:
            # The first batch of each worker is drawn alike in all processes: there a stream decides on an order.
            place = number if number < self._workers else self._global_number(number)
            yield [StreamKey(self._turn, begin, seed_of(place), self._epoch)]
            number += 1


class StreamPool:
    """The workers that read a stream: each all of it, unless it divides itself by the number of the worker."""

    def __init__(
        self,
        source: StreamSource,
        workers: Workers,
        streams: RandomStreams,
        seed: int,
        global_number: Callable[[int], int],
        role: str,
        warn: Callable[[str], None],
    ) -> None:
        self._count = workers.count
        self._seed = seed
        self._keys = StreamKeys(workers.count, global_number)
        reader = ReadStream(source, workers, streams)
        self._pool = WorkerPool(workers, KeyDataset(0), self._keys, reader, streams, seed, role, warn)
        self.close = self._pool.close

    @property
    def lost(self) -> dict[int, str]:
        """What became of workers that were no more when the last epoch was left."""
        return self._pool.lost

    def batches(self, epoch: int) -> Iterator[Any]:
        """Starts the stream afresh in all workers, and gives their batches in turn, of each as many as it has."""
        self._keys.begin(self._seed, epoch)
        return self._until_all_have_ended(self._pool.batches(epoch))

    def _until_all_have_ended(self, batches: Iterator[Any]) -> Iterator[Any]:
        ended = set()
        for batch in batches:
            if not isinstance(batch, EndOfStream):
                yield batch
                continue
            ended.add(batch.worker)
            if len(ended) == self._count:
                self._keys.end()  # what has been asked for until now is given, and says the same

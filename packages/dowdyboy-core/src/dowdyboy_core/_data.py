"""Loaders that know their place: which batches are this process's, in an order that (seed, epoch) fixes.

A backend takes a native loader apart into :class:`MapParts` or :class:`StreamParts`; everything else here is
the same for every framework. The batches, not the samples, are dealt out: of the one global sequence, rank r of
W takes the batches r, r+W, …
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from ._dealt import tell_epoch
from ._order import Batching
from ._rng import RandomStreams
from .rand import derive_seed, numbered_seeds


@dataclass(frozen=True)
class MapParts:
    """A native loader over data that is read by index.

    Attributes:
        dataset: has ``__getitem__``, and ``__getitems__`` if it likes to be asked for a batch at once.
        batching: the batches of indices.
        collate: makes a batch of a list of samples (or of one item, where the data comes batched).
        batched: whether the batching gives lists of indices.
        workers: how many processes read.
        with_workers: builds a native loader with those processes from a dataset, batch sampler and collate function.
        end_workers: ends the workers of an iterator of that loader that was not read to its end.
        read_at_once: makes a batch of a list of indices faster than ``dataset`` and ``collate`` do, and without drawing
            random numbers, which saves the seeding of every batch; None where there is no such way.
    """

    dataset: Any
    batching: Batching
    collate: Callable[[Any], Any]
    batched: bool
    workers: int
    with_workers: Callable[[Any, Any, Callable[[Any], Any]], Iterable[Any]]
    end_workers: Callable[[Any], None]
    read_at_once: Callable[[Sequence[int]], Any] | None = None


@dataclass(frozen=True)
class StreamParts:
    """Data that comes as a stream of batches, with or without a length.

    Attributes:
        batches: starts the stream of batches of an epoch.
        count: how many there are, None if only running it tells.
        lazy: whether random numbers may be drawn while it runs, in this process.
        end_workers: ends the workers of a stream that was not read to its end; None where there are none.
        samplers: the samplers of the user's own that run with it.
        streams: the data that it comes from, where that has no indices.
    """

    batches: Callable[[], Iterator[Any]]
    count: int | None
    lazy: bool = True
    end_workers: Callable[[Any], None] | None = None
    samplers: Sequence[Any] = ()
    streams: Sequence[Any] = ()


@dataclass(frozen=True)
class Share:
    """The place of this process among all of them.

    Attributes:
        rank: its number.
        world_size: how many there are.
        dealt: whether what it reads is its share already.
    """

    rank: int = 0
    world_size: int = 1
    dealt: bool = False

    def number(self, place: int) -> int:
        """The number in the global sequence of what this process reads at a place."""
        return place * self.world_size + self.rank if self.dealt else place


@dataclass(frozen=True)
class BatchKey:
    """What one batch is made of: its indices, the seed of whatever is drawn while it is read, and its epoch."""

    seed: int
    indices: Any
    epoch: int | None = None


class KeyDataset:
    """Stands in for the dataset in a native loader: gives back the key, since ``ReadBatch`` does the reading."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, key: BatchKey) -> BatchKey:
        return key


class ReadBatch:
    """Reads and collates one batch with every random stream seeded for it.

    It stands in for the collate function of a native loader, so that reading and collating run in one place
    under one seed, in a worker or here, and augmentation depends neither on the number of workers nor on where
    a run was resumed.
    """

    def __init__(self, parts: MapParts, streams: RandomStreams) -> None:
        self._dataset = parts.dataset
        self._collate = parts.collate
        self._batched = parts.batched
        self._at_once = parts.read_at_once
        self._streams = streams
        self._home = os.getpid()
        self.epoch: int | None = None  # that the dataset knows of, here or when a worker was started

    def __call__(self, keys: list[BatchKey]) -> Any:
        """Gives the batch of the one key in ``keys``."""
        (key,) = keys
        if key.epoch != self.epoch:  # in a worker that persists
            self.epoch = key.epoch
            tell_epoch(self._dataset, key.epoch or 0)
        if self._at_once is not None:
            return self._at_once(key.indices)
        if os.getpid() != self._home:
            self._streams.seed(key.seed)  # a worker has nothing to put back
            return self._read(key.indices)
        put_back = self._streams.set_aside(key.seed)
        try:
            return self._read(key.indices)
        finally:
            put_back()

    def _read(self, indices: Any) -> Any:
        if not self._batched:
            return self._collate(self._dataset[indices])
        if getattr(self._dataset, "__getitems__", None) is not None:
            return self._collate(self._dataset.__getitems__(indices))
        return self._collate([self._dataset[index] for index in indices])


class EpochLoader(ABC):
    """The batches of this process, epoch by epoch."""

    def __init__(self, end_workers: Callable[[Any], None] | None) -> None:
        self._end_workers = end_workers
        self._unread: Iterator[Any] | None = None  # what workers read, as long as it isn't at its end

    @abstractmethod
    def count(self) -> int | None:
        """How many batches this process gets in an epoch; None if only running it tells."""

    @abstractmethod
    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """The batches of one epoch, without the first ``start`` of this process."""

    def close(self) -> None:
        """Ends the workers of an epoch that was left before its end; they might go on for as long as the process."""
        unread, self._unread = self._unread, None
        if unread is not None and self._end_workers is not None:
            self._end_workers(unread)

    def _to_the_end(self, batches: Iterator[Any]) -> Iterator[Any]:
        yield from batches
        if self._unread is batches:
            self._unread = None


def open_loader(
    parts: MapParts | StreamParts, streams: RandomStreams, seed: int, share: Share, *, fill_up: bool
) -> EpochLoader:
    """Gives the loader of this process for what a backend took a native loader apart into.

    Args:
        parts: the native loader's parts.
        streams: the random streams of this process.
        seed: the seed of this loader's order and augmentation.
        share: which part of the batches is this process's.
        fill_up: complete the last round from the start of the epoch, so that all processes get equally many
            (for training); otherwise nothing is repeated (for evaluation).
    """
    if isinstance(parts, MapParts):
        return _MapLoader(parts, streams, seed, share, fill_up)
    return _StreamLoader(parts, streams, seed, share, fill_up)


class _MapLoader(EpochLoader):
    def __init__(self, parts: MapParts, streams: RandomStreams, seed: int, share: Share, fill_up: bool) -> None:
        super().__init__(parts.end_workers)
        self._parts = parts
        self._streams = streams
        self._seed = seed
        self.share = share
        self._fill_up = fill_up
        self._read = ReadBatch(parts, streams)
        self._position = (1, 0)
        self._native: Iterable[Any] | None = None
        self.looks = 0  # how often the first batch of all comes before those of this process, to be looked at

    def take(self, parts: MapParts) -> bool:
        """Goes on with the batches of other parts; False where more than these are other ones."""
        ours = self._parts
        same = parts.dataset is ours.dataset and parts.collate is ours.collate and parts.batched == ours.batched
        if not same or parts.workers != ours.workers or (parts.read_at_once is None) != (ours.read_at_once is None):
            return False
        self._parts = parts
        return True

    def count(self) -> int | None:
        return _share_of(self._parts.batching.count(), self.share, self._fill_up)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        self._position = (epoch, start)
        self._read.epoch = epoch
        if not self._parts.workers:
            at_once = self._parts.read_at_once
            if at_once is not None:
                return (at_once(indices) for _, indices in self._numbered())
            return map(self._read, self._keys())
        if self._native is None:  # kept, so that persistent workers persist
            size = len(self._parts.dataset) if hasattr(self._parts.dataset, "__len__") else 0
            self._native = self._parts.with_workers(KeyDataset(size), _KeySampler(self), self._read)
        # Starting workers draws a seed of theirs from a global stream; the run's own must not notice.
        with self._streams.isolated(derive_seed(self._seed, "workers", epoch)):
            self._unread = iter(self._native)
        return self._to_the_end(self._unread)

    def close(self) -> None:
        """Lets go of the native loader, too, if its workers were ended."""
        if self._unread is not None:
            self._native = None
        super().close()

    def _numbered(self) -> Iterator[tuple[int, Any]]:
        """The batches of this process, as indices, each with its number among all."""
        epoch, start = self._position
        batches = enumerate(self._parts.batching.batches(self._seed, epoch))
        own = islice(deal(batches, self.share, self._fill_up), start, None)
        if not self.looks:
            return own
        first = islice(enumerate(self._parts.batching.batches(self._seed, epoch)), 1)
        return chain(*([item] * self.looks for item in first), own)

    def _keys(self) -> Iterator[list[BatchKey]]:
        seed_of = numbered_seeds(self._seed, "batch", self._position[0])
        for number, indices in self._numbered():
            yield [BatchKey(seed_of(self.share.number(number)), indices, self._position[0])]


class _KeySampler:
    """The batch sampler that a native loader with workers runs on."""

    def __init__(self, loader: _MapLoader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[list[BatchKey]]:
        return self._loader._keys()

    def __len__(self) -> int:
        count = self._loader.count()
        if count is None:
            raise TypeError("The batch sampler has no length.")
        return count


class _StreamLoader(EpochLoader):
    def __init__(self, parts: StreamParts, streams: RandomStreams, seed: int, share: Share, fill_up: bool) -> None:
        super().__init__(parts.end_workers)
        self._parts = parts
        self._streams = streams
        self._seed = seed
        self.share = share
        self._fill_up = fill_up
        self.look: Callable[[Iterator[Any]], Iterator[Any]] | None = None  # what looks at the batches first

    def count(self) -> int | None:
        return _share_of(self._parts.count, self.share, self._fill_up)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        with self._streams.isolated(derive_seed(self._seed, "stream", epoch)):
            batches = self._parts.batches()
        if self._parts.end_workers is not None:
            self._unread = batches
            batches = self._to_the_end(batches)
        if self._parts.lazy:
            batches = self._own_stream(batches, epoch)
        if self.look is not None:
            batches = self.look(batches)
        return islice(deal(batches, self.share, self._fill_up), start, None)

    def _own_stream(self, batches: Iterator[Any], epoch: int) -> Iterator[Any]:
        """Runs the stream with random numbers that are a function of (seed, epoch, batch), like any other data.

        Where each process has a stream of its own, they draw alike for the first batch: there a stream decides on an
        order that the processes have to agree on.
        """
        done = object()
        number, seed_of = 0, numbered_seeds(self._seed, "batch", epoch)
        while True:
            with self._streams.isolated(seed_of(self.share.number(number) if number else 0)):
                batch = next(batches, done)
            if batch is done:
                return
            yield batch
            number += 1


def deal(batches: Iterable[Any], share: Share, fill_up: bool) -> Iterator[Any]:
    """Yields every ``world_size``-th of ``batches``, beginning with number ``rank``.

    With ``fill_up`` a last round that is not full is completed from the start of the sequence, so that every
    rank gets equally many.
    """
    if share.world_size == 1 or share.dealt:
        yield from batches
        return
    first: list[Any] = []
    number = -1
    for number, batch in enumerate(batches):
        if fill_up and len(first) < share.world_size - 1:
            first.append(batch)
        if number % share.world_size == share.rank:
            yield batch
    begun = (number + 1) % share.world_size
    if fill_up and begun and share.rank >= begun:
        yield first[(share.rank - begun) % len(first)]


def _share_of(count: int | None, share: Share, fill_up: bool) -> int | None:
    if count is None or share.dealt:
        return count
    rounds, begun = divmod(count, share.world_size)
    return rounds + (1 if begun and (fill_up or share.rank < begun) else 0)

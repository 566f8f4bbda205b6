"""Loaders that know their place: which batches are this process's, in an order that (seed, epoch) fixes.

A backend takes a native loader apart into :class:`MapParts` or :class:`StreamParts`; everything else here is
the same for every framework. The batches, not the samples, are dealt out: of the one global sequence, rank r of
W takes the batches r, r+W, …
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any

from dowdyboy_core import log
from dowdyboy_core.rand import derive_seed, numbered_seeds

from .forks import forks_apart
from .orders import Batching, known_length
from .own_states import LoaderState, has_state, put_in_place
from .pool import WorkerPool
from .random_streams import RandomStreams
from .reading import BatchKey, ReadBatch
from .shares import Share, deal, share_of
from .streams import StreamPool, StreamSource, same_source
from .workers import KeyDataset, Workers, alike


@dataclass(frozen=True)
class MapParts:
    """A native loader over data that is read by index.

    Attributes:
        dataset: has ``__getitem__``, and maybe ``__getitems__`` for a batch at once.
        batching: the batches of indices.
        collate: makes a batch of a list of samples (or of one item, where the data comes batched).
        batched: whether the batching gives lists of indices.
        workers: the processes that read; None where this one does.
        read_at_once: makes a batch of a list of indices faster than ``dataset`` and ``collate`` do, and without drawing
            random numbers, which saves the seeding of every batch; None where there is no such way.
        asks_at_once: whether the framework's own loader calls ``__getitems__``.
    """

    dataset: Any
    batching: Batching
    collate: Callable[[Any], Any]
    batched: bool
    workers: Workers | None = None
    read_at_once: Callable[[Sequence[int]], Any] | None = None
    asks_at_once: bool = True


@dataclass(frozen=True)
class StreamParts:
    """Data that comes as a stream of batches, with or without a length.

    Attributes:
        batches: starts the stream of batches of an epoch; with ``workers`` a :class:`StreamSource`.
        count: how many there are, None if only running it tells.
        lazy: whether random numbers may be drawn while it runs, in this process.
        end_workers: ends the workers of a native stream that was not read to its end; None where there are none.
        workers: the processes that read ``batches``, each for itself; None where this one does.
        samplers: the samplers of the user's own that run with it.
        streams: the data that it comes from, where that has no indices.
        itself: the user's own object, where that is iterated over as it is, and reads in this process alone.
    """

    batches: Callable[[], Iterator[Any]]
    count: int | None
    lazy: bool = True
    end_workers: Callable[[Any], None] | None = None
    workers: Workers | None = None
    samplers: Sequence[Any] = ()
    streams: Sequence[Any] = ()
    itself: Any = None


class EpochLoader(ABC):
    """The batches of this process, epoch by epoch."""

    @abstractmethod
    def count(self) -> int | None:
        """How many batches this process gets in an epoch; None if only running it tells."""

    @abstractmethod
    def everywhere(self) -> int | None:
        """How many batches every process gets at least; None if only running it tells."""

    def batch_size(self) -> int | None:
        """How many samples the user's loader says that a batch has; None if it says nothing."""
        return None

    @abstractmethod
    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """The batches of one epoch, without the first ``start`` of this process."""

    def state(self) -> LoaderState | None:
        """Where the user's own loader stands in the epoch under way, if it says so."""
        return None

    def take_up(self, state: LoaderState) -> None:
        """Has the next epoch go on from there, if the user's loader can."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Ends the workers of an epoch that was left before its end; they might go on for as long as the process."""

    def leave(self) -> None:
        """Leaves an epoch before its end, where another one may follow."""
        self.close()

    @abstractmethod
    def lost(self) -> dict[int, str]:
        """What became of workers that were no more when the last epoch was left, by the numbers of their processes."""


def open_loader(
    parts: MapParts | StreamParts,
    streams: RandomStreams,
    seed: int,
    share: Share,
    *,
    fill_up: bool,
    role: str = "train",
    warn: Callable[[str], None] = log.warn,
) -> MapLoader | StreamLoader:
    """Gives the loader of this process for what a backend took a native loader apart into.

    Args:
        parts: the native loader's parts.
        streams: the random streams of this process.
        seed: the seed of this loader's order and augmentation.
        share: which part of the batches is this process's.
        fill_up: complete the last round from the start of the epoch, so that all processes get equally many
            (for training); otherwise nothing is repeated (for evaluation).
        role: what the loader is for, as messages about its workers call it.
        warn: tells the user something.
    """
    if isinstance(parts, MapParts):
        loader = MapLoader(parts, streams, seed, share, fill_up)
        if parts.workers is not None:
            size = known_length(parts.dataset) or 0
            given = KeyDataset(size), _KeySampler(loader), loader.reader
            loader.pool = WorkerPool(parts.workers, *given, streams, seed, role, warn)
        return loader
    pool = None
    if parts.workers is not None and isinstance(parts.batches, StreamSource):
        pool = StreamPool(parts.batches, parts.workers, streams, seed, share.number, role, warn)
    return StreamLoader(parts, streams, seed, share, fill_up, pool)


class MapLoader(EpochLoader):
    """The batches of this process, of data that is read by index."""

    pool: WorkerPool | None = None

    def __init__(self, parts: MapParts, streams: RandomStreams, seed: int, share: Share, fill_up: bool) -> None:
        self._parts = parts
        self._seed = seed
        self.share = share
        self._fill_up = fill_up
        self.reader = ReadBatch(parts, streams)
        self._position = (1, 0)
        self.looks = 0  # how often the first batch of all comes before those of this process, to be looked at

    def take(self, parts: MapParts) -> bool:
        """Goes on with the batches of other parts; False where more than these are other ones."""
        ours = self._parts
        same = parts.dataset is ours.dataset and parts.collate is ours.collate and parts.batched == ours.batched
        if not same or not alike(parts.workers, ours.workers):
            return False
        self._parts = parts
        self.reader.at_once = parts.read_at_once
        return True

    def count(self) -> int | None:
        return share_of(self._parts.batching.count(), self.share, self._fill_up)

    def everywhere(self) -> int | None:
        return share_of(self._parts.batching.count(), self.share.last(), self._fill_up)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        self._position = (epoch, start)
        self.reader.epoch = epoch
        if self.pool is not None:
            return self.pool.batches(epoch)
        at_once = self._parts.read_at_once
        if at_once is not None:
            return (at_once(indices) for _, indices in self._numbered())
        return self._read_here()

    def _read_here(self) -> Iterator[Any]:
        for keys in self.keys():  # and not map: a StopIteration of the dataset's would end the epoch without a word
            yield self.reader(keys)

    def lost(self) -> dict[int, str]:
        return {} if self.pool is None else self.pool.lost

    def close(self) -> None:
        """Ends the workers, if they have not come to the end."""
        if self.pool is not None:
            self.pool.close()

    def _numbered(self) -> Iterator[tuple[int, Any]]:
        """The batches of this process, as indices, each with its number among all."""
        epoch, start = self._position
        batches = enumerate(self._parts.batching.batches(self._seed, epoch))
        own = islice(deal(batches, self.share, self._fill_up), start, None)
        if not self.looks:
            return own
        first = islice(enumerate(self._parts.batching.batches(self._seed, epoch)), 1)
        return chain(*([item] * self.looks for item in first), own)

    def keys(self) -> Iterator[list[BatchKey]]:
        seed_of = numbered_seeds(self._seed, "batch", self._position[0])
        for number, indices in self._numbered():
            yield [BatchKey(seed_of(self.share.number(number)), indices, self._position[0])]


class _KeySampler:
    """The batch sampler that a native loader with workers runs on; it doesn't hold what holds the workers."""

    def __init__(self, loader: MapLoader) -> None:
        self._loader = weakref.ref(loader)

    def __iter__(self) -> Iterator[list[BatchKey]]:
        loader = self._loader()
        return iter(()) if loader is None else loader.keys()

    def __len__(self) -> int:
        loader = self._loader()
        count = None if loader is None else loader.count()
        if count is None:
            raise TypeError("The batch sampler has no length.")
        return count


class StreamLoader(EpochLoader):
    """The batches of this process, of data that comes as a stream."""

    def __init__(
        self,
        parts: StreamParts,
        streams: RandomStreams,
        seed: int,
        share: Share,
        fill_up: bool,
        pool: StreamPool | None,
    ) -> None:
        self._parts = parts
        self._streams = streams
        self._seed = seed
        self.share = share
        self._fill_up = fill_up
        self._pool = pool
        self._unread: Iterator[Any] | None = None  # what workers of the native loader's own read, until its end
        self.look: Callable[[Iterator[Any]], Iterator[Any]] | None = None  # what looks at the batches first
        self.before: LoaderState | None = None  # where the user's own loader begins the next epoch
        self._given: int | None = None  # how many batches the stream has given, while it runs

    def take(self, parts: StreamParts) -> bool:
        """Goes on with other parts; False where those are read by other workers, or by workers who know of these."""
        ours = self._parts
        if not alike(parts.workers, ours.workers) or (
            self._pool is not None and not same_source(parts.batches, ours.batches)
        ):
            return False
        self._parts = parts
        return True

    def count(self) -> int | None:
        return share_of(self._parts.count, self.share, self._fill_up)

    def everywhere(self) -> int | None:
        return share_of(self._parts.count, self.share.last(), self._fill_up)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        before, self.before = self.before, None
        done = 0 if before is None else before.number
        batches = self._batches(epoch, before)
        if self.look is not None:
            batches = self.look(batches)
        own = deal(batches, self.share, self._fill_up, done, partial(self.head, epoch))
        return islice(own, start - self.share.given(done), None)

    def _batches(self, epoch: int, before: LoaderState | None) -> Iterator[Any]:
        self._given = None
        if self._pool is not None:
            return self._pool.batches(epoch)
        with self._streams.isolated(derive_seed(self._seed, "stream", epoch)), forks_apart():
            if before is not None:
                put_in_place(self._parts.itself, before.state)
            batches = self._parts.batches()
        if self._parts.end_workers is not None:
            self._unread = batches
            batches = self._to_the_end(batches)
        return self._own_stream(batches, epoch, before.number if before else 0) if self._parts.lazy else batches

    def head(self, epoch: int, number: int) -> list[Any]:
        """The first so many batches of all, read anew; for one that goes on with the rest of them."""
        batches = self._batches(epoch, None)
        found = list(islice(batches, number))
        self.close()
        return found

    def state(self) -> LoaderState | None:
        if self.before is not None:
            return self.before
        itself = self._parts.itself
        if self._given is None or itself is None or not has_state(itself):
            return None
        return LoaderState(self._given, itself.state_dict())

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
        unread, self._unread = self._unread, None
        if unread is not None and self._parts.end_workers is not None:
            self._parts.end_workers(unread)

    def lost(self) -> dict[int, str]:
        return {} if self._pool is None else self._pool.lost

    def _to_the_end(self, batches: Iterator[Any]) -> Iterator[Any]:
        yield from batches
        if self._unread is batches:
            self._unread = None

    def _own_stream(self, batches: Iterator[Any], epoch: int, first: int) -> Iterator[Any]:
        """Runs the stream with random numbers that are a function of (seed, epoch, batch), like any other data.

        Where each process has a stream of its own, they draw alike for the first batch: there a stream decides on an
        order that the processes have to agree on.
        """
        done = object()
        number, seed_of = first, numbered_seeds(self._seed, "batch", epoch)
        while True:
            # It may start workers of its own.
            with self._streams.isolated(seed_of(self.share.number(number) if number else 0)), forks_apart():
                batch = next(batches, done)
            if batch is done:
                self._given = None
                return
            number += 1
            self._given = number
            yield batch

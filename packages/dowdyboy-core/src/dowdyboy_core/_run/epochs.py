"""A user's loader over the epochs of a run: taken apart when each of them begins, and compared between processes.

Between two epochs a dataset may grow, weights may move, a batch size may change; what an epoch is made of is what the
loader says when it begins. With several processes, what they see is compared then, so that none trains on the wrong
data, or waits for a batch that another one doesn't have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from typing import Any, Protocol

from dowdyboy_core.backend.arrays import Array
from dowdyboy_core.backend.dealt import Dealing, find_dealing, tell_epoch
from dowdyboy_core.backend.loaders import EpochLoader, MapLoader, MapParts, StreamLoader, StreamParts, open_loader
from dowdyboy_core.backend.orders import Batching
from dowdyboy_core.backend.own_states import LoaderState, has_state
from dowdyboy_core.backend.random_streams import RandomStreams
from dowdyboy_core.backend.shares import Share, share_of
from dowdyboy_core.rand import derive_seed

from .agreement import check_parts, check_same, in_rounds
from .digests import digest_of
from .passes import Counted, OnePass, asked_lazily

Split = Callable[[], "MapParts | StreamParts"]


class Gathering(Protocol):
    """What a backend gives to compare by."""

    def gather(self, value: Any) -> list[Any]:
        """A value of every process."""

    def largest(self, numbers: Any) -> list[int]:
        """For each place the largest of the numbers that the processes give."""


@dataclass(frozen=True)
class Compared:
    """By what processes compare what they see.

    Attributes:
        exchange: how they talk.
        plain: gives a tensor as plain data, and None for what is none.
    """

    exchange: Gathering
    plain: Callable[[Any], Array | None]


class Epochs(EpochLoader):
    """The batches of this process, of a loader that is taken apart anew for each epoch.

    Args:
        role: of the loader.
        loader: what the user gave.
        split: takes it apart.
        streams: the random streams of this process.
        seed: the seed of this loader's order and augmentation.
        share: which part of the batches is this process's.
        fill_up: complete the last round from the start of the epoch.
        compared: by what the processes compare what they see.
        warn: tells the user something.
    """

    def __init__(
        self,
        role: str,
        loader: Any,
        split: Split,
        streams: RandomStreams,
        seed: int,
        share: Share,
        *,
        fill_up: bool,
        compared: Compared,
        warn: Callable[[str], None],
    ) -> None:
        self._role = role
        self._loader = loader
        self._split = split
        self._streams = streams
        self._seed = seed
        self._share = share
        self._fill_up = fill_up
        self._compared = compared
        self._warn = warn
        self._inner: MapLoader | StreamLoader | None = None
        self._looked = False
        self._pending: LoaderState | None = None

    def count(self) -> int | None:
        return self._count_of(self._share)

    def everywhere(self) -> int | None:
        return self._count_of(self._share.last())

    def batch_size(self) -> int | None:
        for owner in (self._loader, getattr(self._loader, "batch_sampler", None)):
            size = getattr(owner, "batch_size", None)
            if type(size) is int:
                return size
        return None

    def _count_of(self, share: Share) -> int | None:
        parts = self._split()
        count = parts.batching.count() if isinstance(parts, MapParts) else parts.count
        if not isinstance(self._dealing(parts), Dealing):
            return share_of(count, share, self._fill_up)
        return count if share == self._share else None  # nobody knows how many others were dealt

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        parts, dealing, looks = self._begin(epoch)
        if isinstance(parts, MapParts):
            return self._map_epoch(parts, dealing, epoch, start, looks)
        return self._stream_epoch(parts, dealing, epoch, start, looks)

    def _begin(self, epoch: int) -> tuple[MapParts | StreamParts, Dealing | bool | None, bool]:
        with self._streams.isolated(derive_seed(self._seed, "epoch", epoch)):
            tell_epoch(self._loader, epoch)
        parts = self._split()
        looks, self._looked = not self._looked and self._share.world_size > 1, True
        return parts, self._dealing(parts), looks

    def one_pass(self, number: int, place: Callable[[bool], int], *, compare: bool) -> OnePass:
        """One pass over the data, as a part of an endless sequence: no round of it is filled up.

        Args:
            number: of the pass.
            place: gives the batch of it to begin with, by whether it comes dealt out.
            compare: compare what the processes see; all of them must be here then.
        """
        parts, dealing, looks = self._begin(number)
        share = self._share_by(dealing)
        start, rounds = place(share.dealt), 1 if share.dealt else share.world_size
        if not share.dealt:
            share = replace(share, rank=start % rounds)
        compare = compare and share.world_size > 1
        if isinstance(parts, MapParts):
            counted = Counted(partial(self._order_of, parts.batching, number), parts.batching.count())
            inner = self._map_loader(replace(parts, batching=counted), share)
            if compare:
                batches = self._compared_map(inner, counted, dealing, number, start // rounds, looks)
            else:
                batches = inner.epoch(number, start // rounds)
            return OnePass(batches, counted, share.dealt)
        counted = Counted(lambda: iter(()), parts.count)
        stream = self._stream_loader(parts, share)
        before = self._before(parts, share, start // rounds)
        stream.before = before
        done = 0 if before is None else before.number
        known = parts.count if before is None else None  # of another pass than that of another process, maybe
        look = partial(self._look, known, dealing, looks and before is None) if compare else iter
        stream.look = lambda read: counted.counting(look(read), done)
        return OnePass(stream.epoch(number, start // rounds), counted, share.dealt)

    def _order_of(self, batching: Batching, number: int) -> Iterator[Any]:
        if not batching.samplers():
            return batching.batches(self._seed, number)
        start = partial(batching.start, self._seed, number)
        return asked_lazily(start, self._streams, derive_seed(self._seed, "order", number))

    def state(self) -> LoaderState | None:
        if self._pending is not None:
            return self._pending
        return self._inner.state() if isinstance(self._inner, StreamLoader) else None

    def take_up(self, state: LoaderState) -> None:
        self._pending = state

    def _before(self, parts: StreamParts, share: Share, start: int) -> LoaderState | None:
        """What the user's loader goes on from, where it can; else it is run on."""
        pending, self._pending = self._pending, None
        usable = pending is not None and has_state(parts.itself) and share.given(pending.number) <= start
        return pending if usable else None

    def close(self) -> None:
        """Ends the workers of an epoch that was left before its end."""
        if self._inner is not None:
            self._inner.close()

    def lost(self) -> dict[int, str]:
        return {} if self._inner is None else self._inner.lost()

    def _dealing(self, parts: MapParts | StreamParts) -> Dealing | bool | None:
        if self._share.world_size == 1:
            return None
        if isinstance(parts, MapParts):
            return find_dealing(self._loader, parts.batching.samplers(), (), self._share.world_size)
        return find_dealing(self._loader, parts.samplers, parts.streams, self._share.world_size)

    def _share_by(self, dealing: Dealing | bool | None) -> Share:
        return replace(self._share, dealt=isinstance(dealing, Dealing))

    # ---- data that is read by index: its batches are known before the first one is read

    def _map_epoch(
        self, parts: MapParts, dealing: Dealing | bool | None, epoch: int, start: int, looks: bool
    ) -> Iterator[Any]:
        drawn = parts.batching.draw(self._seed, epoch)
        share = self._share_by(dealing)
        inner = self._map_loader(replace(parts, batching=drawn), share)
        if share.world_size == 1:
            return inner.epoch(epoch, start)
        return self._compared_map(inner, drawn, dealing, epoch, start, looks)

    def _compared_map(
        self, inner: MapLoader, drawn: Batching, dealing: Dealing | bool | None, epoch: int, start: int, looks: bool
    ) -> Iterator[Any]:
        first = next((self._digest(item) for item in drawn.batches(self._seed, epoch)), None)
        gather = self._compared.exchange.gather
        if isinstance(dealing, Dealing):
            seen = first if looks and dealing.part is not None else None
            check_parts(self._role, gather, dealing, drawn.count(), seen)
            return inner.epoch(epoch, start)
        inner.looks = 2 if looks and dealing is None and first is not None else 0
        batches = inner.epoch(epoch, start)
        content = {self._digest(batch) for batch in islice(batches, inner.looks)}
        inner.looks = 0
        # What is another one when it is read again says nothing of the data.
        same = content.pop() if len(content) == 1 else None
        check_same(self._role, gather, drawn.count(), [] if dealing is False else [first, same])
        return batches

    def _map_loader(self, parts: MapParts, share: Share) -> MapLoader:
        inner = self._inner
        if not (isinstance(inner, MapLoader) and inner.share.dealt == share.dealt and inner.take(parts)):
            inner = self._open(parts, share)
            assert isinstance(inner, MapLoader)
        inner.share = share
        return inner

    def _open(self, parts: MapParts | StreamParts, share: Share) -> MapLoader | StreamLoader:
        """Opens the loader for an epoch, when that of the one before won't do."""
        self.close()
        self._inner = open_loader(
            parts, self._streams, self._seed, share, fill_up=self._fill_up, role=self._role, warn=self._warn
        )
        return self._inner

    # ---- data that comes as it comes: its first batch tells

    def _stream_epoch(
        self, parts: StreamParts, dealing: Dealing | bool | None, epoch: int, start: int, looks: bool
    ) -> Iterator[Any]:
        share = self._share_by(dealing)
        inner = self._stream_loader(parts, share)
        before = self._before(parts, share, start)
        inner.before = before
        if share.world_size == 1:
            return inner.epoch(epoch, start)
        inner.look = partial(self._look, parts.count, dealing, looks and before is None)
        if self._role != "train" or dealing is None:
            return inner.epoch(epoch, start)
        exchange, name = self._compared.exchange, type(self._loader).__name__
        dealer = dealing.dealer if isinstance(dealing, Dealing) else name
        done = 0 if before is None else share.given(before.number)
        rounds = inner.epoch(epoch, done)
        return in_rounds(
            rounds, start, exchange.gather, exchange.largest, dealer, done, lambda number: self._first(epoch, number)
        )

    def _first(self, epoch: int, number: int) -> list[Any]:
        assert isinstance(self._inner, StreamLoader)
        return self._inner.head(epoch, number)

    def _stream_loader(self, parts: StreamParts, share: Share) -> StreamLoader:
        inner = self._inner
        if not (isinstance(inner, StreamLoader) and inner.share.dealt == share.dealt and inner.take(parts)):
            inner = self._open(parts, share)
            assert isinstance(inner, StreamLoader)
        inner.share = share
        return inner

    def _look(
        self, count: int | None, dealing: Dealing | bool | None, looks: bool, batches: Iterator[Any]
    ) -> Iterator[Any]:
        """Compares the first batch, and gives all of them."""
        gather = self._compared.exchange.gather
        wanted = looks and (dealing is None or (isinstance(dealing, Dealing) and dealing.part is not None))
        first = list(islice(batches, int(wanted)))
        digest = (self._digest(first[0]) if first else "none") if wanted else None
        if isinstance(dealing, Dealing):
            check_parts(self._role, gather, dealing, count, digest)
        else:
            check_same(self._role, gather, count, [digest])
        return chain(first, batches)

    def _digest(self, batch: Any) -> str:
        return digest_of(batch, self._compared.plain)

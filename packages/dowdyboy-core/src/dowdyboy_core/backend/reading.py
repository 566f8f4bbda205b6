"""One batch read by index, with every random stream seeded for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .dealt import tell_epoch
from .random_streams import RandomStreams
from .workers import Reader

if TYPE_CHECKING:
    from .loaders import MapParts


@dataclass(frozen=True)
class BatchKey:
    """What one batch is made of: its indices, the seed of whatever is drawn while it is read, and its epoch."""

    seed: int
    indices: Any
    epoch: int | None = None


class ReadBatch(Reader):
    """Reads and collates one batch with every random stream seeded for it.

    It stands in for the collate function of a native loader, so that reading and collating run in one place
    under one seed, in a worker or here, and augmentation depends neither on the number of workers nor on where
    a run was resumed.
    """

    def __init__(self, parts: MapParts, streams: RandomStreams) -> None:
        super().__init__(parts.dataset, parts.workers)
        self._collate = parts.collate
        self._batched = parts.batched
        self.at_once = parts.read_at_once
        self._asks_at_once = parts.asks_at_once
        self._streams = streams
        self.epoch: int | None = None  # that the dataset knows of, here or when a worker was started

    def read(self, key: BatchKey) -> Any:
        """Reads a batch in a worker, which has nothing to put back."""
        if key.epoch != self.epoch:  # in a worker that persists
            self.epoch = key.epoch
            tell_epoch(self.dataset, key.epoch or 0)
        if self.at_once is not None:
            return self.at_once(key.indices)
        self._streams.seed(key.seed)
        return self._read(key.indices)

    def read_here(self, key: BatchKey) -> Any:
        """Reads a batch and puts the random streams back."""
        if self.at_once is not None:
            return self.at_once(key.indices)
        put_back = self._streams.set_aside(key.seed)
        try:
            return self._read(key.indices)
        finally:
            put_back()

    def _read(self, indices: Any) -> Any:
        if not self._batched:
            return self._collate(self.dataset[indices])
        if self._asks_at_once and getattr(self.dataset, "__getitems__", None) is not None:
            return self._collate(self.dataset.__getitems__(indices))
        return self._collate([self.dataset[index] for index in indices])

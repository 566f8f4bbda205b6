"""How the batches of an epoch are dealt out over the processes: rank r of W takes every W-th, from number r on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any


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

    def given(self, number: int) -> int:
        """How many of the first batches, so many, are this process's."""
        if self.dealt or self.world_size == 1:
            return number
        return max(0, -(-(number - self.rank) // self.world_size))

    def last(self) -> Share:
        """The place of the process that gets no more batches than any other."""
        return replace(self, rank=self.world_size - 1)


def deal(
    batches: Iterable[Any], share: Share, fill_up: bool, done: int = 0, head: Callable[[int], list[Any]] | None = None
) -> Iterator[Any]:
    """Yields every ``world_size``-th of ``batches``, beginning with number ``rank``.

    With ``fill_up`` a last round that is not full is completed from the start of the sequence, so that every
    rank gets equally many.

    Args:
        batches: all of them, or those that are left.
        share: the place of this process.
        fill_up: whether to complete a last round.
        done: how many came before ``batches``.
        head: gives the first so many of all, where ``batches`` doesn't begin with them.
    """
    if share.world_size == 1 or share.dealt:
        yield from batches
        return
    first: list[Any] = []
    number = done - 1
    for number, batch in enumerate(batches, done):
        if fill_up and not done and len(first) < share.world_size - 1:
            first.append(batch)
        if number % share.world_size == share.rank:
            yield batch
    begun = (number + 1) % share.world_size
    if fill_up and begun and share.rank >= begun:
        if done and head is not None:
            first = head(min(number + 1, share.world_size - 1))
        yield first[(share.rank - begun) % len(first)]


def share_of(count: int | None, share: Share, fill_up: bool) -> int | None:
    """How many of ``count`` batches are a process's."""
    if count is None or share.dealt:
        return count
    rounds, begun = divmod(count, share.world_size)
    return rounds + (1 if begun and (fill_up or share.rank < begun) else 0)

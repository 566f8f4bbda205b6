"""Epochs of so many steps, while the data goes on from pass to pass underneath.

The passes follow one another as one endless sequence of batches, which is dealt out over the processes. What a pass is
made of is a function of its number, as an epoch is where each pass is one; so a place in the sequence is the number of
a pass and a batch in it, and nothing before that is read again when a run goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Protocol

from dowdyboy_core._errors import SetupError
from dowdyboy_core.backend.loaders import EpochLoader
from dowdyboy_core.backend.orders import Batching
from dowdyboy_core.backend.own_states import LoaderState
from dowdyboy_core.backend.random_streams import RandomStreams

from .position import Position

_BLOCK = 64
"""How many batches a sampler is asked for at once, at most; each time its random streams are put in place."""


class Counted(Batching):
    """Batches that are gone through once, and counted: at the end it shows how many there were.

    Args:
        start: starts them.
        known: how many there are said to be.

    Attributes:
        total: how many there were; None before the end.
    """

    def __init__(self, start: Callable[[], Iterator[Any]], known: int | None) -> None:
        self._start = start
        self._known = known
        self._first: list[Any] | None = None
        self._rest: Iterator[Any] = iter(())
        self.total: int | None = None

    def count(self) -> int | None:
        return self._known

    def batches(self, seed: int = 0, epoch: int = 0) -> Iterator[Any]:
        """Yields them; the first one may be looked at before."""
        if self._first is None:
            batches = iter(self._start())
            self._first = list(islice(batches, 1))
            self._rest = self.counting(batches, len(self._first))
        return chain(self._first, self._rest)

    def counting(self, batches: Iterator[Any], before: int = 0) -> Iterator[Any]:
        """Yields batches and counts them."""
        number = before
        for batch in batches:
            number += 1
            yield batch
        self.total = number


def asked_lazily(start: Callable[[], Iterator[Any]], streams: RandomStreams, seed: int) -> Iterator[Any]:
    """Yields what a sampler does that may have no end, as if it alone drew from the random streams.

    Args:
        start: starts the sampler.
        streams: the streams; between two blocks they are the training's.
        seed: what they begin with.
    """
    with streams.isolated(seed):
        items = start()
        block = list(islice(items, 1))
        state = streams.capture()
    size = 1
    while block:
        yield from block
        size = min(2 * size, _BLOCK)
        with streams.isolated(seed):
            streams.restore(state)
            block = list(islice(items, size))
            state = streams.capture()


@dataclass(frozen=True)
class OnePass:
    """One pass over the data, from a place on.

    Attributes:
        batches: those of this process.
        counted: how many all of them were, once they are at their end.
        dealt: whether the data came dealt out, and these are a pass of this process alone.
    """

    batches: Iterator[Any]
    counted: Counted
    dealt: bool


class Passable(Protocol):
    """A loader that gives its passes one by one."""

    def one_pass(self, number: int, place: Callable[[bool], int], *, compare: bool) -> OnePass:
        """One pass from a place on."""

    def close(self) -> None:
        """Ends the workers of a pass that was left before its end."""

    def state(self) -> LoaderState | None:
        """Where the user's own loader stands in the pass under way."""

    def take_up(self, state: LoaderState) -> None:
        """Has the next pass go on from there."""

    def lost(self) -> dict[int, str]:
        """What became of workers that are no more."""


class Passes(EpochLoader):
    """Training data, of which each epoch takes as many steps as it should have.

    Args:
        loader: gives the passes.
        steps: how many batches of this process make an epoch.
        position: how far the run has come, and so where in the passes.
        rank: the number of this process.
        world_size: how many there are.
    """

    def __init__(self, loader: Passable, steps: int, position: Position, rank: int, world_size: int) -> None:
        self._loader = loader
        self._steps = steps
        self._position = position
        self._rank = rank
        self._world_size = world_size
        self._running: Iterator[Any] | None = None
        self._reaches = 0  # the training step that the running sequence has come to when it is not read ahead

    def count(self) -> int:
        return self._steps

    def everywhere(self) -> int:
        return self._steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        wanted = self._steps - start
        if self._running is None or self._reaches != self._position.train_step:
            self.close()
            self._running = self._begin()
        self._reaches = self._position.train_step + wanted
        return islice(self._running, wanted)

    def state(self) -> LoaderState | None:
        return self._loader.state()

    def take_up(self, state: LoaderState) -> None:
        self._loader.take_up(state)

    def close(self) -> None:
        """Ends the workers; the next epoch starts them again at its place."""
        self._running = None
        self._loader.close()

    def leave(self) -> None:
        """Stays where it is: the data goes on from there."""

    def lost(self) -> dict[int, str]:
        return self._loader.lost()

    def _begin(self) -> Iterator[Any]:
        position = self._position
        number, batch = position.place()
        first = self._open(number, batch, compare=True)
        position.apart = first.dealt
        position.stride = 1 if first.dealt else self._world_size
        position.marks = [(position.train_step, number, batch)]
        return self._from(first)

    def _open(self, number: int, batch: int, *, compare: bool = False) -> OnePass:
        return self._loader.one_pass(number, lambda dealt: batch if dealt else batch + self._rank, compare=compare)

    def _from(self, one: OnePass) -> Iterator[Any]:
        """Yields the batches of this process, pass after pass."""
        marks, stride = self._position.marks, self._position.stride
        step, number, batch = marks[-1]
        while True:
            before = step
            for item in one.batches:
                step += 1
                yield item
            total = one.counted.total
            if not total:
                raise SetupError(
                    f"Pass {number} over the train data has no batch, and with steps_per_epoch={self._steps} it would "
                    "go on for ever. Give a loader with at least one batch (drop_last leaves out one that is not full)."
                )
            # The next round begins that far into the pass that follows; below 0 if another process is in this one yet.
            number, batch = number + 1, batch + (step - before) * stride - total
            one = self._open(number, batch)
            # Of what is read ahead by a batch none counts yet, and so the mark before is still needed.
            marks[:] = [*[mark for mark in marks if mark[0] < step][-2:], (step, number, batch)]

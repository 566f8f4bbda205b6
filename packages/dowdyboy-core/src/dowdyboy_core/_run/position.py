"""How far a run has come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_APART = ("running", "window_begins", "marks", "stride", "apart")


@dataclass
class Position:
    """How far a run has come: one object for the whole of it, which all that take part share.

    Attributes:
        epoch: epochs that are over.
        batch: training batches that are done of the next epoch, in this process.
        train_step: training steps so far.
        val_step: validation steps so far.
        best: the best value so far, None before there was one.
        best_epoch: the epoch that it is of.
        val_batch: validation batches that are done of the next epoch, in this process; None while it trains.
        to_beat: what a value is compared with for ``early_stop``; None before there was a finite one.
        since_better: epochs with a value since then.
        running: the epoch that is under way, or was last; 0 before the first. It is in no checkpoint.
        window_begins: whether the next training batch opens a window of accumulation. It is in no checkpoint, either.
        marks: where an epoch is so many steps: training steps that were done, number of the pass that went on from
            there, and the batch of it that the next round of batches began with.
        stride: how many batches of a pass make a round.
        apart: whether each process has passes of its own, of data that came dealt out.
    """

    epoch: int = 0
    batch: int = 0
    val_batch: int | None = None
    train_step: int = 0
    val_step: int = 0
    best: float | None = None
    best_epoch: int | None = None
    to_beat: float | None = None
    since_better: int = 0
    running: int = 0
    window_begins: bool = True
    marks: list[tuple[int, int, int]] = field(default_factory=lambda: [(0, 1, 0)])
    stride: int = 1
    apart: bool = False

    def end_epoch(self, epoch: int) -> None:
        """Notes that an epoch is over."""
        self.epoch, self.batch, self.val_batch = epoch, 0, None

    def is_between_epochs(self) -> bool:
        """Whether the next epoch has not begun."""
        return not self.batch and self.val_batch is None

    def forget_best(self) -> None:
        """Notes that the values so far say nothing of those to come."""
        self.best = self.best_epoch = self.to_beat = None
        self.since_better = 0

    def restart(self) -> None:
        """Begins anew, but for the best value: an earlier fit's best checkpoint must not be lost."""
        vars(self).update(vars(Position(best=self.best)))

    def state(self) -> dict[str, Any]:
        """What a checkpoint says of it."""
        return {name: value for name, value in vars(self).items() if name not in _APART}

    def load_state(self, index: Mapping[str, Any]) -> None:
        """Takes up what a checkpoint says."""
        later = {"to_beat": index["best"], "since_better": 0}  # that older checkpoints don't have
        vars(self).update({name: {**later, **index}[name] for name in self.state()}, running=index["epoch"])

    def place(self) -> tuple[int, int]:
        """The pass over the data, and the batch of it that the next round begins with.

        The batch may lie beyond the end of that pass, and then counts on into the next one: how long a stream is shows
        only when it has ended. In another process than the first it may lie before the start, by less than its rank.
        """
        step, number, batch = [mark for mark in self.marks if mark[0] <= self.train_step][-1]
        return number, batch + (self.train_step - step) * self.stride

    def take_place(self, places: Sequence[Sequence[int]], rank: int, world_size: int) -> None:
        """Goes on from the place in the passes that a checkpoint says.

        Args:
            places: one of all processes, or one of each where they have passes of their own.
            rank: the number of this process.
            world_size: how many there are.
        """
        self.apart = len(places) > 1
        # Of as many processes as before each has its place; of others all begin where the last of those was.
        number, batch = places[rank] if len(places) == world_size else min(map(list, places))
        self.marks = [(self.train_step, number, batch)]

    def take_own_place(self, place: Sequence[int]) -> None:
        """Goes on from the place of this process, which may be in a later pass than that of the first one."""
        self.marks = [(self.train_step, place[0], place[1])]

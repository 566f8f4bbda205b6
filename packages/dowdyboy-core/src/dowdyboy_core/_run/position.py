"""How far a run has come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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

    def end_epoch(self, epoch: int) -> None:
        """Notes that an epoch is over."""
        self.epoch, self.batch, self.val_batch = epoch, 0, None

    def is_between_epochs(self) -> bool:
        """Whether the next epoch has not begun."""
        return not self.batch and self.val_batch is None

    def restart(self) -> None:
        """Begins anew, but for the best value: an earlier fit's best checkpoint must not be lost."""
        vars(self).update(vars(Position(best=self.best)))

    def state(self) -> dict[str, Any]:
        """What a checkpoint says of it."""
        return {name: value for name, value in vars(self).items() if name != "running"}

    def load_state(self, index: Mapping[str, Any]) -> None:
        """Takes up what a checkpoint says."""
        later = {"to_beat": index["best"], "since_better": 0}  # that older checkpoints don't have
        vars(self).update({name: {**later, **index}[name] for name in self.state()}, running=index["epoch"])

"""When a fit ends before its last epoch: because a hook says so, or because nothing has become better for long."""

from __future__ import annotations

import math
from collections.abc import Iterator

from .run import Run


class Ending:
    """Counts the epochs without a better value, and says which epochs a fit trains.

    Args:
        run: whose epochs they are.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._config = run.config
        self._position = run.position

    def note(self, value: float | None) -> None:
        """Notes the value of an epoch, None if it had none: then it counts neither way."""
        if value is None:
            return
        if self._is_better(value):
            self._position.to_beat, self._position.since_better = value, 0
        else:
            self._position.since_better += 1

    def _is_better(self, value: float) -> bool:
        before, delta = self._position.to_beat, self._config.early_stop_delta
        if not math.isfinite(value) or before is None:
            return math.isfinite(value)
        return value < before - delta if self._config.save_best_type == "min" else value > before + delta

    def epochs(self) -> Iterator[int]:
        """The epochs to train, each of which has to be over before the next one is asked for."""
        done, last = self._position.epoch, self._config.epoch
        if self._is_exhausted():
            return
        if done >= last:
            self._run.tell(f"nothing is left to train: {done} of {last} epochs are done")
        for ep in range(done + 1, last + 1):
            yield ep
            if self._is_exhausted():
                return
            if self._run.stopping.ends_after_epoch():
                self._run.tell(f"stopped after epoch {ep}, as trainer.stop() asked")
                return

    def _is_exhausted(self) -> bool:
        """Whether ``early_stop`` ends the run here, which is said then."""
        patience, position = self._config.early_stop, self._position
        if patience is None or position.since_better < patience:
            return False
        best = "finite" if position.to_beat is None else f"better than {position.to_beat:.6g}"
        self._run.tell(
            f"stopped early at epoch {position.epoch}: none of the last {position.since_better} epochs with a value "
            f"was {best}"
        )
        return True

"""What is saved where something fails after the training batches of an epoch, which would be lost with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dowdyboy_core._errors import SetupError

from .run import Run
from .saver import Saver


class Rescue:
    """Saves the run before an error goes on to the caller; of several processes, which may not all fail, it saves none.

    Args:
        run: the run.
        saver: saves it.
    """

    def __init__(self, run: Run, saver: Saver) -> None:
        self._run = run
        self._saver = saver
        self._active = run.config.enable_save_checkpoint and run.backend.world_size == 1

    @contextmanager
    def validation(self, ep: int) -> Iterator[None]:
        """What the validation batches run in: where it fails, the run is saved as it was before them."""
        if not self._active:
            yield
            return
        run, position = self._run, self._run.position
        before = position.val_batch, position.val_step
        recorded, streams, curves_end = run.records.lengths(), run.streams.capture(), run.metrics.size()
        try:
            yield
        except Exception as error:
            position.val_batch, position.val_step = before
            run.records.cut_back(recorded)
            run.streams.restore(streams)
            self._save(ep, error, "its validation begins", lambda: self._saver.save_last(ep, metrics_bytes=curves_end))
            raise

    @contextmanager
    def ending(self, ep: int, value: float | None = None) -> Iterator[None]:
        """What the hooks of an epoch's end run in: where one fails, the epoch is over, and saved as such."""
        if not self._active:
            yield
            return
        try:
            yield
        except Exception as error:
            self._run.position.end_epoch(ep)
            self._save(ep, error, "the next epoch begins", lambda: self._saver.end_epoch(ep, value))
            raise

    def refuse(self, ep: int, problem: str | None) -> None:
        """Ends an epoch for a problem that all processes have, if there is one, and saves it before.

        Raises:
            SetupError: there is.
        """
        if problem is not None:
            self._run.position.end_epoch(ep)
            self._saver.end_epoch(ep, None)
            raise SetupError(problem)

    def _save(self, ep: int, error: Exception, place: str, save: Callable[[], object]) -> None:
        name = type(error).__name__
        try:
            save()
            self._saver.wait()
        except Exception as problem:  # the first error is the one to tell
            self._run.warn(f"{name} in epoch {ep}, whose training could not be saved: {problem}")
            return
        self._run.tell(f"{name} in epoch {ep}; what was trained is saved, and resume='auto' goes on where {place}")

"""Writes beside the training: one job at a time, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Writer:
    """Runs jobs one after another; who hands over a job waits for the one before, not for that one."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, job: Callable[[], None]) -> None:
        """Begins a job once the one before is done.

        Raises:
            Exception: what the one before failed with.
        """
        self.wait()
        # No daemon: a program that ends waits for what it has handed over.
        self._thread = threading.Thread(target=self._run, args=(job,), name="dowdyboy-writer")
        self._thread.start()

    def _run(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            self._error = error

    def wait(self) -> None:
        """Waits until nothing is under way.

        Raises:
            Exception: what the last job failed with.
        """
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error

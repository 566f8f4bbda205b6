"""Writes beside the training: one job at a time, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable

from dowdyboy_core.backend.forks import releasing


class Writer:
    """Runs jobs one after another; who hands over a job waits for the one before, not for that one."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._job: Callable[[], None] | None = None
        self._error: BaseException | None = None

    def start(self, job: Callable[[], None]) -> None:
        """Begins a job once the one before is done.

        Raises:
            Exception: what the one before failed with.
        """
        self.wait()
        # No daemon: a program that ends waits for what it has handed over.
        self._job = job
        del job  # what it holds goes where nothing is forked
        self._thread = threading.Thread(target=self._run, name="dowdyboy-writer")
        self._thread.start()

    def _run(self) -> None:
        assert self._job is not None
        try:
            self._job()
        except BaseException as error:
            self._error = error
        with releasing():
            self._job = None

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

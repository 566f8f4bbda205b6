"""The workers of one loader: started for an epoch, watched while they are waited for, ended."""

from __future__ import annotations

import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dowdyboy_core._errors import SetupError
from dowdyboy_core.rand import derive_seed

from .forks import forks_apart
from .random_streams import RandomStreams
from .reports import Reports
from .sent_errors import Failure
from .workers import Begin, Reader, Workers

PATIENCE = 60.0
"""Seconds that one batch is waited for without a word."""

_LOOK = 0.5  # Seconds from one look at those who are waited for to the next.

_LAST = 5.0  # Seconds to wait for a process that was killed.


class WorkerPool:
    """The workers that read for one loader.

    Args:
        workers: what the backend says of them.
        dataset: what the native loader is given to read.
        keys: the batch sampler that it runs on.
        reader: makes a batch of what that yields.
        streams: the random streams of this process.
        seed: the seed of this loader.
        role: what the loader is for, ``'train'``, ``'val'`` or ``'test'``.
        warn: tells the user something.
    """

    def __init__(
        self,
        workers: Workers,
        dataset: Any,
        keys: Any,
        reader: Reader,
        streams: RandomStreams,
        seed: int,
        role: str,
        warn: Callable[[str], None],
    ) -> None:
        self._workers = workers
        self._given = dataset, keys, reader
        self._streams = streams
        self._seed = seed
        self._native: Any = None
        self._running: Any = None  # the iterator that was last started
        self._unread: Any = None  # the same, as long as it isn't at its end
        self._at_end: weakref.finalize[Any, Any] | None = None
        self._watch = WorkerWatch(workers, role, warn)
        self.lost: dict[int, str] = {}
        """What became of workers that were no more when the last epoch was left, by the numbers of their processes."""
        reader.name = f"worker {{}} of {workers.count} of the {role} loader"

    def batches(self, epoch: int) -> Iterator[Any]:
        """Starts the workers, or has those that persist begin again, and gives the batches."""
        if self._unread is not None:
            self.close()
        if self._native is None:  # kept, so that persistent workers persist
            dataset, keys, reader = self._given
            begin = Begin(reader, type(self._workers), self._watch.open())
            self._native = self._workers.build(dataset, keys, reader, begin)
            self._running = None
        # Starting workers draws a seed of theirs from a global stream; the run's own must not notice.
        with self._streams.isolated(derive_seed(self._seed, "workers", epoch)), forks_apart():
            batches = self._start()
        if batches is not self._running:
            self._running = batches
            self._end_with_me(batches)
        self._unread = batches
        return self._read(batches)

    def _end_with_me(self, batches: Any) -> None:
        """Ends workers that persist when nobody can use them any more.

        Were their iterator collected together with all that refers to it, its queues would be closed before it, and it
        would wait for workers that can't be told.
        """
        self._forget_end()
        if self._workers.persistent:
            self._at_end = weakref.finalize(self, _end, os.getpid(), self._workers, batches)

    def _forget_end(self) -> None:
        if self._at_end is not None:
            self._at_end.detach()
            self._at_end = None

    def close(self) -> None:
        """Ends the workers of an epoch that was left before its end; they might go on for as long as the process."""
        unread, self._unread = self._unread, None
        if unread is not None:
            self._native = self._running = None
            self._forget_end()
            self.lost = self._watch.lost(unread)
            self._workers.end(unread, now=self._watch.late)
            for process in self._workers.processes(unread):
                if process.is_alive():  # stuck where it hears nothing; at its end, Python would wait for it
                    process.kill()
                    process.join(_LAST)
            self._watch.close()

    def _start(self) -> Any:
        """Where workers persist, the native loader waits for each of them to begin again."""
        if self._running is None:
            return iter(self._native)
        with self._watch.over(self._running), self._watch.waiting():
            return iter(self._native)

    def _read(self, batches: Any) -> Iterator[Any]:
        yield from self._watch.read(batches)
        if self._unread is batches:
            self._unread = None


def _end(home: int, workers: Workers, batches: Any) -> None:
    if os.getpid() == home:
        workers.end(batches, now=False)


class WorkerWatch:
    """Sees to it that nobody waits for workers without end, or without being told.

    A thread of its own looks while the main one waits, in native code maybe, which no signal or timer gets out of.
    """

    def __init__(self, workers: Workers, role: str, warn: Callable[[str], None]) -> None:
        self._workers = workers
        self._role = role
        self._warn = warn
        self._reports: Reports | None = None
        self._batches: Any = None
        self._since: float | None = None
        self._told = False
        self.late = False
        """Whether a worker has taken longer than the timeout, and so won't hear that it should end, either."""

    def open(self) -> Reports:
        """Gives what the next workers report by."""
        self.close()
        self.late = False
        self._reports = Reports()
        return self._reports

    def close(self) -> None:
        """Forgets the reports of workers that are no more."""
        if self._reports is not None:
            self._reports.close()
            self._reports = None

    @contextmanager
    def over(self, batches: Any) -> Iterator[None]:
        """Watches the workers of an iterator for the time of a block."""
        self._batches = batches
        ended = threading.Event()
        thread = threading.Thread(target=self._look, args=(ended,), name="watch-workers", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Marks the time in which a batch is waited for, and names the worker if that ends in an error.

        Raises:
            SetupError: a worker is no more, or has taken longer than the loader's timeout.
        """
        self._since = time.monotonic()
        try:
            yield
        except Exception as error:
            told = self._explanation()
            if told is None:
                raise
            raise told from error
        finally:
            self._since = None

    def read(self, batches: Any) -> Iterator[Any]:
        """Gives what an iterator of workers gives, watched while it is waited for, and raises what failed in them."""
        done = object()
        with self.over(batches):
            while True:
                with self.waiting():
                    batch = next(batches, done)
                if batch is done:
                    return
                if isinstance(batch, Failure):
                    raise batch.error()
                yield batch

    def lost(self, batches: Any) -> dict[int, str]:
        """What became of the workers of an iterator that are no more, by the numbers of their processes."""
        self._batches = batches
        gone = self._gone()
        where = self._where() if gone else ""
        return {self._process(number).pid: self._gone_text(number) + where for number in gone}

    def _look(self, ended: threading.Event) -> None:
        suspected: Any = None
        while not ended.wait(_LOOK):
            since = self._since
            waited = 0.0 if since is None else time.monotonic() - since
            if since is None or not (self._gone() or self._is_late(waited)):
                suspected = None
            elif suspected == since:  # the second look: a native loader that notices by itself has done so by now
                self._workers.interrupt(self._batches)
            else:
                suspected = since
            if waited > PATIENCE and not self._told and not self._workers.timeout:
                self._told = True
                self._warn(self._late(waited))

    def _is_late(self, waited: float) -> bool:
        return 0 < self._workers.timeout <= waited

    def _gone(self) -> list[int]:
        processes = self._workers.processes(self._batches)
        return [number for number, process in enumerate(processes) if process.exitcode is not None]

    def _explanation(self) -> SetupError | None:
        waited = 0.0 if self._since is None else time.monotonic() - self._since
        gone = self._gone_for_sure()
        if gone:
            return SetupError("\n".join(self._gone_text(number) for number in gone) + self._where())
        if self._is_late(waited):
            self.late = True
            late = f"gave no batch for {self._workers.timeout:g} seconds, which is the timeout of the loader."
            return SetupError(
                f"{self._awaited_text(late)} Give it more time, or fewer samples for each batch.{self._stack()}"
            )
        return None

    def _gone_for_sure(self) -> list[int]:
        """Those that ended other than they should; the system may take a moment to say so."""
        for _ in range(10):
            gone = self._gone()
            if gone or not self._workers.processes(self._batches):
                return gone
            time.sleep(0.01)
        return []

    def _gone_text(self, number: int) -> str:
        process = self._process(number)
        code = process.exitcode
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            how = f"was killed by {name}.{_HINTS.get(name, '')}"
        else:
            how = f"ended by itself with exit code {code}. What it printed may say why."
        when = "" if self._reports is None or self._reports.is_up(number) else " before it had begun to read,"
        return f"{self._name(number)}{when} {how}"

    def _where(self) -> str:
        """Where a worker was when it crashed, if it could still say so."""
        text = "" if self._reports is None else self._reports.taken()
        return f"\n\nWhere it was:\n{text}" if text else " Set num_workers=0 to read in this process, and see more."

    def _late(self, waited: float) -> str:
        text = self._awaited_text(f"has given no batch for {waited:.0f} seconds.")
        return (
            f"{text} It is waited for. A worker that starts afresh (by spawn or forkserver) runs the main script's top "
            "level first: keep its work below if __name__ == '__main__'. To have a wait end the run, give the loader "
            f"a timeout.{self._stack()}"
        )

    def _awaited_text(self, late: str) -> str:
        number = self._workers.awaited(self._batches)
        if number is None:
            return f"One of the {self._workers.count} workers of the {self._role} loader {late}"
        up = self._reports is None or self._reports.is_up(number)
        return f"{self._name(number)} {late}{'' if up else ' It has not begun to read yet.'}"

    def _stack(self) -> str:
        number = self._workers.awaited(self._batches)
        if number is None or self._reports is None:
            return ""
        process = self._process(number)
        text = self._reports.ask(number, process.pid) if process.exitcode is None else self._reports.taken()
        return f"\n\nWhere it is:\n{text}" if text else ""

    def _name(self, number: int) -> str:
        pid = self._process(number).pid
        return f"Worker {number} of {self._workers.count} of the {self._role} loader (process {pid})"

    def _process(self, number: int) -> Any:
        return self._workers.processes(self._batches)[number]


_HINTS = {
    "SIGKILL": " The system does so when memory runs out: use fewer workers, or smaller batches.",
    "SIGBUS": " Shared memory (/dev/shm) may be full: make it larger, or use fewer workers or smaller batches.",
}

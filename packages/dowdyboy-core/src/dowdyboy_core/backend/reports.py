"""A pipe by which workers tell that they are up, and where they were when they crashed or didn't answer."""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_SHOW: int | None = signal.SIGRTMAX - 2 if hasattr(signal, "SIGRTMAX") else None
"""Has a worker write down where it is. Nobody else uses it, and where there is none (macOS), nobody is asked."""

_UP = re.compile(r"\0up (\d+)\0")

_ANSWER = 1.0  # Seconds that a worker is given to write down where it is.


class Reports:
    """What the workers of a loader write by themselves, without Python's help.

    Only the end that is written to goes to a worker that starts afresh.
    """

    def __init__(self) -> None:
        from multiprocessing import Pipe  # here, since only who has workers needs it

        ours, self._theirs = Pipe(duplex=False)
        self._ours: Connection | None = ours
        self._up: set[int] = set()
        self._text = ""
        os.set_blocking(ours.fileno(), False)
        os.set_blocking(self._theirs.fileno(), False)  # a worker never waits for its report to be read

    def __getstate__(self) -> dict[str, object]:
        return {"_ours": None, "_theirs": self._theirs, "_up": set(), "_text": ""}

    def begin(self, worker: int) -> None:
        """Tells that a worker is up, in it, and has it write down where it is when it crashes or is asked."""
        handle = self._theirs.fileno()
        faulthandler.disable()  # or it would keep the handlers that it has, under those of the framework
        faulthandler.enable(file=handle)
        if _SHOW is not None:
            faulthandler.register(_SHOW, file=handle)
        os.write(handle, f"\0up {worker}\0".encode())

    def is_up(self, worker: int) -> bool:
        """Whether a worker has begun to work."""
        self._read()
        return worker in self._up

    def taken(self) -> str:
        """What has been written since the last time."""
        self._read()
        text, self._text = self._text, ""
        return _readable(text.strip())

    def ask(self, worker: int, pid: int) -> str:
        """Where a worker is now; empty if it doesn't say."""
        if _SHOW is None or not self.is_up(worker):
            return ""
        self.taken()
        os.kill(pid, _SHOW)
        latest, seen = time.monotonic() + _ANSWER, -1
        while time.monotonic() < latest and not 0 < len(self._text) == seen:
            seen = len(self._text)
            time.sleep(0.02)
            self._read()
        return self.taken()

    def close(self) -> None:
        """Closes both ends in this process."""
        if self._ours is not None:
            self._ours.close()
            self._ours = None
            self._theirs.close()

    def _read(self) -> None:
        while self._ours is not None:
            try:
                data = os.read(self._ours.fileno(), 65536)
            except BlockingIOError:
                return
            if not data:
                return
            self._text += data.decode(errors="replace")
            self._up |= {int(number) for number in _UP.findall(self._text)}
            self._text = _UP.sub("", self._text)


def _readable(text: str) -> str:
    """The thread that crashed, and the first one, which reads, down to where the worker began."""
    *others, last = re.split(r"\n\n(?=Thread|Current)", text)
    threads = [*(other for other in others if not other.startswith("Thread")), last]
    return "\n\n".join(re.split(r"\n.*multiprocessing.process\.py|\n\nExtension", thread)[0] for thread in threads)

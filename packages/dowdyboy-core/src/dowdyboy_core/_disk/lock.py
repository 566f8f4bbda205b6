"""One run at a time in a folder, by a lock that the system takes back when the process ends, however it ends."""

from __future__ import annotations

import errno
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Not flock: workers that are forked would have it, too, and keep it when the process is killed that has started them.
try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".running"
"""The file that is locked. It is removed at the end of a run; after a kill it lies there, and bars nobody."""

PATIENCE = 1.0
"""Seconds to wait for one who looks for a moment, or is ending, before the folder counts as in use."""

_TAKEN = {errno.EACCES, errno.EAGAIN}
_LOOK = 0.05

# A lock of this kind is the process's: it keeps out no other trainer of the same one, and is lost as soon as any
# descriptor of the file is closed. So who has locked what in this process is noted, and looked up before the file is.
_held: dict[str, tuple[int, str]] = {}
_noting = threading.Lock()


class RunLock:
    """Keeps a second run out of a folder.

    Args:
        folder: the ``out_dir`` of the run.
        warn: tells the user something.
    """

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self._folder = folder
        self._path = folder / LOCK
        self._warn = warn
        self._told = False
        self._key: str | None = None
        self._owner: int | None = None
        self._descriptor: int | None = None

    def take(self) -> str:
        """Locks the folder, if it isn't in use; where it can't be locked at all, a warning says so.

        Returns:
            Who uses it and what to do, in words; nothing if this run may go on.
        """
        return self._take(PATIENCE)

    def _take(self, patience: float) -> str:
        key = os.path.realpath(self._folder)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        with _noting:
            pid, began = _held.get(key, (None, ""))
            if pid == os.getpid():
                return self._in_use(f"another trainer of this very process (begun at {began})")
            who = self._lock(since, patience)
            if not who:
                _held[key] = os.getpid(), since
                self._key, self._owner = key, os.getpid()
        return self._in_use(who) if who else ""

    def _lock(self, since: str, patience: float) -> str:
        """Takes the system's lock, if there is one; gives who has it."""
        if fcntl is None:
            self._tell("this system has no locks of that kind")
            return ""
        latest = time.monotonic() + patience
        while True:
            try:
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                self._tell(str(error))
                return ""
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                who = _read(descriptor)
                os.close(descriptor)
                if error.errno not in _TAKEN:
                    self._tell(str(error))
                    return ""
                if time.monotonic() >= latest:
                    return who
                time.sleep(_LOOK)
                continue
            if self._is_in_place(descriptor):
                break
            os.close(descriptor)  # of a run that has removed it since it was opened
        self._descriptor = descriptor
        _write(descriptor, since)
        return ""

    def _is_in_place(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except OSError:
            return False

    def _in_use(self, who: str) -> str:
        return (
            f"out_dir={str(self._folder)!r} is in use: {who} trains in it. Two runs would mix their files. Wait until "
            "that one has ended, or end it, or give this run an out_dir of its own."
        )

    def _tell(self, cause: str) -> None:
        if not self._told:
            self._told = True
            self._warn(
                f"{str(self._folder)!r} can't be locked: {cause}. The run goes on, but a second one in this out_dir "
                "would not be noticed: see to it that there is none."
            )

    def release(self) -> None:
        """Gives the folder free, if this object has it."""
        if self._key is None or self._owner != os.getpid():  # in a process that was forked it isn't ours
            return
        with _noting:
            if self._descriptor is not None:
                with suppress(OSError):
                    if self._is_in_place(self._descriptor):
                        self._path.unlink()
                with suppress(OSError):
                    os.close(self._descriptor)
            _held.pop(self._key, None)
            self._key = self._descriptor = None

    @contextmanager
    def moment(self) -> Iterator[bool]:
        """Keeps runs out for a moment, and gives whether that is so: not where one is under way in another trainer."""
        if self._key is not None and self._owner == os.getpid():
            yield True
            return
        free = not self._take(0.0)
        try:
            yield free
        finally:
            if free:
                self.release()


def _read(descriptor: int) -> str:
    """Who has locked a file, as far as it says so."""
    try:
        said = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {int(said['pid'])} on {said['host']!s:.80} (begun at {said['since']!s:.40})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _write(descriptor: int, since: str) -> None:
    content = json.dumps({"pid": os.getpid(), "host": platform.node(), "since": since}) + "\n"
    with suppress(OSError):  # the lock counts, and not what the file says
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, content.encode(), 0)

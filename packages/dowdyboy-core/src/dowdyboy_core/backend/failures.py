"""What a process says of its failure, before anything that is its consequence: to the one that has spawned it."""

from __future__ import annotations

import json
import os
import re
import time
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

_LONGEST = 100_000  # Characters of a report; a traceback may hold the repr of anything.


@dataclass(frozen=True)
class Report:
    """How a process failed.

    Attributes:
        time: when, by the clock that the processes of a machine share (``time.monotonic``).
        text: the traceback.
        brief: its last line.
        leaves: it called ``sys.exit``.
    """

    time: float
    text: str
    brief: str
    leaves: bool


# Where the reports of this process go: set by ``report_to`` in one that was spawned. One process, one answer: it is
# global.
_folder: Path | None = None
_present: Report | None = None


def report_to(folder: str) -> None:
    """Has this process write into a folder how it fails, and that it has come to this."""
    global _folder, _present
    _folder, _present = Path(folder), None
    _write(_begun(_folder, os.getpid()), "")


def report(error: BaseException) -> bool:
    """Writes down that an exception ends this process, or may do so.

    What is reported again, further out, has happened when it was first reported.

    Returns:
        Whether who has spawned this process can read it.
    """
    global _present
    if _folder is None:
        return False
    leaves = isinstance(error, SystemExit)
    if _present is None or not leaves:  # one that calls sys.exit after another exception has failed by that one
        text = _shorten("".join(traceback.format_exception(type(error), error, error.__traceback__)))
        brief = _shorten("".join(traceback.format_exception_only(type(error), error)).strip(), 500)
        since = time.monotonic() if _present is None else _present.time
        _present = Report(since, text, brief, leaves)
    return _write(_place(_folder, os.getpid()), json.dumps(asdict(_present)))


def forget() -> None:
    """Takes back what was reported: the program has caught it, and all processes are in step again."""
    global _present
    if _folder is not None and _present is not None:
        _present = None
        with suppress(OSError):
            _place(_folder, os.getpid()).unlink(missing_ok=True)


def read(folder: str, pid: int) -> Report | None:
    """What a process has reported."""
    try:
        return Report(**json.loads(_place(Path(folder), pid).read_text(encoding="ascii")))
    except (OSError, ValueError, TypeError):  # there is none
        return None


def is_consequence(brief: str) -> bool:
    """Whether an exception reads like that of a process whose partner is gone."""
    return _PARTNER_GONE.search(brief) is not None


_PARTNER_GONE = re.compile(r"[Cc]onnection|[Bb]roken pipe|\bpeer\b|[Tt]imed? ?out|gloo|NCCL|\(External\)")


def has_begun(folder: str, pid: int) -> bool:
    """Whether a process has come to what it was spawned for."""
    return _begun(Path(folder), pid).exists()


def _place(folder: Path, pid: int) -> Path:
    return folder / f"{pid}.json"


def _begun(folder: Path, pid: int) -> Path:
    return folder / f"{pid}.begun"


def _write(path: Path, text: str) -> bool:
    """Puts a file into its place whole: the process may be killed meanwhile."""
    parts = path.with_suffix(".part")
    try:
        parts.write_text(text, encoding="ascii")
        parts.replace(path)
    except OSError:  # a full disk is no other failure
        return False
    return True


def _shorten(text: str, longest: int = _LONGEST) -> str:
    if len(text) <= longest:
        return text
    return f"{text[: longest // 2]}\n[… {len(text) - longest} characters …]\n{text[-(longest // 2) :]}"

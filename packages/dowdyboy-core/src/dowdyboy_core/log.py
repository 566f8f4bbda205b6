"""Text logs: every line on the screen and, once ``logging_conf`` was called, in a file.

The lines go through a logger of their own. What anyone does to the root logger neither silences it nor is flooded
by it, and a progress bar on the screen is not torn.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dowdyboy_core._disk.lines import LineFile

from ._errors import ConfigError

__all__ = ["log", "logging_conf", "warn"]

FORMAT = "%(asctime)s [%(levelname)s] %(message)s"


class RunLog:
    """Prints lines and appends them to a file."""

    def __init__(self) -> None:
        # Not from getLogger: no name that anyone else could find and configure.
        self._logger = logging.Logger("dowdyboy")

    def open(self, path: str | os.PathLike[str], level: int, format: str, filemode: str) -> None:
        """Sends the lines to a file from now on, instead of an earlier one."""
        if filemode not in ("a", "w"):
            raise ConfigError(f"filemode={filemode!r} is not one of 'a', 'w'.")
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with Path(path).open(filemode, encoding="utf-8"):
                handler = _Handler(Path(path).absolute())
        except OSError as error:
            raise ConfigError(f"The log {os.fspath(path)!r} can't be written: {error}. Give another path.") from error
        self.close()
        handler.setFormatter(logging.Formatter(format))
        handler.setLevel(level)  # and not the logger's, which remembers what an earlier level let through
        self._logger.addHandler(handler)

    def write(self, text: object, level: int = logging.INFO, *, echo: bool = True) -> None:
        """Prints a line, and writes it to the file if one is open."""
        if echo:
            print_line(str(text))
        if self._logger.handlers:  # without one, logging would complain on stderr
            self._logger.log(level, text)

    def close(self) -> None:
        """Closes the file; the lines are only printed afterwards."""
        for handler in list(self._logger.handlers):
            self._logger.removeHandler(handler)
            handler.close()


class _Handler(logging.Handler):
    """Writes records to a file, and goes on if the disk is full."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = LineFile(path, print_line)

    def emit(self, record: logging.LogRecord) -> None:
        self._file.add(self.format(record))
        self._file.flush()

    def close(self) -> None:
        self._file.flush()
        super().close()


def print_line(text: str) -> None:
    """Prints a line above any progress bar."""
    tqdm = sys.modules.get("tqdm")  # no bar can be there if nobody has imported it
    with going_on():
        if tqdm is None:
            print(text, flush=True)
        else:
            tqdm.tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()


@contextmanager
def going_on() -> Iterator[None]:
    """Has a program go on whose output was sent to a file, on a disk that is full now; nothing could be told there.

    Whoever reads its output through a pipe may end it by closing that, as ever.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise


_default = RunLog()


def logging_conf(
    filename: str | os.PathLike[str],
    level: int = logging.INFO,
    format: str = FORMAT,
    filemode: str = "a",
    acc: Any = None,
) -> None:
    """Makes ``log`` and ``warn`` write to a file as well as to the screen.

    Args:
        filename: the file; its folder is made if it isn't there.
        level: the least level that is written; ``log`` writes INFO, ``warn`` WARNING.
        format: the format of a line, as in :mod:`logging`.
        filemode: ``'a'`` appends, so that a resumed run goes on in the same file; ``'w'`` starts over.
        acc: a Trainer, or anything that says whether this is the main process of its machine; other processes
            write nothing.

    Raises:
        ConfigError: the file can't be written, or the mode is unknown.
    """
    if _is_main(acc):
        _default.open(filename, level, format, filemode)


def log(txt: object, acc: Any = None) -> None:
    """Writes a line at level INFO, in the main process only if ``acc`` (a Trainer) is given."""
    if _is_main(acc):
        _default.write(txt)


def warn(txt: object, acc: Any = None) -> None:
    """Writes a line at level WARNING, in the main process only if ``acc`` (a Trainer) is given."""
    if _is_main(acc):
        _default.write(txt, logging.WARNING)


def _is_main(acc: Any) -> bool:
    if acc is None:
        return True
    answer = acc.is_local_main_process
    return bool(answer() if callable(answer) else answer)

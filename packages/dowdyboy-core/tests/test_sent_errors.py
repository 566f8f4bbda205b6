"""Exceptions that cross from one process to another."""

from __future__ import annotations

from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest

from dowdyboy_core.backend.sent_errors import Failure, WorkerTraceback


class Positioned(Exception):
    """Takes other arguments than it keeps."""

    def __init__(self, path: str, *, line: int, beside: Any = None) -> None:
        super().__init__(f"{path}: {line}")
        self.line = line
        self.beside = beside


class Unreadable(OSError):
    """An error of the system with a constructor of its own."""

    def __init__(self, number: int, path: str) -> None:
        super().__init__(number, "can't be read", path)


def raised(error: BaseException) -> BaseException:
    """The error as another process gets it."""
    try:
        raise error
    except BaseException as caught:
        sent = bytes(ForkingPickler.dumps(Failure(caught, "worker 3")))
    failure = ForkingPickler.loads(sent)
    assert isinstance(failure, Failure)
    found = failure.error()
    assert isinstance(found.__cause__, WorkerTraceback)
    assert str(found.__cause__).startswith("in worker 3:\n\nTraceback (most recent call last):\n")
    return found


def local() -> type[Exception]:
    class Local(KeyError):
        """Is to be found by no name."""

    return Local


@pytest.mark.parametrize(
    "error",
    [
        KeyError("name"),
        FileNotFoundError(2, "No such file", "data.csv"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        SystemExit(3),
        KeyboardInterrupt(),
        local()("name"),
        ValueError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_what_it_was(error: BaseException) -> None:
    found = raised(error)
    assert type(found) is type(error) and found.args == error.args and str(found) == str(error)
    assert getattr(found, "filename", None) == getattr(error, "filename", None)


def test_a_constructor_is_not_called_again() -> None:
    found = raised(Positioned("data.csv", line=7, beside=Path("here")))
    assert isinstance(found, Positioned)
    assert (found.args, found.line, found.beside) == (("data.csv: 7",), 7, Path("here"))


def test_what_cannot_be_sent_is_left_out() -> None:
    found = raised(Positioned("data.csv", line=7, beside=lambda: None))
    assert isinstance(found, Positioned) and found.line == 7 and not hasattr(found, "beside")
    assert raised(ValueError(print, lambda: None)).args[0] is print


def test_an_error_of_the_system_keeps_its_number_and_file() -> None:
    found = raised(Unreadable(5, "data.csv"))
    assert isinstance(found, Unreadable)
    assert (found.errno, found.filename, found.strerror) == (5, "data.csv", "can't be read")


def test_a_class_that_is_not_there_gives_way_to_what_it_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    failure = Failure(local()("name"), "worker 3")
    monkeypatch.setattr("dowdyboy_core.backend.sent_errors._below", lambda kind: iter(()))
    found = failure.error()
    assert type(found) is KeyError and found.args == ("name",)

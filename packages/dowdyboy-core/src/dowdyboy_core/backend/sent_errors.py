"""Exceptions that were raised in another process, and are raised here as what they were there."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Iterator
from typing import Any


class WorkerTraceback(Exception):
    """Shown as the cause of an exception that a worker raised: its traceback there, as text."""

    def __init__(self, where: str, text: str) -> None:
        super().__init__(where, text)
        self._shown = f"in {where}:\n\n{text.rstrip()}"

    def __str__(self) -> str:
        return self._shown


class Failure:
    """An exception on its way from a worker to the process that it works for.

    Pickle alone won't do. It makes exceptions anew by calling their class with ``args``, which fails where the
    constructor takes other arguments, and it finds no class that was defined in a function.

    Args:
        error: what was raised.
        where: names the worker.
    """

    def __init__(self, error: BaseException, where: str) -> None:
        self._where = where
        self._text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        self._kinds = [
            (kind.__module__, kind.__qualname__)
            for kind in type(error).__mro__
            if issubclass(kind, BaseException)  # not what is mixed in
        ]
        # Those of the system keep the file's name elsewhere, and say so when they are pickled.
        args = error.__reduce__()[1] if isinstance(error, OSError) else error.args
        self._args = tuple(_picklable(item) for item in args)
        self._state = {key: item for key, item in error.__dict__.items() if _can_be_pickled(item)}
        self._whole = _whole(error)

    def error(self) -> BaseException:
        """The exception, caused by its traceback in the worker."""
        error = self._made_whole() or self._made_anew()
        error.__cause__ = WorkerTraceback(self._where, self._text)
        return error

    def _made_whole(self) -> BaseException | None:
        if self._whole is None:
            return None
        try:
            error = unpickled(self._whole)  # from a child of this process, by a pipe
        except Exception:  # what it needs isn't to be had here
            return None
        return error if isinstance(error, BaseException) else None

    def _made_anew(self) -> BaseException:
        """Without the constructor of its class, which may take anything, but with that of what Python has below."""
        kind = next(found for found in map(_find, self._kinds) if found is not None)
        try:
            error = kind.__new__(kind, *self._args)
            _builtin_base(kind).__init__(error, *self._args)
        except Exception:  # one of Python's own that wants other arguments than it keeps
            error = RuntimeError(self._text)
        error.__dict__.update(self._state)
        return error


def _whole(error: BaseException) -> bytes | None:
    """What pickle makes of an exception, where it makes it again as it was."""
    kind = type(error)
    own_way = any("__reduce__" in vars(base) or "__reduce_ex__" in vars(base) for base in _own(kind))
    if not own_way and any("__init__" in vars(base) or "__new__" in vars(base) for base in _own(kind)):
        return None  # given its own text, a constructor may make another one of it
    try:
        data = pickled(error)
        return data if type(unpickled(data)) is kind else None
    except Exception:
        return None


def _own(kind: type) -> Iterator[type]:
    """The classes of an exception that are not Python's own."""
    return (base for base in kind.__mro__ if base.__module__ != "builtins")


def _builtin_base(kind: type[BaseException]) -> type[BaseException]:
    return next(base for base in kind.__mro__ if base.__module__ == "builtins" and issubclass(base, BaseException))


def _find(name: tuple[str, str]) -> type[BaseException] | None:
    """The class of that name, also where it was defined in a function, as long as this process has it."""
    module, path = name
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        found = None
    if isinstance(found, type) and issubclass(found, BaseException):
        return found
    known = [kind for kind in _below(BaseException) if (kind.__module__, kind.__qualname__) == name]
    return known[-1] if known else None


def _below(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    for each in kind.__subclasses__():
        yield each
        yield from _below(each)


def _picklable(value: Any) -> Any:
    return value if _can_be_pickled(value) else repr(value)


def _can_be_pickled(value: Any) -> bool:
    try:
        unpickled(pickled(value))
    except Exception:
        return False
    return True


def pickled(value: Any) -> bytes:
    """What is sent to another process of the same run, as multiprocessing sends it."""
    from multiprocessing.reduction import ForkingPickler  # here, since only what starts processes needs it

    return bytes(ForkingPickler.dumps(value))


def unpickled(data: bytes) -> Any:
    """What was sent. Only for what a process of the same run sent by a pipe, never for what lies in a file."""
    from multiprocessing.reduction import ForkingPickler

    return ForkingPickler.loads(data)

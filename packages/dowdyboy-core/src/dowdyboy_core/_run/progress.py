"""What is seen of a running epoch: a bar on a terminal or in a notebook, a plain line now and then elsewhere."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from dowdyboy_core._errors import ConfigError
from dowdyboy_core.backend.seam import Backend
from dowdyboy_core.log import going_on

from .values import as_number

PLAIN_INTERVAL = 30.0
"""Seconds between two plain lines."""

Describe = Callable[[], str]
"""Gives what stands behind the counter; called only when something is drawn, since it may wait for the device."""


class Progress:
    """Shows nothing; the base of those that show something."""

    def __init__(self, title: str, total: int | None, done: int, describe: Describe) -> None:
        self._title = title
        self._total = total
        self._done = done
        self._describe = describe

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def advance(self) -> None:
        """Counts one batch."""


class _PlainProgress(Progress):
    """Prints a line at the end, and every ``PLAIN_INTERVAL`` seconds before it."""

    def __enter__(self) -> Progress:
        self._first = self._done
        self._started = self._printed = time.monotonic()
        return self

    def advance(self) -> None:
        self._done += 1
        if time.monotonic() - self._printed >= PLAIN_INTERVAL:
            self._print()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._print()

    def _print(self) -> None:
        self._printed = time.monotonic()
        seconds = self._printed - self._started
        rate = (self._done - self._first) / seconds if seconds > 0 else 0.0
        count = f"{self._done}/{self._total}" if self._total is not None else f"{self._done}"
        remaining = ""
        if self._total is not None and self._total > self._done and rate > 0:
            remaining = f", {(self._total - self._done) / rate:.0f} s left"
        state = self._describe()
        line = f"{self._title} {count} [{seconds:.1f} s{remaining}, {rate:.1f} batches/s]"
        with going_on():
            print(f"{line} {state}" if state else line, file=sys.stderr, flush=True)


class _BarProgress(Progress):
    """Draws tqdm's bar, which is left on the screen when the epoch is over."""

    def __enter__(self) -> Progress:
        self._bar = _bar_class()(
            desc=self._title,
            total=self._total,
            initial=self._done,
            unit="batch",
            dynamic_ncols=True,
            miniters=1,  # a fixed count, so that no monitor thread has to look after the bar
        )
        self._bar.describe = self._describe
        self._update = self._bar.update
        return self

    def advance(self) -> None:
        self._update()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()


@functools.cache
def _bar_class() -> Any:
    from tqdm.auto import tqdm

    class LazyBar(tqdm):  # type: ignore[type-arg]
        """A bar that asks for its postfix when it is drawn, not when it is advanced."""

        monitor_interval = 0
        describe: Describe | None = None

        @property
        def format_dict(self) -> Any:
            values = super().format_dict
            values["postfix"] = self.describe() if self.describe is not None else ""
            return values

    return LazyBar


def show_progress(title: str, total: int | None, describe: Describe, *, done: int = 0, shown: bool = True) -> Progress:
    """Gives the progress display that fits where the program runs.

    Args:
        title: what is running.
        total: the number of batches, None if it isn't known.
        describe: gives the loss and the rest; called only when something is drawn.
        done: how many batches were done before.
        shown: False shows nothing.
    """
    if not shown:
        return Progress(title, total, done, describe)
    kind = _BarProgress if _on_terminal() or _in_notebook() else _PlainProgress
    return kind(title, total, done, describe)


def _on_terminal() -> bool:
    """A terminal that a person looks at; those that programs make for programs may be 0 wide, and show no bar."""
    return sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


class Display:
    """What stands behind the counter: the loss, then what the user wants to see beside it.

    Args:
        backend: reads tensors; only when something is drawn.
        shown: False shows nothing.

    Attributes:
        loss: what the last batch gave.
        state: what ``set_bar_state`` gave.
    """

    def __init__(self, backend: Backend, *, shown: bool) -> None:
        self._backend = backend
        self._shown = shown
        self.loss: Any = None
        self.state: dict[str, Any] = {}

    def begin(self, title: str, total: int | None, done: int = 0) -> Progress:
        """A display for the batches that follow, with nothing beside it yet."""
        self.loss = None
        self.state.clear()
        return show_progress(title, total, self.describe, done=done, shown=self._shown)

    def add(self, state: Mapping[str, Any]) -> None:
        """Shows values beside the loss."""
        if not isinstance(state, Mapping):
            raise ConfigError(f"set_bar_state got {state!r:.80}, which is no dict. Give {{name: value}}.")
        self.state.update(state)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Has other batches displayed, and then what was there before."""
        before = self.loss, self.state
        self.state = {}
        try:
            yield
        finally:
            self.loss, self.state = before

    def describe(self) -> str:
        """The loss and the rest as text."""
        said = []
        for name, value in {"loss": self.loss, **self.state}.items():
            if value is None:
                continue
            if isinstance(value, int):
                said.append(f"{name}={value}")
                continue
            number = as_number(value, self._backend.to_float)
            if number is not None:
                said.append(f"{name}={number:.4g}")
            elif isinstance(value, str):
                said.append(f"{name}={value}")
        return ", ".join(said)

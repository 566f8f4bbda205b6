"""What is written beside the training: one job after another, and no error of one is lost."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

import pytest

from dowdyboy_core._disk.writer import Writer
from dowdyboy_core.backend import forks as _forks


def test_a_job_waits_for_the_one_before() -> None:
    writer, free = Writer(), threading.Event()
    done: list[str] = []

    def first() -> None:
        free.wait()
        done.append("first")

    writer.start(first)
    assert done == []
    threading.Timer(0.01, free.set).start()
    writer.start(lambda: done.append("second"))
    writer.wait()
    assert done == ["first", "second"]


def test_the_error_of_a_job_is_raised_once_where_it_is_waited_for() -> None:
    writer = Writer()
    error = OSError("the disk has gone")

    def failing() -> None:
        raise error

    writer.start(failing)
    with pytest.raises(OSError, match="the disk has gone") as caught:
        writer.wait()
    assert caught.value is error
    writer.wait()

    writer.start(failing)
    with pytest.raises(OSError, match="the disk has gone"):
        writer.start(lambda: pytest.fail("it comes too late"))
    writer.wait()


class Content:
    """Stands for arrays in memory of a framework's."""


def test_what_a_job_holds_is_let_go_of_where_nothing_is_forked() -> None:
    writer, content = Writer(), Content()
    seen: list[tuple[bool, bool]] = []

    def note() -> None:
        aside = threading.current_thread() is not threading.main_thread()
        seen.append((aside, _forks._releasing.locked()))

    weakref.finalize(content, note)
    go = threading.Event()

    def job_of(content: Content) -> Callable[[], None]:
        def job() -> None:
            go.wait()
            assert content is not None

        return job

    writer.start(job_of(content))
    del content
    assert not seen
    go.set()
    writer.wait()
    assert seen == [(True, True)]

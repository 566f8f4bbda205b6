"""What is written beside the training: one job after another, and no error of one is lost."""

from __future__ import annotations

import threading

import pytest

from dowdyboy_core._writer import Writer


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

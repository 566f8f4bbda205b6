"""Processes of one job that end, and are ended, together."""

from __future__ import annotations

import signal
import sys
from typing import Any

import pytest

from dowdyboy_core import SetupError
from dowdyboy_core.backend import together as _together
from dowdyboy_core.backend.signals import Stopped
from dowdyboy_core.backend.together import apart_on_error, end_together, in_step, meet


@pytest.fixture
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begins as a program does."""
    monkeypatch.setattr(_together, "_apart", False)
    monkeypatch.delattr(sys, "last_value", raising=False)


def comes_to_the_end() -> list[str]:
    """Has this process end together with others, and gives where it has told them that it is."""
    told: list[str] = []

    def gather(place: str) -> list[str]:
        told.append(place)
        return [place]

    assert end_together(gather) == bool(told)
    return told


def test_a_process_that_ends_in_order_tells_those_that_go_on(in_order: None) -> None:
    [place] = comes_to_the_end()
    with pytest.raises(SetupError) as caught:
        meet(lambda here: [here, here, place], 1, "fit")
    assert str(caught.value) == (
        "process 1 has come to fit, and process 2 to the end of the program. Let every process of a job call "
        "set_models, fit and test alike, and none end before the others."
    )


def test_a_process_that_has_failed_ends_alone_until_all_meet_again(in_order: None) -> None:
    with pytest.raises(ValueError, match="mine"), apart_on_error():
        raise ValueError("mine")
    assert comes_to_the_end() == []
    meet(lambda place: [place, place], 0, "test")
    assert len(comes_to_the_end()) == 1


def test_a_program_that_an_exception_has_ended_waits_for_nobody(
    in_order: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "last_value", ValueError(), raising=False)
    assert comes_to_the_end() == []


def test_the_failure_of_another_process_is_no_error_at_the_end(in_order: None) -> None:
    def gather(place: str) -> list[str]:
        raise ConnectionError("it is gone")

    assert end_together(gather) is True


def leave_a_hook(error: BaseException, world_size: int) -> list[tuple[Any, ...]]:
    """What is shown of an exception that leaves a hook, which must come through."""
    shown: list[tuple[Any, ...]] = []
    with pytest.MonkeyPatch.context() as patched, pytest.raises(type(error)) as caught:
        patched.setattr(
            sys, "excepthook", lambda kind, error, trace: shown.append((kind, error, trace is error.__traceback__))
        )
        with in_step(world_size):
            raise error
    assert caught.value is error
    return shown


@pytest.mark.parametrize(
    ("error", "world_size"),
    [(ValueError(), 2), (KeyboardInterrupt(), 1), (SystemExit(0), 1), (SystemExit(2), 1), (SystemExit(None), 1)],
    ids=repr,
)
def test_what_leaves_a_hook_has_the_process_end_alone(in_order: None, error: BaseException, world_size: int) -> None:
    assert leave_a_hook(error, world_size) == []
    assert comes_to_the_end() == []


def test_sys_exit_with_a_failure_in_one_of_several_processes_is_shown(in_order: None) -> None:
    error = SystemExit("no more")
    assert leave_a_hook(error, 2) == [(SystemExit, error, True)]
    assert comes_to_the_end() == []


@pytest.mark.parametrize("code", [0, None])
def test_sys_exit_with_success_in_one_of_several_processes_is_an_error(in_order: None, code: int | None) -> None:
    with pytest.raises(SetupError, match=r"^A hook called sys\.exit in one of several processes") as caught, in_step(2):
        sys.exit(code)
    assert isinstance(caught.value.__cause__, SystemExit)
    assert comes_to_the_end() == []


def test_a_run_that_a_signal_stops_ends_together(in_order: None) -> None:
    assert leave_a_hook(Stopped(signal.SIGTERM), 2) == []
    assert len(comes_to_the_end()) == 1

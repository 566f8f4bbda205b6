"""Processes that are forked from here: each life of a run is one, or several that train together."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

KILLED = "killed by SIGKILL"
"""How a life ends that was ended from outside."""

PATIENCE = 240.0  # Seconds that a life may take; most take one or two.


def live(framework: str, processes: int, folder: Path, work: Callable[[int], Any]) -> str:
    """Runs ``work(rank)`` in so many processes, and tells how they ended.

    Returns:
        An empty text where all ended well, ``KILLED`` where all were killed, else what the first one that failed said.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ports = [_free_port() for _ in range(processes)]
    logs = [folder / f"life_{rank}.txt" for rank in range(processes)]
    sys.stdout.flush()
    sys.stderr.flush()
    pids = [_fork(_environment(framework, rank, ports), logs[rank], rank, work) for rank in range(processes)]
    statuses = _wait(pids)
    if any(status > 0 for status in statuses):
        first = next(rank for rank, status in enumerate(statuses) if status > 0)
        return logs[first].read_text(errors="replace")[-3000:].strip()
    if all(status == -signal.SIGKILL for status in statuses):
        return KILLED
    return "" if not any(statuses) else f"the processes ended with {statuses}"


def _fork(environment: dict[str, str], log: Path, rank: int, work: Callable[[int], Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        # What the process that was forked had registered is not this one's to do.
        atexit._clear()
        os.environ.update(environment)
        _write_to(log)
        warnings.simplefilter("ignore")
        work(rank)
        status = 0
    except BaseException as error:
        _tell(error)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        _leave(status)


def _write_to(log: Path) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    # Not pytest's, which keeps what is written.
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)


def _tell(error: BaseException) -> None:
    traceback.print_exception(error)


def _leave(status: int) -> NoReturn:
    # Without the threads and finalisers of all that was imported before the fork.
    os._exit(status)


def _wait(pids: list[int]) -> list[int]:
    """The exit statuses of the processes, negative for a signal; those that are late are killed and have status 124."""
    statuses: dict[int, int] = {}
    late = time.monotonic() + PATIENCE
    while len(statuses) < len(pids):
        for pid in pids:
            if pid in statuses:
                continue
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                statuses[pid] = os.waitstatus_to_exitcode(status)
        if time.monotonic() > late:
            for pid in pids:
                if pid not in statuses:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    statuses[pid] = 124
        time.sleep(0.01)
    return [statuses[pid] for pid in pids]


def _environment(framework: str, rank: int, ports: list[int]) -> dict[str, str]:
    """What a launcher of the framework's sets."""
    world_size = len(ports)
    if world_size == 1:
        return {}
    if framework == "torch":
        named = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_PORT": ports[0]}
        return {name: str(value) for name, value in named.items()} | {"MASTER_ADDR": "127.0.0.1"}
    endpoints = [f"127.0.0.1:{port}" for port in ports]
    return {
        "PADDLE_TRAINER_ID": str(rank),
        "PADDLE_TRAINERS_NUM": str(world_size),
        "PADDLE_RANK_IN_NODE": str(rank),
        "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints),
        "PADDLE_CURRENT_ENDPOINT": endpoints[rank],
        "PADDLE_MASTER": endpoints[0],
        "PADDLE_DISTRI_BACKEND": "gloo",
    }


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])

"""What a forked worker must not wait for, nor collect."""

from __future__ import annotations

import gc
import hashlib
import os
import threading
import time

from dowdyboy_core.backend.forks import forks_apart, releasing, wait_until_still


def forked() -> int:
    """Forks, and gives the number of objects that the child's collector leaves alone; 0 for none."""
    reads, writes = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writes, f"{gc.get_freeze_count()} {gc.isenabled():d}".encode())
        os._exit(0)
    os.close(writes)
    os.waitpid(pid, 0)
    frozen, enabled = os.read(reads, 100).split()
    os.close(reads)
    assert enabled == b"1"
    return int(frozen)


def test_a_worker_leaves_alone_what_was_there_before() -> None:
    assert not gc.get_freeze_count()
    with forks_apart():
        assert forked() > 1000
    assert (gc.get_freeze_count(), gc.isenabled()) == (0, True), "nothing is changed here"
    assert forked() == 0, "what else is forked is nobody's business"


def test_nothing_is_forked_while_memory_is_let_go_of() -> None:
    held, go, done = threading.Event(), threading.Event(), threading.Event()

    def let_go() -> None:
        with releasing():
            held.set()
            go.wait()
            done.set()

    thread = threading.Thread(target=let_go)
    thread.start()
    held.wait()
    threading.Timer(0.2, go.set).start()
    with forks_apart():
        forked()
        assert done.is_set(), "it came before the fork"
    thread.join()
    with forks_apart():
        forked()  # the lock is free again


def test_threads_that_wait_are_still_and_one_that_computes_is_not() -> None:
    wait_until_still(60.0)  # until what tests before have left behind has ended
    rests, ends, content = threading.Event(), threading.Event(), bytes(30_000_000)
    threading.Thread(target=rests.wait, daemon=True).start()
    wait_until_still(60.0)

    def compute() -> None:
        while not ends.is_set():
            hashlib.sha256(content).digest()  # without the interpreter, as native code runs

    busy = threading.Thread(target=compute)
    busy.start()
    begun = time.monotonic()
    wait_until_still(0.3)
    assert time.monotonic() - begun >= 0.3
    ends.set()
    busy.join()
    wait_until_still(60.0)
    rests.set()

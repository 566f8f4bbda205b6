"""A run whose terminal is closed, as by a connection that breaks, is saved."""

from __future__ import annotations

import os
import pty
import signal
import sys
import time
from pathlib import Path

from dowdyboy_conformance._resuming import read_index

# With loader workers, to which the signal comes as well, and a bar, which can't be drawn any more.
RUN = """
import sys, time
from pathlib import Path
from dowdyboy_conformance._resuming import go, start
from dowdyboy_conformance.harnesses.numpy import NumpyHarness

out = Path(sys.argv[1])
run = start(NumpyHarness(), out, epoch=500, disable_tqdm=False, workers=2)
train_step = run.train_step

def step(*given):
    time.sleep(0.1)
    (out / "begun").touch()
    return train_step(*given)

run.train_step = step
go(run)
"""


def test_a_run_is_saved_when_its_terminal_is_closed(tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if not pid:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which is ignored in all that nohup has started
        os.execv(sys.executable, [sys.executable, "-c", RUN, str(tmp_path)])
    latest = time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < latest
        time.sleep(0.05)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 129
    [last] = (tmp_path / "checkpoint").glob("last_epoch_*")
    index = read_index(last)
    assert index["epoch"] < 499 and index["train_step"] > 0
    assert "stopped by signal 1" in (tmp_path / "default_run.log").read_text()

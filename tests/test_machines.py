"""Two machines, each a network namespace with an address of its own: the same bits as two processes on one machine.

A namespace has its own loopback, interfaces and ports, so that what works between two of them doesn't do so because
both are one machine. Their host name leads to neither address, as on many clusters: see docs/launching.md.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

WORKER = Path(__file__).with_name("distributed_worker.py")
INTERFACE, PORT = "lan0", 29500
# Kept for tests of networks by RFC 2544. Both ends are made inside the namespaces: nothing outside sees them.
ADDRESSES = ("198.18.0.1", "198.18.0.2")
SETTINGS = {"kind": "dropout", "count": 24, "batch_size": 2, "epoch": 3, "save_steps": 2}
pytestmark = [
    pytest.mark.distributed,
    pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are there on Linux only"),
    pytest.mark.parametrize("framework", ["torch", "paddle"]),
]


@dataclass
class Job:
    """What became of the launchers of a job, one a machine."""

    codes: list[int]
    outputs: list[str]

    def check(self) -> None:
        assert self.codes == [0, 0], "\n----\n".join(self.outputs)


@dataclass
class Machines:
    """Two namespaces, joined by a cable."""

    names: tuple[str, str] = field(default_factory=lambda: _names(secrets.token_hex(4)))

    def set_up(self) -> None:
        """Makes the namespaces.

        Raises:
            OSError: there is no ``ip``.
            subprocess.CalledProcessError: it refused; ``stderr`` says why.
        """
        first, second = self.names
        for name in self.names:
            _ip("netns", "add", name)
        _ip("link", "add", INTERFACE, "netns", first, "type", "veth", "peer", "name", INTERFACE, "netns", second)
        for name, address in zip(self.names, ADDRESSES, strict=True):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", INTERFACE)
            for interface in ("lo", INTERFACE):
                _ip("-n", name, "link", "set", interface, "up")
            _ip("netns", "exec", name, "true")  # which may be refused where all of the above is not

    def tear_down(self) -> None:
        """Ends whatever runs in the namespaces, and removes them."""
        for name in self.names:
            if Path("/run/netns", name).exists():
                self._end_all(name)
                _ip("netns", "delete", name)

    def _end_all(self, name: str) -> None:
        deadline = time.monotonic() + 20
        while processes := _ip("netns", "pids", name).split():
            for process in processes:
                with suppress(ProcessLookupError):  # it ended by itself
                    os.kill(int(process), signal.SIGKILL)
            assert time.monotonic() < deadline, f"processes {processes} of namespace {name} can't be ended"
            time.sleep(0.02)

    def run(self, command: Callable[[int], list[str]], folders: list[Path]) -> Job:
        """Runs ``command(k)`` on machine k in its folder, until both are over or one has waited in vain for long."""
        logs = [folder / f"launcher_{number}.log" for number, folder in enumerate(folders)]
        running = []
        for number, (name, folder, log) in enumerate(zip(self.names, folders, logs, strict=True)):
            with log.open("wb") as file:
                line = ["ip", "netns", "exec", name, *command(number)]
                running.append(
                    subprocess.Popen(line, cwd=folder, env=_environment(), stdout=file, stderr=subprocess.STDOUT)
                )
        try:
            codes = [process.wait(60) for process in running]
        except subprocess.TimeoutExpired as error:
            told = "\n----\n".join(log.read_text(errors="replace") for log in logs)
            raise AssertionError(f"{error}\n{told}") from None
        finally:
            for name in self.names:
                self._end_all(name)
            for process in running:
                process.wait(20)
        return Job(codes, [log.read_text(errors="replace") for log in logs])


def _names(job: str) -> tuple[str, str]:
    return f"dowdyboy-{job}-0", f"dowdyboy-{job}-1"


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=20).stdout


def _environment() -> dict[str, str]:
    """This one, with what a user has to say about the network and without what would lead elsewhere."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": INTERFACE}
    for name in ("CUDA_VISIBLE_DEVICES", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        environment.pop(name, None)  # paddle's launchers talk HTTP to each other, and look for GPUs
    return environment


@pytest.fixture
def machines() -> Iterator[Machines]:
    made = Machines()
    try:
        try:
            made.set_up()
        except OSError as error:
            pytest.skip(f"no network namespaces: {error}")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces: {error.stderr.strip() or error}")
        yield made
    finally:
        made.tear_down()


def launcher(framework: str, number: int | None) -> list[str]:
    """The framework's own launcher, on machine ``number`` of two with a process each, or on one with two."""
    if framework == "torch":
        line = [sys.executable, "-m", "torch.distributed.run"]
        if number is None:
            return [*line, "--standalone", "--nproc_per_node", "2"]
        line += ["--master_addr", ADDRESSES[0], "--master_port", str(PORT), "--node_rank", str(number)]
    else:
        line = [sys.executable, "-m", "paddle.distributed.launch", "--log_dir", f"workers_{number}"]
        if number is None:
            return [*line, "--nproc_per_node", "2"]
        line += ["--master", f"{ADDRESSES[0]}:{PORT}", "--rank", str(number), "--host", ADDRESSES[number]]
    return [*line, "--nnodes", "2", "--nproc_per_node", "1"]


def worker(framework: str, scenario: str, settings: dict[str, Any]) -> list[str]:
    """A scenario that leaves its files where it is started."""
    return [str(WORKER), framework, scenario, ".", json.dumps(settings)]


def train(machines: Machines, framework: str, folders: list[Path], **settings: Any) -> Job:
    """Trains with one process a machine."""
    wanted = worker(framework, "train", {**SETTINGS, **settings})
    return machines.run(lambda number: [*launcher(framework, number), *wanted], folders)


def train_on_one_machine(framework: str, folder: Path, **settings: Any) -> list[Any]:
    """What two processes see on this machine."""
    folder.mkdir()
    environment = _environment()
    del environment["GLOO_SOCKET_IFNAME"]
    line = [*launcher(framework, None), *worker(framework, "train", {**SETTINGS, **settings})]
    job = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=100)
    assert job.returncode == 0, job.stdout[-3000:] + job.stderr[-3000:]
    return seen([folder, folder])


def seen(folders: list[Path]) -> list[Any]:
    """What each process wrote down, in the order of the ranks."""
    return [json.loads((folder / f"rank_{rank}.json").read_text()) for rank, folder in enumerate(folders)]


def curves(folder: Path) -> str:
    return (folder / "run" / "metrics.jsonl").read_text()


def test_two_machines_train_to_the_bits_of_one(framework: str, machines: Machines, tmp_path: Path) -> None:
    wanted = train_on_one_machine(framework, tmp_path / "one")
    shared = tmp_path / "two"
    shared.mkdir()
    train(machines, framework, [shared, shared], tell_place=True).check()
    got = seen([shared, shared])
    places = [rank.pop("place") for rank in got]
    assert got == wanted
    assert curves(shared) == curves(tmp_path / "one")

    here = Path("/proc/self/ns/net").stat().st_ino
    assert len({here, *(place.pop("network") for place in places)}) == 3
    assert places == [
        {"rank": 0, "world_size": 2, "main": True, "local_main": True},
        {"rank": 1, "world_size": 2, "main": False, "local_main": True},
    ]
    assert (shared / "run" / "default_run.log").read_text().count("epoch 1/3 begin") == 1
    names = sorted(path.name for path in (shared / "run" / "checkpoint").iterdir())
    assert names == ["epoch_1", "epoch_2", "epoch_3", "last_epoch_3"]


@pytest.mark.long
@pytest.mark.timeout(240)  # five jobs
def test_machines_without_a_shared_disk(framework: str, machines: Machines, tmp_path: Path) -> None:
    """The first machine has all files; to go on, the others need the checkpoint, too."""
    wanted = train_on_one_machine(framework, tmp_path / "whole")
    disks = [tmp_path / "disk_0", tmp_path / "disk_1"]
    for disk in disks:
        disk.mkdir()
    stopped = train(machines, framework, disks, stop_at=9)
    assert 0 not in stopped.codes
    last = Path("run", "checkpoint", "last_epoch_2")
    assert (disks[0] / last).is_dir()
    assert not [path for path in (disks[1] / "run").rglob("*") if path.is_file()]

    # Nowhere does a process go on alone, nor with other weights than its peers.
    refused = train(machines, framework, disks, resume="auto")
    assert 0 not in refused.codes
    for output in refused.outputs:
        assert f"Process 0 goes on from {str(last)!r}, and process 1 can't: {str(last)!r} is no folder" in output
    shutil.copytree(disks[0] / last.with_name("epoch_1"), disks[1] / last)
    refused = train(machines, framework, disks, resume="auto")
    assert 0 not in refused.codes
    for output in refused.outputs:
        assert "process 1 can't: it finds another checkpoint there." in output

    shutil.rmtree(disks[1] / last)
    shutil.copytree(disks[0] / last, disks[1] / last)
    train(machines, framework, disks, resume="auto").check()
    got = seen(disks)
    assert [rank["weights"] for rank in got] == [rank["weights"] for rank in wanted]
    assert got[0]["records"] == wanted[0]["records"][1:]  # the run was stopped in epoch 2
    assert curves(disks[0]) == curves(tmp_path / "whole")


@pytest.mark.parametrize("how", [pytest.param("raise", marks=pytest.mark.long), "kill"])
def test_one_machine_that_fails_ends_the_other(framework: str, machines: Machines, tmp_path: Path, how: str) -> None:
    wanted = worker(framework, "fail", {"how": how, "where": "train_step", "rank": 1})
    job = machines.run(lambda number: [*launcher(framework, number), *wanted], [tmp_path, tmp_path])
    assert 0 not in job.codes
    assert ("it failed on purpose" in job.outputs[1]) == (how == "raise")


def test_nothing_is_left_of_a_job_that_hangs(framework: str, machines: Machines, tmp_path: Path) -> None:
    """The second machine never comes: what waits for it on the first one goes with its namespace."""
    line = ["ip", "netns", "exec", machines.names[0], *launcher(framework, 0), *worker(framework, "train", SETTINGS)]
    with (tmp_path / "launcher.log").open("wb") as log:
        waiting = subprocess.Popen(line, cwd=tmp_path, env=_environment(), stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while str(waiting.pid) not in _ip("netns", "pids", machines.names[0]).split():
            assert time.monotonic() < deadline and waiting.poll() is None, (tmp_path / "launcher.log").read_text()
            time.sleep(0.02)
        machines.tear_down()
        assert waiting.wait(20) == -signal.SIGKILL
    finally:
        waiting.kill()
        waiting.wait(20)
    listed = _ip("netns", "list")
    assert not [name for name in machines.names if name in listed]

"""What the viewers' own servers show, asked as a browser asks them: each point once, whenever they were started."""

from __future__ import annotations

import contextlib
import importlib
import json
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dowdyboy_conformance._problem import Run, build
from dowdyboy_conformance._resuming import Killed
from dowdyboy_conformance.harnesses.harness import Harness

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

COMMANDS = {
    "tensorboard": ["tensorboard.main", "--reload_interval", "1"],
    "visualdl": ["visualdl.server.app", "--cache-timeout", "1", "--disable-telemetry"],
}


@pytest.fixture(params=["torch", "paddle"])
def harness(request: pytest.FixtureRequest) -> Harness:
    module = importlib.import_module(f"dowdyboy_conformance.harnesses.{request.param}")
    made: Harness = getattr(module, f"{request.param.capitalize()}Harness")()
    return made


class Server:
    """A viewer's own server, of all runs below a folder."""

    def __init__(self, viewer: str, folder: Path, port: int) -> None:
        self._viewer, self._folder, self._port = viewer, folder, port

    def _get(self, path: str, **query: str) -> Any:
        url = f"http://127.0.0.1:{self._port}/{path}?{urllib.parse.urlencode(query)}"
        request = urllib.request.Request(url, headers={"Accept-Language": "en"})  # without which VisualDL answers 500
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def steps(self, run: str, tag: str) -> Any:
        """The steps of the points that are shown of a curve; an error in words if there are none."""
        try:
            if self._viewer == "visualdl":
                found = self._get("app/api/scalar/list", run=str(self._folder / run), tag=tag)["data"]
            else:
                found = self._get("data/plugin/scalars/scalars", run=run, tag=tag)
        except OSError as error:
            return repr(error)
        return [step for _, step, _ in found] if found else repr(found)

    def shows(self, run: str, **curves: list[int]) -> None:
        """Waits until it shows these steps.

        Raises:
            AssertionError: it doesn't.
        """
        latest = time.monotonic() + 60
        for tag, steps in curves.items():
            while (found := self.steps(run, tag)) != steps:
                assert time.monotonic() < latest, f"{tag} of {run}: {found}"
                time.sleep(0.1)


@contextlib.contextmanager
def serving(viewer: str, folder: Path) -> Iterator[Server]:
    """A server of a viewer, as long as the context lasts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", *COMMANDS[viewer], "--logdir", str(folder), "--host", "127.0.0.1"]
    with subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield Server(viewer, folder, port)
        finally:
            process.kill()


def start(harness: Harness, out_dir: Path, **settings: Any) -> Run:
    usual: dict[str, Any] = {"epoch": 3, "log_with": "auto", "enable_save_checkpoint": True, "resume": "auto"}
    return build(harness, out_dir, **{**usual, **settings})


def fit(run: Run, kill_at: int | None = None, shift: float = 0.0) -> None:
    """Trains for three epochs of three steps, or until it is killed; ``shift`` makes other values from step 4 on."""

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        trainer.log({"loss": global_step + shift * (global_step > 3)}, global_step)
        if global_step == kill_at:
            raise Killed
        return run.train_step(trainer, bat, bat_idx, global_step)

    with contextlib.suppress(Killed):
        run.trainer.fit(step)


def test_step(trainer: Any, bat: Any, bat_idx: int, step: int) -> None:
    trainer.log({"test": step}, step)


test_step.__test__ = False  # type: ignore[attr-defined]


def leave_half_a_record(folder: Path) -> None:
    """What a kill within a write leaves."""
    [path] = folder.iterdir()
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(
            path.read_bytes()[size - 30 : size - 7] if "tfevents" in path.name else b"\x20" + b"\0" * 7 + b"half"
        )


def test_each_point_is_shown_once_whenever_the_server_was_started(harness: Harness, tmp_path: Path) -> None:
    viewer, all_steps = harness.viewer, list(range(9))
    for name in ("killed", "half", "differs"):
        fit(start(harness, tmp_path / name), kill_at=8 if name == "differs" else 5)
    leave_half_a_record(tmp_path / "half" / "log")
    fit(start(harness, tmp_path / "half"))
    with serving(viewer, tmp_path) as opened:
        opened.shows("killed/log", loss=list(range(6)))
        opened.shows("half/log", loss=all_steps)
        fit(start(harness, tmp_path / "killed"), kill_at=4)
        fit(start(harness, tmp_path / "killed"))
        opened.shows("killed/log", loss=all_steps)
        start(harness, tmp_path / "killed").trainer.test(test_step)
        opened.shows("killed/log", loss=all_steps, test=[0, 1, 2])
        fit(start(harness, tmp_path / "differs", resume=tmp_path / "differs" / "checkpoint" / "epoch_1"), shift=0.5)
        again = start(harness, tmp_path / "again", epoch=1, resume=None)
        fit(again)
        fit(again)
        fit(start(harness, tmp_path / "again", epoch=1, resume=None))
        # TensorBoard's server shows the newest of the points at one step, and drops what came after an older one.
        behind = [0, 1, 2] * (3 if viewer == "visualdl" else 1)
        opened.shows("again/log", loss=behind)
        with serving(viewer, tmp_path) as after:
            after.shows("killed/log", loss=all_steps, test=[0, 1, 2])
            after.shows("half/log", loss=all_steps)
            after.shows("differs/log", loss=all_steps)
            after.shows("again/log", loss=behind)
        opened.shows("killed/log", loss=all_steps)  # still


def test_a_writer_of_the_users_in_the_same_folder_and_second_keeps_its_file(harness: Harness, tmp_path: Path) -> None:
    module = {"torch": "torch.utils.tensorboard", "paddle": "visualdl"}[harness.name]
    name = {"torch": "SummaryWriter", "paddle": "LogWriter"}[harness.name]
    second = int(time.time())
    while int(time.time()) == second:
        pass  # so that what follows is in one second
    run = start(harness, tmp_path, resume=None)
    before = getattr(importlib.import_module(module), name)(str(tmp_path / "log"))
    run.trainer.log({"loss": 0.0}, -1)
    run.trainer._metrics.size()
    for step in range(3):
        before.add_scalar("mine", step / 2, step)
    fit(run)
    path = getattr(before, "file_name", None)  # which VisualDL's writer doesn't know any more once it is closed
    before.close()
    assert [step for step, _ in harness.read_curves(tmp_path / "log")["loss"]] == list(range(-1, 9))
    if harness.name == "torch":
        assert [step for step, _ in harness.read_curves(tmp_path / "log")["mine"]] == [0, 1, 2]
    else:
        from visualdl import LogReader

        assert [point.id for point in LogReader(file_path=path).get_data("scalar", "mine")] == [0, 1, 2]

"""G, C: the user's files and open viewers are left alone, and so is a run that is under way."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from dowdyboy_conformance._problem import Run, build
from dowdyboy_conformance._resuming import Killed
from dowdyboy_conformance._together import Together
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core import SetupError


def logging_step(run: Run, kill_at: int | None = None, shift: float = 0.0) -> Any:
    """A train_step that logs two curves, and from step 3 on other values if there is a shift."""

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        loss = run.train_step(trainer, bat, bat_idx, global_step)
        trainer.log({"half": global_step / 2 + shift * (global_step > 3), "nan": float("nan")}, global_step)
        if global_step == kill_at:
            raise Killed
        return loss

    return step


def killed(harness: Harness, out_dir: Path, kill_at: int = 5, **settings: Any) -> None:
    """A run of three epochs of three steps that is killed in the middle of its second epoch, or wherever."""
    run = start(harness, out_dir, **settings)
    with pytest.raises(Killed):
        run.trainer.fit(logging_step(run, kill_at))


def start(harness: Harness, out_dir: Path, **settings: Any) -> Run:
    """The same run from its start, or from where it was killed."""
    usual: dict[str, Any] = {"epoch": 3, "log_with": "auto", "enable_save_checkpoint": True, "resume": "auto"}
    return build(harness, out_dir, **{**usual, **settings})


def files_in(folder: Path) -> dict[str, bytes]:
    """The content of all files below a folder by their paths."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def halves(harness: Harness, out_dir: Path) -> list[tuple[int, float]]:
    """The points of a curve, whose other one must have as many."""
    curves = harness.read_curves(out_dir / "log")
    assert [step for step, _ in curves["nan"]] == [step for step, _ in curves["half"]]
    return curves["half"]


@pytest.mark.clause("G-5", "C-7")
def test_what_a_viewer_has_read_of_a_killed_run_is_not_drawn_again(harness: Harness, tmp_path: Path) -> None:
    killed(harness, tmp_path)
    killed(harness, tmp_path, kill_at=4)  # before it has come to what was drawn
    before = files_in(tmp_path / "log")
    run = start(harness, tmp_path)
    run.trainer.fit(logging_step(run))
    assert halves(harness, tmp_path) == [(step, step / 2) for step in range(9)]
    after = files_in(tmp_path / "log")
    for name, content in before.items():
        assert after[name].startswith(content), "an open viewer reads on where it was"
    assert "This run differs" not in (tmp_path / "default_run.log").read_text()


@pytest.mark.clause("G-5")
def test_what_a_killed_run_has_not_drawn_is_made_up_for(harness: Harness, tmp_path: Path) -> None:
    for out_dir in (tmp_path / "begun", tmp_path / "whole"):
        killed(harness, out_dir, kill_at=4 if out_dir.name == "begun" else 8)
    for name, lines in (("metrics.jsonl", 9), ("metrics.times", 9)):  # as if it had been killed before it drew them
        shutil.copy(tmp_path / "whole" / name, tmp_path / "begun" / name)
        assert (tmp_path / "begun" / name).read_text().count("\n") == lines
    shutil.rmtree(tmp_path / "begun" / "checkpoint")
    shutil.copytree(tmp_path / "whole" / "checkpoint", tmp_path / "begun" / "checkpoint")
    run = start(harness, tmp_path / "begun")
    run.trainer.fit(logging_step(run))
    assert halves(harness, tmp_path / "begun") == [(step, step / 2) for step in range(9)]


@pytest.mark.clause("G-5")
@pytest.mark.parametrize("how", ["other values", "fewer epochs"])
def test_a_run_that_differs_begins_its_curves_anew_and_says_so(harness: Harness, tmp_path: Path, how: str) -> None:
    killed(harness, tmp_path, kill_at=8)
    shift, epoch = (0.25, 3) if how == "other values" else (0.0, 2)
    run = start(harness, tmp_path, epoch=epoch, resume=tmp_path / "checkpoint" / "epoch_1")
    run.trainer.fit(logging_step(run, shift=shift))
    assert halves(harness, tmp_path) == [(step, step / 2 + shift * (step > 3)) for step in range(3 * epoch)]
    [line] = [line for line in (tmp_path / "default_run.log").read_text().splitlines() if "This run differs" in line]
    said = "'half' at step 4 is 2.25 and was 2" if shift else "it has ended, and 'nan' went on to step 8"
    assert f"[WARNING] This run differs from the one whose curves are in {str(tmp_path / 'log')!r}: {said}." in line


@pytest.mark.clause("G-9", "G-4", "G-5")
def test_what_is_logged_before_a_fit_that_may_go_on_is_there_once(harness: Harness, tmp_path: Path) -> None:
    for kill_at in (1, 5, None):  # before there is a checkpoint, and with one
        run = start(harness, tmp_path)
        run.trainer.log({"before": 0.5}, 0)
        with suppress(Killed):
            run.trainer.fit(logging_step(run, kill_at))
    assert halves(harness, tmp_path) == [(step, step / 2) for step in range(9)]
    assert harness.read_curves(tmp_path / "log")["before"] == [(0, 0.5)]
    lines = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [0, *range(9)]
    assert "This run differs" not in (tmp_path / "default_run.log").read_text()


@pytest.mark.clause("G-11", "G-4")
def test_points_that_are_drawn_anew_keep_their_times(harness: Harness, tmp_path: Path) -> None:
    killed(harness, tmp_path)
    times = {name: times[:3] for name, times in harness.read_times(tmp_path / "log").items()}
    lines = (tmp_path / "metrics.times").read_text().splitlines()
    shutil.rmtree(tmp_path / "log")  # so that all is drawn anew
    ended = time.time()
    while time.time() < ended + 0.01:
        pass  # VisualDL counts milliseconds
    run = start(harness, tmp_path)
    run.trainer.fit(logging_step(run))
    for name, found in harness.read_times(tmp_path / "log").items():
        assert found[:3] == pytest.approx(times[name], abs=0.001) and len(found) == 9
        assert all(when > ended for when in found[3:])
    after = (tmp_path / "metrics.times").read_text().splitlines()
    assert len(after) == 9 and after[:3] == lines[:3]
    assert all(
        set(json.loads(line)) == {"step", "epoch", "values"}
        for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    )


@pytest.mark.clause("G-12")
@pytest.mark.parametrize("kind", ["folder", "link", "link to nothing yet", "no viewer"])
def test_the_users_files_beside_the_curves_are_left_alone(harness: Harness, tmp_path: Path, kind: str) -> None:
    out_dir, disk, log_with = tmp_path / "run", tmp_path / "disk", "none" if kind == "no viewer" else "auto"
    out_dir.mkdir()
    if kind != "link to nothing yet":
        (disk if kind == "link" else out_dir / "log").mkdir()
    if kind.startswith("link"):
        (out_dir / "log").symlink_to(disk)
    killed(harness, out_dir, log_with=log_with)
    (out_dir / "log" / "images").mkdir()
    for name in ("notes.txt", "images/events.out.tfevents.1.mine", "vdlrecords.0000000001.log.txt", "workerlog.0"):
        (out_dir / "log" / name).write_text(f"what I saw in {name}")
    mine = {name: content for name, content in files_in(out_dir / "log").items() if b"what I saw" in content}
    run = start(harness, out_dir, log_with=log_with)
    run.trainer.fit(logging_step(run))
    after = files_in(out_dir / "log")
    assert {name: after.get(name) for name in mine} == mine
    assert (out_dir / "log").is_symlink() == kind.startswith("link")
    if log_with == "none":
        assert after == mine
    else:
        for name in mine:
            (out_dir / "log" / name).unlink()  # which the viewer's reader need not like
        assert halves(harness, out_dir) == [(step, step / 2) for step in range(9)]


@pytest.mark.clause("G-13", "G-3")
def test_what_comes_later_is_drawn_behind_what_is_there(harness: Harness, tmp_path: Path) -> None:
    first = start(harness, tmp_path, epoch=1, resume=None)
    first.trainer.fit(logging_step(first))
    second = start(harness, tmp_path, resume=None)
    second.trainer.test(lambda trainer, bat, bat_idx, step: trainer.log({"test": step}, step))
    third = start(harness, tmp_path, epoch=1, resume=None)
    third.trainer.fit(logging_step(third))
    first.trainer.fit(logging_step(first))
    steps = [*range(3)] * 3
    assert halves(harness, tmp_path) == [(step, step / 2) for step in steps]
    assert harness.read_curves(tmp_path / "log")["test"] == [(step, float(step)) for step in range(3)]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "half" in line["values"]] == steps


OTHER = """
import sys
from pathlib import Path
from dowdyboy_conformance._inside import inside
assert inside("_disk.lock").RunLock(Path(sys.argv[1]), print).take() == ""
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def run_elsewhere(out_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has locked a folder, as a run in it does, until it is killed."""
    command = [sys.executable, "-c", OTHER, str(out_dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "locked\n"
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)


@pytest.mark.clause("C-25")
def test_a_run_in_a_folder_that_is_in_use_is_refused_before_it_touches_anything(
    harness: Harness, tmp_path: Path
) -> None:
    killed(harness, tmp_path)
    (tmp_path / "checkpoint" / ".unfinished-epoch_2").mkdir()  # which the next run would clear away
    with run_elsewhere(tmp_path) as other:
        for resume in ("auto", None):
            run = start(harness, tmp_path, resume=resume)
            before, folders = files_in(tmp_path), sorted(tmp_path.rglob("*"))
            with pytest.raises(SetupError) as caught:
                run.fit()
            assert (files_in(tmp_path), sorted(tmp_path.rglob("*"))) == (before, folders)
            text = str(caught.value)
            assert text.startswith(f"out_dir={str(tmp_path)!r} is in use: process {other.pid} on ")
            assert time.strftime(" (begun at %Y-") in text and "give this run an out_dir of its own" in text
        run.trainer.test(lambda *_: None)  # which takes no lock
    run = start(harness, tmp_path)  # a process that was killed bars nobody
    run.fit()
    assert run.trainer.epoch == 3 and not (tmp_path / "checkpoint" / ".unfinished-epoch_2").exists()


@pytest.mark.clause("C-25")
def test_trainers_of_one_process_use_a_folder_one_after_the_other(harness: Harness, tmp_path: Path) -> None:
    first, second = (start(harness, tmp_path, epoch=1, resume=None) for _ in range(2))
    refused: list[str] = []

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        if not refused:
            with pytest.raises(SetupError, match="is in use: another trainer of this very process") as caught:
                second.fit()
            refused.append(str(caught.value))
        return first.train_step(trainer, bat, bat_idx, global_step)

    first.trainer.fit(step)
    assert refused
    killed(harness, tmp_path)  # an exception gives the folder free, too
    second.fit()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.clause("C-25")
@pytest.mark.parametrize("processes", [2, 3])
def test_all_processes_learn_that_a_folder_is_in_use(together: Together, processes: int) -> None:
    for kind, text, epoch in together(processes, "in_use"):
        assert kind == "SetupError" and "is in use: another trainer of this very process" in text
        assert epoch == 1, "once it is free"

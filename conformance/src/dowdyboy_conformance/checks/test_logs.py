"""G: what is written down and shown."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance._problem import Run, build, config
from dowdyboy_conformance._resuming import Killed
from dowdyboy_conformance.harnesses.harness import Harness


def logging_step(run: Run, kill_at: int | None = None) -> Any:
    """A train_step that logs a curve."""

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        loss = run.train_step(trainer, bat, bat_idx, global_step)
        trainer.log({"half": global_step / 2}, global_step)
        if global_step == kill_at:
            raise Killed
        return loss

    return step


@pytest.mark.clause("G-1")
def test_the_run_log_is_appended_to(harness: Harness, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("first", "second"):
        trainer = harness.make_trainer(config(tmp_path, name="mine"))
        trainer.print(f"the {text} line")
        trainer.print(3)
    assert capsys.readouterr().out.splitlines() == ["the first line", "3", "the second line", "3"]
    lines = (tmp_path / "mine_run.log").read_text().splitlines()
    assert [line.partition("] ")[2] for line in lines] == ["the first line", "3", "the second line", "3"]
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \[INFO\] ", line) for line in lines)


@pytest.mark.clause("G-9")
def test_a_point_reaches_the_files_by_itself(harness: Harness, tmp_path: Path) -> None:
    trainer = harness.make_trainer(config(tmp_path, log_with="auto"))
    trainer.log({"loss": 0.5}, 3)
    lines, latest = tmp_path / "metrics.jsonl", time.monotonic() + 10  # for a machine that is busy
    while not (lines.exists() and lines.read_bytes().endswith(b"}\n")):
        assert time.monotonic() < latest, "metrics.jsonl hasn't got it"
        time.sleep(0.05)
    while harness.read_curves(tmp_path / "log") != {"loss": [(3, 0.5)]}:
        assert time.monotonic() < latest, "the viewer hasn't got it"
        time.sleep(0.05)


@pytest.mark.clause("G-2", "G-6")
def test_metrics_are_lines_of_json(harness: Harness, tmp_path: Path) -> None:
    trainer = harness.make_trainer(config(tmp_path))
    trainer.log({"a": 1, "b": 0.5, "c": True}, 0)
    trainer.log({"a": np.float32(0.25), "b": np.array([2]), "c": np.int64(3)}, 1)
    trainer.log({"a": harness.tensor(np.float32(0.25)), "b": harness.tensor(np.array([0.1])), "ä %": 1}, 7)
    trainer.log({"nan": float("nan"), "inf": float("inf"), "-inf": -float("inf")}, -1)
    trainer.log({}, 8)
    trainer.set_test_dataloader([0])
    trainer.set_model(harness.model([(np.ones((1, 1), np.float32), np.ones(1, np.float32))]))
    trainer.test(lambda *_: None)  # its end closes the file
    found = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert found == [
        {"step": 0, "epoch": 0, "values": {"a": 1.0, "b": 0.5, "c": 1.0}},
        {"step": 1, "epoch": 0, "values": {"a": 0.25, "b": 2.0, "c": 3.0}},
        {"step": 7, "epoch": 0, "values": {"a": 0.25, "b": 0.1, "ä %": 1.0}},
        {"step": -1, "epoch": 0, "values": {"nan": "nan", "inf": "inf", "-inf": "-inf"}},
        {"step": 8, "epoch": 0, "values": {}},
    ]


@pytest.mark.clause("G-3", "F-5")
@pytest.mark.parametrize("log_with", ["auto", "by name"])
def test_the_viewers_own_reader_finds_the_curves(harness: Harness, tmp_path: Path, log_with: str) -> None:
    run = build(harness, tmp_path, epoch=2, log_with="auto" if log_with == "auto" else harness.viewer)
    run.trainer.fit(
        logging_step(run), None, lambda trainer, ep: trainer.log({"epoch/end": np.float64(ep)}, trainer.global_step)
    )
    assert harness.read_curves(tmp_path / "log") == {
        "half": [(step, step / 2) for step in range(6)],
        "epoch/end": [(3, 1.0), (6, 2.0)],
    }


@pytest.mark.clause("G-3")
def test_fit_and_test_write_on_in_the_same_curves(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, log_with="auto")
    run.trainer.fit(logging_step(run))
    run.trainer.test(lambda trainer, bat, bat_idx, step: trainer.log({"test": step}, step))
    run.trainer.test(lambda trainer, bat, bat_idx, step: trainer.log({"again": step}, step))
    curves = harness.read_curves(tmp_path / "log")
    points = [(step, float(step)) for step in range(3)]
    assert curves == {"half": [(step, step / 2) for step in range(3)], "test": points, "again": points}


@pytest.mark.clause("G-3")
def test_without_a_viewer_there_is_no_folder(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, log_with="none")
    run.trainer.fit(logging_step(run))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["default_run.log", "metrics.jsonl"]


def resumed(harness: Harness, out_dir: Path) -> None:
    """A run that was killed in the middle of its second epoch, and resumed from the end of the first."""
    for kill_at in (4, None):
        run = build(harness, out_dir, epoch=2, log_with="auto", enable_save_checkpoint=True, resume="auto")
        try:
            run.trainer.fit(logging_step(run, kill_at))
        except Killed:
            continue


@pytest.mark.clause("G-4", "G-1")
def test_metrics_of_a_resumed_run_have_no_gap_and_no_double(harness: Harness, tmp_path: Path) -> None:
    resumed(harness, tmp_path)
    found = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["epoch"]) for line in found] == [(step, 1 + step // 3) for step in range(6)]
    text = (tmp_path / "default_run.log").read_text()
    assert text.count("epoch 1/2 begin") == 1 and text.count("epoch 2/2 begin") == 2


@pytest.mark.clause("G-5")
def test_curves_of_a_resumed_run_have_no_gap_and_no_double(harness: Harness, tmp_path: Path) -> None:
    resumed(harness, tmp_path)
    assert harness.read_curves(tmp_path / "log") == {"half": [(step, step / 2) for step in range(6)]}


@pytest.mark.clause("G-10")
def test_lines_wait_for_a_disk_that_refuses_them(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, epoch=3, enable_save_checkpoint=True, name="mine")
    paths = [tmp_path / "metrics.jsonl", tmp_path / "mine_run.log"]
    paths[1].unlink()
    for path in paths:
        path.mkdir()

    def end(trainer: Any, ep: int) -> None:
        if ep == 2:
            for path in paths:
                path.rmdir()

    run.trainer.fit(logging_step(run), None, end)
    found = [json.loads(line) for line in paths[0].read_text().splitlines()]
    assert [(line["step"], line["values"]) for line in found] == [(step, {"half": step / 2}) for step in range(9)]
    text = paths[1].read_text()
    assert [text.count(f"epoch {ep}/3 begin") for ep in (1, 2, 3)] == [1, 1, 1]
    assert text.count(f"{str(paths[0])!r} can't be written: ") == 1 and "Its lines are kept until it can be." in text


@pytest.mark.clause("G-10", "G-4")
def test_half_a_line_of_a_killed_run_is_dropped(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "epoch": 1, "values": {"half": 0.0}}\n{"step": 1, "ep')
    run = build(harness, tmp_path)
    run.trainer.fit(logging_step(run))
    found = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in found] == [0, 0, 1, 2]


@pytest.mark.clause("G-7")
def test_the_progress_shows_the_loss_and_the_state(
    harness: Harness, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = build(harness, tmp_path, disable_tqdm=False)

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        trainer.set_bar_state({"n": bat_idx, "text": "ok"})
        trainer.set_bar_state({"tensor": harness.tensor(np.float32(0.125)), "numpy": np.float64(1e-9)})
        return run.train_step(trainer, bat, bat_idx, global_step)

    run.trainer.fit(step, lambda *_: None)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2, "one line for each phase, and no bar where stderr is no terminal"
    assert re.match(r"Epoch 1/1 train 3/3 \[.+ batches/s\] loss=", lines[0])
    assert lines[0].endswith(f"loss={run.losses[-1]:.4g}, n=2, text=ok, tensor=0.125, numpy=1e-09")
    assert re.fullmatch(r"Epoch 1/1 val 3/3 \[.+ batches/s\]", lines[1]), "the state of training is gone"


@pytest.mark.clause("G-7")
def test_no_progress_is_shown_where_it_is_off(
    harness: Harness, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = build(harness, tmp_path, disable_tqdm=True)
    run.trainer.set_bar_state({"n": 1})
    run.fit()
    assert capsys.readouterr().err == ""


@pytest.mark.clause("G-8")
@pytest.mark.parametrize("display", ["bar", "lines", "nothing"])
def test_tensors_are_read_only_when_something_is_drawn(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, display: str
) -> None:
    settings: dict[str, Any] = {"accumulate_steps": 2, "clip_grad_norm": 1.0, "disable_tqdm": display == "nothing"}
    run = build(harness, tmp_path, samples=240, **settings)
    run.trainer._backend.asynchronous = True  # or the loss is read in its step, where that waits for nothing (L-13)
    events = _events_of_display(run, monkeypatch, bar=display == "bar")
    value = harness.tensor(np.float32(0.5))

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        events.append("step")
        loss = run.loss(run.model(bat[0]), bat[1])
        trainer.set_records({"loss": loss, "vector": run.model(bat[0])})
        trainer.set_bar_state({"value": value})
        return loss

    run.trainer.fit(step)
    steps = [part.split() for part in " ".join(events).split("step")[1:-1]]
    drawn = [step for step in steps if "drawn" in step]
    assert len(steps) == 59 and (10 < len(drawn) < 30 if display != "nothing" else not drawn)
    assert [step.count("read") for step in drawn] == [2] * len(drawn), "the loss and the value"
    assert not [step for step in steps if "read" in step and "drawn" not in step]


def _events_of_display(run: Run, monkeypatch: pytest.MonkeyPatch, *, bar: bool) -> list[str]:
    """Has tensors that are read, and what is drawn, noted in a list, by a clock that goes on with each batch."""
    events: list[str] = []
    backend = run.trainer._backend
    read: Callable[[Any], float] = backend.to_float

    def noted(value: Any) -> float:
        events.append("read")
        return read(value)

    class Screen(io.StringIO):
        def write(self, text: str) -> int:
            events.append("drawn")
            return super().write(text)

    def clock() -> float:
        return events.count("step") * (0.04 if bar else 12.0)  # every third batch is drawn

    monkeypatch.setattr(backend, "to_float", noted)
    monkeypatch.setattr("sys.stderr", Screen())
    monkeypatch.setattr("tqdm.std.time", clock)
    monkeypatch.setattr("dowdyboy_core._run.progress.time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr("dowdyboy_core._run.progress._on_terminal", lambda: bar)
    return events

"""What hooks and scripts tell a trainer reaches files, viewer and backend, and at the end nothing is lost."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dowdyboy_core import ConfigError, Point, Trainer, TrainerConfig


class Viewer:
    """Keeps what it is given, unless it fails."""

    def __init__(self, name: str, folder: Path) -> None:
        self.opened = (name, folder)
        self.values: list[dict[str, float]] = []
        self.closed = False
        self.fails = False

    def write(self, points: Sequence[Point]) -> None:
        if self.fails:
            raise OSError("it is full")
        self.values += [dict(point.values) for point in points]

    def close(self) -> None:
        self.closed = True


def backend_with(crashing: Any, **changes: Any) -> tuple[Any, list[Viewer]]:
    """The plain backend with two viewers, and those of them that were opened."""
    backend, opened = crashing.PlainBackend(), []

    def open_tracker(name: str, folder: Path) -> Viewer:
        opened.append(Viewer(name, folder))
        return opened[-1]

    for name, value in {"trackers": ("first", "second"), "open_tracker": open_tracker, **changes}.items():
        setattr(backend, name, value)
    return backend, opened


def log_lines(out_dir: Path) -> list[str]:
    """The lines of the run's log without their times."""
    lines = (out_dir / "default_run.log").read_text().splitlines()
    return [line.split(" ", 2)[2] for line in lines]


@pytest.mark.parametrize(("log_with", "name"), [("auto", "first"), ("first", "first"), ("second", "second")])
def test_the_viewer_is_the_frameworks_own_or_the_one_that_is_named(
    crashing: Any, tmp_path: Path, log_with: str, name: str
) -> None:
    backend, opened = backend_with(crashing)
    trainer = Trainer(TrainerConfig(out_dir=tmp_path, log_with=log_with), backend)
    trainer.log({"loss": 0.5}, 1)
    assert [viewer.opened for viewer in opened] == [(name, tmp_path / "log")]


@pytest.mark.parametrize(("log_with", "trackers"), [("none", ("first",)), ("auto", ())])
def test_no_viewer_is_opened_where_none_is_wanted_or_known(
    crashing: Any, tmp_path: Path, log_with: str, trackers: tuple[str, ...]
) -> None:
    backend, opened = backend_with(crashing, trackers=trackers)
    Trainer(TrainerConfig(out_dir=tmp_path, log_with=log_with), backend).log({"loss": 0.5}, 1)
    assert opened == []


def test_a_viewer_that_fails_is_told_of_as_a_warning(
    crashing: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backend, opened = backend_with(crashing)
    trainer = Trainer(TrainerConfig(out_dir=tmp_path), backend)
    trainer.log({"loss": 0.5}, 1)
    opened[0].fails = True
    trainer._metrics.close()
    said = f"The viewer's files in {str(tmp_path / 'log')!r} can't be written: it is full. Its curves stop here; "
    assert [line.startswith(f"[WARNING] {said}") for line in log_lines(tmp_path)] == [True]
    assert capsys.readouterr().out.startswith(said)


class Tensor:
    """Of a device that computes beside Python."""

    def __init__(self, shape: tuple[int, ...] = (), dtype: str = "float32") -> None:
        self.shape, self.dtype = shape, dtype

    def __repr__(self) -> str:
        return f"{self.dtype} of shape {self.shape}"


def asynchronous(crashing: Any, done: list[str]) -> Any:
    """A backend of such a device, which notes when tensors are copied and read."""

    def keep(value: Any) -> tuple[str, Any]:
        done.append("copied")
        return "copy", value

    def read(value: Any) -> float:
        kind, tensor = value
        assert kind == "copy" and isinstance(tensor, Tensor)
        done.append("read")
        return 0.25

    def describe(value: Any) -> Any:
        return (value.dtype, value.shape) if isinstance(value, Tensor) else None

    backend, _ = backend_with(
        crashing, asynchronous=True, trackers=(), describe_tensor=describe, keep_tensor=keep, to_float=read
    )
    return backend


@pytest.mark.parametrize("tensor", [Tensor(), Tensor((1, 1)), Tensor((1,), "int64")], ids=repr)
def test_a_tensor_is_copied_when_it_is_logged_and_read_when_it_is_written(
    crashing: Any, tmp_path: Path, tensor: Tensor
) -> None:
    done: list[str] = []
    trainer = Trainer(TrainerConfig(out_dir=tmp_path), asynchronous(crashing, done))
    trainer.log({"loss": tensor, "rate": 0.5}, 1)
    assert done == ["copied"]
    trainer._metrics.close()
    assert done == ["copied", "read"]
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["values"] == {"loss": 0.25, "rate": 0.5}


@pytest.mark.parametrize("value", [Tensor((2,)), Tensor((0,)), Tensor((), "complex64"), "0.5"], ids=repr)
def test_a_value_that_is_no_number_is_not_logged(crashing: Any, tmp_path: Path, value: Any) -> None:
    trainer = Trainer(TrainerConfig(out_dir=tmp_path), asynchronous(crashing, []))
    with pytest.raises(ConfigError, match=r"under the name 'loss'\. Give numbers or one-element tensors"):
        trainer.log({"loss": value}, 1)


@pytest.mark.parametrize(("had", "factor"), [("fp16", 65536.0), ("no", 1.0)])
def test_the_precision_that_is_had_decides_on_loss_scaling(
    crashing: Any, tmp_path: Path, had: str, factor: float
) -> None:
    asked: list[str] = []

    def enable(precision: str) -> str:
        asked.append(precision)
        return had

    factors: list[float] = []
    backend, _ = backend_with(
        crashing, enable_precision=enable, backward=lambda loss, factor: factors.append(factor), trackers=()
    )
    trainer = Trainer(TrainerConfig(out_dir=tmp_path, mixed_precision="fp16"), backend)
    assert asked == ["fp16"]
    assert trainer.precision == had
    trainer.backward("loss")
    assert factors == [factor]
    said = "[WARNING] mixed_precision='fp16' can't be had on cpu with plain; 'no' is in force."
    assert log_lines(tmp_path) == ([] if had == "fp16" else [said])


def test_a_folder_that_may_not_be_written_to_is_refused(
    crashing: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = os.W_OK | os.X_OK
    with monkeypatch.context() as patched:  # since root may do everything
        patched.setattr(os, "access", lambda path, mode: not mode & wanted)
        with pytest.raises(ConfigError) as caught:
            Trainer(TrainerConfig(out_dir=tmp_path), crashing.PlainBackend())
    assert str(caught.value) == f"out_dir={str(tmp_path)!r} can't be written to. Give a folder that can be."


def state_of(crashing: Any, tmp_path: Path, state: dict[str, Any], loss: Any) -> str:
    """What the display says of a training batch with this loss."""
    backend, _ = backend_with(crashing, trackers=(), backward=lambda loss, factor: None)
    said: list[str] = []
    trainer = Trainer(
        TrainerConfig(out_dir=tmp_path, epoch=1, enable_save_checkpoint=False, disable_tqdm=True), backend
    )
    model = crashing.Model()
    trainer.set_model(model)
    trainer.set_optimizer(crashing.Optimizer(model, 0.25))
    trainer.set_train_dataloader([0])
    trainer.set_val_dataloader([0, 1])

    def val_step(trainer: Any, bat: int, bat_idx: int, global_step: int) -> Any:
        said.append(trainer._display.describe())
        trainer.set_bar_state(state)
        return loss

    trainer.fit(lambda trainer, bat, bat_idx, global_step: loss, val_step)
    assert said[0] == "", "nothing of the training is left"
    return said[1]


@pytest.mark.parametrize(
    ("loss", "said"),
    [(0.123456, "loss=0.1235, lr=1e-05, good=3, on=True, who=me"), (None, "lr=1e-05, good=3, on=True, who=me")],
)
def test_the_display_says_the_loss_and_what_it_was_given(crashing: Any, tmp_path: Path, loss: Any, said: str) -> None:
    state = {"lr": 1e-5, "none": None, "good": 3, "on": True, "list": [1], "who": "me"}
    assert state_of(crashing, tmp_path, state, loss) == said


def test_a_trainer_that_is_gone_has_written_all_and_closed_the_viewer(crashing: Any, tmp_path: Path) -> None:
    backend, opened = backend_with(crashing)
    trainer = Trainer(TrainerConfig(out_dir=tmp_path), backend)
    trainer.log({"loss": 0.5}, 1)
    log = tmp_path / "default_run.log"
    log.unlink()
    log.mkdir()  # the disk won't have the line for now
    trainer.print("kept")
    log.rmdir()
    del trainer
    gc.collect()
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["values"] == {"loss": 0.5}
    assert [viewer.closed for viewer in opened] == [True]
    assert log_lines(tmp_path) == ["[INFO] kept"]

"""Whole traces of runs, stored once: events, files, series and texts are the same to the byte on every backend."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance._golden import Golden, files
from dowdyboy_conformance._problem import Run, build, config, data, layers
from dowdyboy_conformance._resuming import Killed
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core import DowdyboyError, TrainerConfig


class Recorder:
    """Hooks that write down all they can see, and log numbers that are exact on any framework."""

    def __init__(self, run: Run, kill_at: int | None = None) -> None:
        self.run = run
        self.kill_at = kill_at
        self.lines: list[str] = []

    def fit(self) -> Recorder:
        """Trains with all hooks."""
        self.run.trainer.set_save_best_calc_func(self.calc_best)
        self.run.trainer.fit(self.train_step, self.val_step, self.on_epoch_end)
        self.note("over")
        return self

    def note(self, event: str) -> None:
        """A line with the event and the state of everything."""
        run, trainer = self.run, self.run.trainer
        records = ",".join(f"{name}{tuple(values.shape)}" for name, values in trainer.get_records().items()) or "-"
        trainer.wait_for_checkpoint()
        saved = sorted(path.name for path in Path(trainer.config.out_dir, "checkpoint").glob("*"))
        self.lines.append(
            f"{event} epoch={trainer.epoch} global_step={trainer.global_step} "
            f"mode={'train' if run.harness.is_training(run.model) else 'eval'} "
            f"grad={'on' if run.harness.is_grad_enabled() else 'off'} "
            f"lr={run.harness.learning_rate(run.optimizer):g} records={records} checkpoints={','.join(saved) or '-'}"
        )

    def train_step(self, trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        """Hook."""
        self.note(f"train {bat_idx} {global_step}")
        trainer.log({"step/half": global_step / 2}, global_step)
        if global_step == self.kill_at:
            raise Killed
        trainer.set_records({"vector": np.arange(3) + global_step})
        trainer.set_bar_state({"half": global_step / 2})
        return self.run.train_step(trainer, bat, bat_idx, global_step)

    def val_step(self, trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        """Hook; the second batch has a record more."""
        self.note(f"val {bat_idx} {global_step}")
        trainer.set_records({"seen": len(bat[0]), **({"late": 1.5} if bat_idx else {})})

    def calc_best(self, trainer: Any) -> float:
        """Hook; the second epoch is the best."""
        self.note("best")
        return abs(float(trainer.epoch) - 2.25)

    def on_epoch_end(self, trainer: Any, ep: int) -> None:
        """Hook."""
        self.note(f"end {ep}")
        trainer.print(f"the end of epoch {ep}")
        trainer.log({"epoch/end": ep, "bad": float("nan")}, trainer.global_step)

    def test_step(self, trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        """Hook."""
        self.note(f"test {bat_idx} {global_step}")
        trainer.set_records({"tested": bat_idx})

    def on_test_end(self, trainer: Any) -> None:
        """Hook."""
        self.note("tested")


SETTINGS: dict[str, Any] = {
    "epoch": 4,
    "schedule": "step",
    "lr": 1.0,
    "accumulate_steps": 2,
    "log_with": "auto",
    "enable_save_checkpoint": True,
    "save_best": True,
    "save_interval": 2,
    "val_interval": 2,
}


def curves(harness: Harness, out_dir: Path) -> list[str]:
    """A line for each curve that the viewer shows."""
    return [f"{name} {points}" for name, points in sorted(harness.read_curves(out_dir / "log").items())]


@pytest.mark.clause("L-1", "L-2", "L-4", "H-1", "H-2", "H-4", "R-6", "B-2", "B-5", "C-1", "C-2", "G-1", "G-2", "G-3")
def test_the_trace_of_a_run(harness: Harness, golden: Golden, tmp_path: Path) -> None:
    recorder = Recorder(build(harness, tmp_path, **SETTINGS)).fit()
    recorder.run.trainer.test(recorder.test_step, recorder.on_test_end)
    golden("run", [*recorder.lines, "", *files(tmp_path), "", *curves(harness, tmp_path)])


@pytest.mark.clause("C-1", "C-2", "C-6", "C-11", "C-14", "G-1", "G-4", "B-9", "L-1")
def test_the_trace_of_a_run_that_was_killed_and_resumed(harness: Harness, golden: Golden, tmp_path: Path) -> None:
    settings = {**SETTINGS, "resume": "auto", "save_steps": 2, "val_interval": 1}
    killed = Recorder(build(harness, tmp_path, **settings), kill_at=8)
    with pytest.raises(Killed):
        killed.fit()
    resumed = Recorder(build(harness, tmp_path, **settings)).fit()
    over = Recorder(build(harness, tmp_path, **settings)).fit()
    lines = [*killed.lines, "killed", *resumed.lines, "again", *over.lines]
    golden("resumed", [*lines, "", *files(tmp_path), "", *curves(harness, tmp_path)])


def _steps(run: Run, give: Callable[[Any], Any]) -> Callable[[], Any]:
    return lambda: run.trainer.fit(lambda trainer, bat, bat_idx, step: give(run.model(bat[0])))


def _mistakes(harness: Harness, out_dir: Path) -> dict[str, Callable[[], Any]]:
    """What people do by mistake, in words, and the call."""

    def trainer(**settings: Any) -> Any:
        return harness.make_trainer(config(out_dir, **settings))

    def run(**settings: Any) -> Any:
        return build(harness, out_dir, **settings)

    stranger = harness.optimizer("sgd", [harness.model(layers(4, 4))], 0.1).optimizer
    return {
        "a field's name is misspelt": lambda: TrainerConfig(epochs=3),  # type: ignore[call-arg]
        "a precision that there isn't": lambda: TrainerConfig(mixed_precision="fp8"),
        "a text for a number": lambda: TrainerConfig(epoch="10"),  # type: ignore[arg-type]
        "a device twice": lambda: TrainerConfig(device=[0, 0]),
        "no configuration": lambda: harness.make_trainer({"epoch": 3}),  # type: ignore[arg-type]
        "a viewer that there isn't": lambda: trainer(log_with="paper"),
        "windows by hand": lambda: trainer(accumulate_steps=2, auto_optimize=False),
        "no loader": lambda: trainer().fit(lambda *_: None),
        "no val loader": lambda: _without_val(harness, out_dir),
        "an optimizer for a model": lambda: trainer().set_model(stranger),
        "a model for an optimizer": lambda: trainer().set_optimizer(harness.model(layers(4, 3))),
        "no list of models": lambda: trainer().set_models(3),
        "an optimizer of another model": lambda: _with(run(), stranger),
        "more schedulers": lambda: trainer().set_optimizers([stranger], [None, None]),
        "an iterator for a loader": lambda: trainer().set_train_dataloader(iter([1])),
        "a component that can be trained": lambda: trainer().set_component(harness.model(layers(4, 3))),
        "no loss": _steps(run(), lambda out: None),
        "a loss of several elements": _steps(run(), lambda out: out),
        "a loss that is detached": _steps(run(), lambda out: out.sum().detach()),
        "a step of two arguments": lambda: run().trainer.fit(lambda trainer, bat: None),
        "a record of a dict": lambda: run().trainer.set_records({"a": {"b": 1}}),
        "a text for a curve": lambda: run().trainer.log({"a": "b"}, 0),
        "no step for a curve": lambda: run().trainer.log({"a": 1}, None),
        "a bar of a text": lambda: run().trainer.set_bar_state("half"),
        "no record at all for the best": lambda: _silent(run(enable_save_checkpoint=True, save_best=True)),
        "no such record for the best": run(enable_save_checkpoint=True, save_best=True, save_best_rec="acc").fit,
        "a best that can't be called": lambda: trainer().set_save_best_calc_func("val_loss"),
        "a best that is no number": lambda: _best_of(run(enable_save_checkpoint=True, save_best=True), "much"),
        "no checkpoint": lambda: run().trainer.load_checkpoint(out_dir / "none"),
        "no checkpoint in it": lambda: run().trainer.load_checkpoint(_made(out_dir / "empty")),
        "a folder of checkpoints": lambda: run().trainer.load_checkpoint(out_dir),
        "a checkpoint without a model": lambda: trainer().load_checkpoint(out_dir / "checkpoint/epoch_1"),
        "no test loader": lambda: trainer().test(lambda *_: None),
    }


def _without_val(harness: Harness, out_dir: Path) -> None:
    made = harness.make_trainer(config(out_dir))
    run = build(harness, out_dir)
    made.set_train_dataloader(harness.loader(harness.dataset(*data()), 4))
    made.set_model(run.model)
    made.set_optimizer(run.optimizer)
    made.fit(run.train_step, run.val_step)


def _with(run: Run, optimizer: Any) -> None:
    run.trainer.set_optimizer(optimizer)
    run.fit()


def _silent(run: Run) -> None:
    run.trainer.fit(lambda trainer, bat, bat_idx, step: run.loss(run.model(bat[0]), bat[1]))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _best_of(run: Run, value: Any) -> None:
    run.trainer.set_save_best_calc_func(lambda trainer: value)
    run.fit()


@pytest.mark.clause("X-1", "X-2", "X-3")
def test_the_texts_of_errors(harness: Harness, golden: Golden, tmp_path: Path) -> None:
    lines = []
    for what, mistake in _mistakes(harness, tmp_path).items():
        lines.append(f"-- {what}")
        try:
            mistake()
        except DowdyboyError as error:
            text = str(error).replace(str(tmp_path), "OUT_DIR").replace(repr(harness.viewer), "VIEWER")
            text = re.sub(r"(an object of type )\w+(?=, which is no | with )", r"\1TYPE", text)  # a framework's own
            lines.append(f"{type(error).__name__}: {text.replace(harness.name, 'FRAMEWORK')}")
        else:
            pytest.fail(f"{what}: is accepted")
    golden("errors", lines)

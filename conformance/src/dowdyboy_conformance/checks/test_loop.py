"""H and L: which hook is called when, with what, in which mode."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance._problem import Run, build, config, layers
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core import ConfigError


class Trace:
    """Writes down what can be seen at every event of a run."""

    def __init__(self, run: Run, out_dir: Path) -> None:
        self.run = run
        self.folder = out_dir / "checkpoint"
        self.lines: list[str] = []

    def note(self, event: str) -> None:
        """One line: the event, the learning rate, the records' names, the checkpoints."""
        rate = self.run.harness.learning_rate(self.run.optimizer)
        names = ",".join(self.run.trainer.get_records()) or "-"
        self.run.trainer.wait_for_checkpoint()
        saved = ",".join(sorted(path.name for path in self.folder.glob("*"))) or "-"
        self.lines.append(f"{event} lr={rate:g} {names} {saved}")

    def train_step(self, trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        """Notes the event before the records of the batch."""
        self.note(f"train {trainer.epoch} {bat_idx} {global_step}")
        return self.run.train_step(trainer, bat, bat_idx, global_step)

    def val_step(self, trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        """Notes the event before the records of the batch."""
        self.note(f"val {trainer.epoch} {bat_idx} {global_step}")
        return self.run.val_step(trainer, bat, bat_idx, global_step)

    def best(self, trainer: Any) -> float:
        """Gives values of which the first is the best."""
        self.note(f"best {trainer.epoch}")
        return float(trainer.epoch)

    def on_epoch_end(self, trainer: Any, ep: int) -> None:
        """Notes the event."""
        self.note(f"end {ep}")


def traced(harness: Harness, out_dir: Path, **changed: Any) -> list[str]:
    run = build(
        harness,
        out_dir,
        samples=8,
        epoch=2,
        lr=1.0,
        enable_save_checkpoint=True,
        save_best=True,
        **changed,
    )
    trace = Trace(run, out_dir)
    run.trainer.set_save_best_calc_func(trace.best)
    run.trainer.fit(trace.train_step, trace.val_step, trace.on_epoch_end)
    trace.note("over")
    return trace.lines


BOTH = "train_loss,val_loss"
FIRST = "best_epoch_1,epoch_1,last_epoch_1"
SECOND = "best_epoch_1,epoch_1,epoch_2,last_epoch_2"


@pytest.mark.clause("L-1", "L-2", "L-4", "H-1", "H-2", "R-6", "B-2", "B-5")
def test_the_order_of_events_with_a_clock_scheduler(harness: Harness, tmp_path: Path) -> None:
    assert traced(harness, tmp_path, schedule="step") == [
        "train 1 0 0 lr=1 - -",
        "train 1 1 1 lr=1 train_loss -",
        "val 1 0 0 lr=1 train_loss -",
        f"val 1 1 1 lr=1 {BOTH} -",
        f"best 1 lr=0.5 {BOTH} -",
        f"end 1 lr=0.5 {BOTH} -",
        f"train 2 0 2 lr=0.5 - {FIRST}",
        f"train 2 1 3 lr=0.5 train_loss {FIRST}",
        f"val 2 0 2 lr=0.5 train_loss {FIRST}",
        f"val 2 1 3 lr=0.5 {BOTH} {FIRST}",
        f"best 2 lr=0.25 {BOTH} {FIRST}",
        f"end 2 lr=0.25 {BOTH} {FIRST}",
        f"over lr=0.25 - {SECOND}",
    ]


@pytest.mark.clause("L-1", "L-5")
def test_the_order_of_events_with_a_plateau_scheduler(harness: Harness, tmp_path: Path) -> None:
    lines = [line for line in traced(harness, tmp_path, schedule="plateau") if line[0] in "be"]
    assert lines == [
        f"best 1 lr=1 {BOTH} -",
        f"end 1 lr=1 {BOTH} -",
        f"best 2 lr=1 {BOTH} {FIRST}",
        f"end 2 lr=0.5 {BOTH} {FIRST}",
    ]


@pytest.mark.clause("H-4", "L-10", "L-11")
def test_modes_and_gradients_in_each_hook(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, epoch=2)
    second, component = harness.model(layers(4, 3)), harness.loss("mse")
    run.trainer.set_models([run.model, second])
    run.trainer.set_component(component)
    watched = [run.model, second, component]
    seen: list[tuple[str, bool, list[bool]]] = []

    def note(where: str) -> None:
        seen.append((where, harness.is_grad_enabled(), [harness.is_training(item) for item in watched]))

    def train_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        note("train")
        return run.train_step(trainer, bat, bat_idx, global_step)

    def val_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        note("val")
        return run.val_step(trainer, bat, bat_idx, global_step)

    def on_epoch_end(trainer: Any, ep: int) -> None:
        seen.append(("end", harness.is_grad_enabled(), []))
        trainer.test(lambda *_: note("test"), lambda _: seen.append(("over", harness.is_grad_enabled(), [])))

    run.trainer.fit(train_step, val_step, on_epoch_end)
    epoch = [
        *[("train", True, [True] * 3)] * 3,
        *[("val", False, [False] * 3)] * 3,
        ("end", True, []),
        *[("test", False, [False] * 3)] * 3,
        ("over", True, []),
    ]
    assert seen == epoch * 2
    assert harness.is_grad_enabled()


@pytest.mark.clause("H-1", "L-9")
def test_test_counts_from_zero_each_time_and_has_its_own_records(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path)
    calls: list[Any] = []

    def test_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        calls.append((trainer is run.trainer, bat_idx, global_step))
        trainer.set_records({"test": bat_idx})

    def on_test_end(trainer: Any) -> None:
        found = {name: harness.numpy(item).tolist() for name, item in trainer.get_records().items()}
        calls.append(found)

    def on_epoch_end(trainer: Any, ep: int) -> None:
        trainer.test(test_step, on_test_end)
        calls.append(sorted(trainer.get_records()))

    run.fit(on_epoch_end=on_epoch_end)
    run.trainer.test(test_step, on_test_end)
    once = [(True, 0, 0), (True, 1, 1), (True, 2, 2), {"test": [0, 1, 2]}]
    assert calls == [*once, ["train_loss", "val_loss"], *once]
    assert run.trainer.get_records() == {}


@pytest.mark.clause("L-3")
@pytest.mark.parametrize(("interval", "expected"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4]), (3, [3]), (9, [])])
def test_validation_keeps_its_interval(harness: Harness, tmp_path: Path, interval: int, expected: list[int]) -> None:
    run = build(harness, tmp_path, epoch=5, val_interval=interval)
    seen: list[tuple[int, int]] = []
    run.trainer.fit(run.train_step, lambda trainer, bat, bat_idx, step: seen.append((trainer.epoch, bat_idx)))
    assert seen == [(ep, batch) for ep in expected for batch in range(3)]


@pytest.mark.clause("L-3")
def test_without_a_val_step_nothing_is_validated(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path)
    ends: list[list[str]] = []
    run.fit(val=False, on_epoch_end=lambda trainer, ep: ends.append(sorted(trainer.get_records())))
    assert ends == [["train_loss"]]
    assert len(run.losses) == 3, "the validation data is not for train_step"


@pytest.mark.clause("L-7", "L-8")
def test_epoch_and_global_step_follow_the_run(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, epoch=2)
    trainer, seen = run.trainer, []
    assert (trainer.epoch, trainer.global_step) == (0, 0)

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        seen.append((trainer.epoch, trainer.global_step, global_step))
        return run.train_step(trainer, bat, bat_idx, global_step)

    expected = [(1 + step // 3, step, step) for step in range(6)]
    trainer.fit(step, run.val_step)
    assert seen == expected
    assert (trainer.epoch, trainer.global_step) == (2, 6)
    before = run.parameters()
    first = run.losses[0]
    trainer.fit(step, run.val_step)
    assert seen == expected * 2, "a second fit counts anew"
    assert run.losses[6] < first, "and goes on with the weights as they are"
    assert np.abs(run.parameters()["fc0.weight"] - before["fc0.weight"]).max() > 0


class _Callable:
    def __call__(self, trainer: Any, bat: Any, bat_idx: int, global_step: int, extra: int = 0) -> None:
        """Takes one argument more, with a default."""


def _five(extra: int, trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
    """Takes five."""


@pytest.mark.clause("H-3", "H-5")
@pytest.mark.parametrize(
    "hook",
    [_Callable(), _Callable().__call__, functools.partial(_five, 1), lambda *args: None, lambda a, b, c, d: None],
    ids=["object", "method", "partial", "star", "lambda"],
)
def test_any_callable_with_four_arguments_is_a_hook(harness: Harness, tmp_path: Path, hook: Any) -> None:
    run = build(harness, tmp_path)
    run.trainer.fit(run.train_step, hook)
    run.trainer.test(hook)


def _two(trainer: Any, bat: Any) -> None:
    """Takes too few."""


FOUR = "(trainer, bat, bat_idx, global_step)"


@pytest.mark.clause("H-3", "X-2")
@pytest.mark.parametrize("place", ["train_step", "val_step", "test_step"])
def test_a_hook_with_other_arguments_is_refused_before_any_work(harness: Harness, tmp_path: Path, place: str) -> None:
    run = build(harness, tmp_path)

    def read() -> Any:
        raise AssertionError("data was read")

    for role in ("train", "val", "test"):
        getattr(run.trainer, f"set_{role}_dataloader")(harness.loader(harness.stream(read), 2))
    hook: Any = _two
    call = {
        "train_step": lambda: run.trainer.fit(hook),
        "val_step": lambda: run.trainer.fit(run.train_step, hook),
        "test_step": lambda: run.trainer.test(hook),
    }[place]
    with pytest.raises(ConfigError) as caught:
        call()  # type: ignore[no-untyped-call]
    text = str(caught.value)
    assert text.startswith(f"{place}(trainer") and f" can't be called with {FOUR}: too many" in text
    assert text.endswith(f" Define it as def {place}{FOUR}.")


@pytest.mark.clause("H-3", "X-2")
def test_other_hooks_are_refused_too(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path)
    wrong: Any = 3
    with pytest.raises(ConfigError) as caught:
        run.trainer.fit(wrong)
    assert str(caught.value) == f"train_step=3 of type int can't be called. Give a function train_step{FOUR}."
    bare: Any = lambda: None  # noqa: E731
    with pytest.raises(ConfigError, match=r"on_epoch_end\(\) can't be called with \(trainer, ep\)"):
        run.trainer.fit(run.train_step, None, bare)
    with pytest.raises(ConfigError, match=r"on_test_end\(\) can't be called with \(trainer\)"):
        run.trainer.test(run.val_step, bare)


@pytest.mark.clause("H-5")
@pytest.mark.parametrize("kind", ["none", "float", "int", "numpy", "vector", "tensor", "text", "tuple"])
def test_val_step_may_return_anything(
    harness: Harness, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    value: Any = {
        "none": None,
        "float": 0.5,
        "int": 3,
        "numpy": np.float32(0.5),
        "vector": np.ones(3),
        "tensor": harness.tensor(np.float32(0.5)),
        "text": "fine",
        "tuple": (1, 2),
    }[kind]
    run = build(harness, tmp_path, disable_tqdm=False)
    run.trainer.fit(run.train_step, lambda *_: value)
    run.trainer.test(lambda *_: value)
    shown = {"float": "loss=0.5", "int": "loss=3", "numpy": "loss=0.5", "tensor": "loss=0.5", "text": "loss=fine"}
    said = capsys.readouterr().err
    assert said.count(shown.get(kind, "loss=")) == (2 if kind in shown else 1), said


class _Stop(Exception):
    """An error of the user's own."""


@pytest.mark.clause("H-7")
@pytest.mark.parametrize("where", ["train", "val", "end", "best", "test", "over"])
def test_an_error_in_a_hook_reaches_the_caller(harness: Harness, tmp_path: Path, where: str) -> None:
    run = build(harness, tmp_path, save_best=True)

    def fail_in(place: str, result: Any) -> Any:
        def hook(*_: Any) -> Any:
            if place == where:
                raise error
            return result

        return hook

    error = _Stop("mine")
    run.trainer.set_save_best_calc_func(fail_in("best", 1.0))

    def train_step(*args: Any) -> Any:
        fail_in("train", None)()
        return run.train_step(*args)

    with pytest.raises(_Stop) as caught:
        run.trainer.fit(train_step, fail_in("val", None), fail_in("end", None))
        run.trainer.test(fail_in("test", None), fail_in("over", None))
    assert caught.value is error


@pytest.mark.clause("L-11", "O-5", "H-6")
def test_two_models_with_two_optimizers(harness: Harness, tmp_path: Path) -> None:
    trainer = harness.make_trainer(config(tmp_path, auto_optimize=False))
    models = [harness.model(layers(4, 2, seed=seed)) for seed in (1, 2)]
    optimizers = [harness.optimizer("sgd", [model], 1.0).optimizer for model in models]
    trainer.set_models(models)
    trainer.set_optimizers(optimizers)
    inputs = np.ones((2, 4), np.float32)
    trainer.set_train_dataloader(harness.loader(harness.dataset(inputs), 1))
    start = [harness.parameters(model) for model in models]

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        one, other = trainer.get_models()
        first, second = trainer.get_optimizers()[0]
        trainer.zero_grad(first)
        trainer.backward(one(bat[0]).sum())
        trainer.step(first)
        trainer.backward(other(bat[0]).sum())  # never cleared: the gradients of both batches add up
        if bat_idx == 1:
            trainer.step(second)

    trainer.fit(step)
    for before, model in zip(start, models, strict=True):
        moved = harness.parameters(model)["fc0.weight"] - before["fc0.weight"]
        np.testing.assert_allclose(moved, -2.0, rtol=1e-6)

"""X: what can't be right is refused before any work is lost. O: each scheduler steps once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dowdyboy_conformance._problem import CLASSES, FEATURES, Run, build, config, layers
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core import ConfigError, SetupError


class _ByEpoch:
    """A scheduler of another library's kind: it wants to be told the epoch."""

    def step(self, epoch: int, metric: float | None = None) -> None:
        raise AssertionError("it must not be stepped")


SCHEDULERS: list[tuple[str, Any, str]] = [
    ("a list", lambda run: [run.scheduler], "is no scheduler. Give one for each optimizer; several that follow"),
    ("a dict", lambda run: {"a": run.scheduler}, "is no scheduler. Give one for each optimizer; several that follow"),
    ("a text", lambda run: "cosine", "Scheduler 0, 'cosine' of type str, is no scheduler: it has no step()."),
    ("a number", lambda run: 0.1, "Scheduler 0, 0.1 of type float, is no scheduler: it has no step()."),
    ("a class", lambda run: type(run.scheduler), "Make a scheduler of it, for the optimizer that it is to drive."),
    ("an optimizer", lambda run: run.optimizer, "is no scheduler. Give a scheduler that was made for the optimizer"),
    (
        "one that wants the epoch",
        lambda run: _ByEpoch(),
        "Scheduler 0, an object of type _ByEpoch, has step(epoch, metric=None), which can't be called with (), as the "
        "trainer does once an epoch. Set auto_schedule=False and step it yourself, for example in on_epoch_end.",
    ),
]


@pytest.mark.clause("X-4", "X-2")
@pytest.mark.parametrize(("make", "text"), [case[1:] for case in SCHEDULERS], ids=[case[0] for case in SCHEDULERS])
def test_what_is_no_scheduler_is_refused(harness: Harness, tmp_path: Path, make: Any, text: str) -> None:
    run = build(harness, tmp_path, schedule="step")
    with pytest.raises(ConfigError) as caught:
        run.trainer.set_optimizer(run.optimizer, make(run))
    assert text in str(caught.value)
    assert run.trainer.get_optimizers() == ([run.optimizer], [run.scheduler]), "what was set before stays"


LOADERS: list[tuple[Any, str]] = [
    (lambda loader: {"a": loader, "b": loader}, "got a dict with the keys ['a', 'b'], which is what it yields. Give"),
    (lambda loader: [loader, loader], "got a list of loaders. Give"),
    (lambda loader: (loader,), "got a tuple of loaders. Give"),
]


@pytest.mark.clause("X-4", "X-2")
@pytest.mark.parametrize("role", ["train", "val", "test"])
@pytest.mark.parametrize(("make", "text"), LOADERS, ids=["dict", "list", "tuple"])
def test_several_loaders_are_not_one(harness: Harness, tmp_path: Path, role: str, make: Any, text: str) -> None:
    trainer = harness.make_trainer(config(tmp_path))
    loader = harness.loader(harness.dataset(layers(FEATURES, CLASSES)[0][0]), 1)
    with pytest.raises(ConfigError) as caught:
        getattr(trainer, f"set_{role}_dataloader")(make(loader))
    assert str(caught.value).startswith(f"set_{role}_dataloader {text}")


@pytest.mark.clause("X-4")
def test_an_optimizer_is_given_once(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path)
    with pytest.raises(ConfigError, match=r"^Optimizer 1 is optimizer 0 again, which would step twice\."):
        run.trainer.set_optimizers([run.optimizer, run.optimizer])


def _wanting_a_closure(run: Run) -> Any:
    """The optimizer, as one whose step computes the loss itself."""
    kind = type(run.optimizer)
    run.optimizer.__class__ = type("Searching", (kind,), {"step": lambda self, closure: None})
    return run.optimizer


@pytest.mark.clause("X-4", "X-2")
def test_an_optimizer_that_wants_a_closure_is_refused(harness: Harness, tmp_path: Path) -> None:
    wants = "Optimizer 0, an object of type Searching, wants more than its gradients: step(closure). "
    settings: list[tuple[dict[str, Any], str]] = [
        (
            {},
            "auto_optimize=True can't give it. Set auto_optimize=False, and call trainer.step(optimizer, closure=...) "
            "in train_step.",
        ),
        (
            {"mixed_precision": "fp16", "auto_optimize": False},
            "What it computes within a step can't be unscaled in fp16. Use mixed_precision='bf16' or 'no'.",
        ),
    ]
    for changed, text in settings:
        run = build(harness, tmp_path, **changed)
        with pytest.raises(ConfigError) as caught:
            run.trainer.set_optimizer(_wanting_a_closure(run))
        assert str(caught.value) == wants + text
    run = build(harness, tmp_path, auto_optimize=False)
    run.trainer.set_optimizer(_wanting_a_closure(run))
    run.fit(val=False)


SHARING: list[dict[str, Any]] = [
    {"accumulate_steps": 2},
    {"clip_grad_norm": 1.0},
    {"clip_grad_value": 1.0},
    {"mixed_precision": "fp16"},
]


@pytest.mark.clause("X-4", "X-2")
@pytest.mark.parametrize("changed", SHARING, ids=[next(iter(item)) for item in SHARING])
def test_optimizers_that_would_rescale_one_gradient_are_refused(
    harness: Harness, tmp_path: Path, changed: dict[str, Any]
) -> None:
    run = build(harness, tmp_path, **changed)
    other = harness.optimizer("sgd", [run.model], 0.1).optimizer
    run.trainer.set_optimizers([run.optimizer, other])
    with pytest.raises(SetupError) as caught:
        run.fit()
    [(field, value)] = changed.items()
    assert str(caught.value) == (
        f"Optimizers 0 and 1 share the parameter '0/fc0.weight', whose gradient each of them would rescale for "
        f"{field}={value!r}. Give each parameter to one optimizer, or set auto_optimize=False and clear, differentiate "
        "and step for each of them in turn."
    )
    assert run.losses == []


@pytest.mark.clause("X-4", "L-11")
def test_optimizers_may_share_where_nothing_is_rescaled(harness: Harness, tmp_path: Path) -> None:
    runs = [build(harness, tmp_path / name, lr=lr, samples=4) for name, lr in (("one", 0.2), ("two", 0.1))]
    other = harness.optimizer("sgd", [runs[1].model], 0.1).optimizer
    runs[1].trainer.set_optimizers([runs[1].optimizer, other])
    one, two = (run.fit(val=False).parameters() for run in runs)
    for path in one:
        assert two[path] == pytest.approx(one[path], abs=1e-6)


@pytest.mark.clause("X-4", "L-5")
def test_a_scheduler_must_have_a_value_to_follow(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, schedule="plateau", epoch=2, val_interval=3)
    kind = type(run.scheduler).__name__
    with pytest.raises(SetupError) as caught:
        run.fit()
    assert str(caught.value) == (
        f"The scheduler {kind} follows a value of the epochs that val_interval=3 divides, and there is none among 2. "
        "Set a smaller val_interval, or auto_schedule=False."
    )
    assert run.losses == []
    run = build(harness, tmp_path, schedule="plateau", epoch=2)
    with pytest.raises(SetupError) as caught:
        run.fit(val=False)
    assert str(caught.value).endswith(f"or name one of these. The scheduler {kind} follows its mean.")
    assert len(run.losses) == 3


@pytest.mark.clause("O-9", "L-4")
@pytest.mark.parametrize("schedule", ["step", "plateau"])
def test_a_shared_scheduler_steps_once(harness: Harness, tmp_path: Path, schedule: str) -> None:
    run = build(harness, tmp_path, schedule=schedule, epoch=2)
    other = harness.optimizer("sgd", [run.model], 0.0).optimizer
    run.trainer.set_optimizers([run.optimizer, other], [run.scheduler, None])
    run.trainer._parts.schedulers[1] = run.scheduler  # which in some frameworks drives one optimizer only
    steps: list[Any] = []
    step = run.trainer._backend.step_scheduler

    def noted(scheduler: Any, value: float | None) -> None:
        steps.append(scheduler)
        step(scheduler, value)

    run.trainer._backend.step_scheduler = noted  # type: ignore[method-assign]
    run.fit()
    assert steps == [run.scheduler] * 2

"""O-16: gradients clamped. O-17: steps with a closure. O-18: gradients unscaled by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance import _oracle
from dowdyboy_conformance._problem import Run, build, config, data, layers
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_conformance.scenarios.numbers import scale_the_loss
from dowdyboy_core import ConfigError, SetupError, TrainerConfig, UnsupportedError

LAYERS = layers(4, 4, 3)


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compares parameters bit by bit."""
    for name, array in expected.items():
        assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.clause("O-16")
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("window", [1, 2])
def test_the_averaged_gradient_is_clamped(harness: Harness, tmp_path: Path, window: int, scaled: bool) -> None:
    parts: dict[str, Any] = {"initial": LAYERS, "batch_size": 6 // window, "accumulate_steps": window, "epoch": 5}
    run = build(harness, tmp_path, clip_grad_value=0.02, **parts)
    if scaled:
        scale_the_loss(run.trainer)
    found = run.fit(val=False).parameters()
    _, expected = _oracle.train(LAYERS, _oracle.cut(6, *data()) * 5, max_value=0.02)
    _, unclipped = _oracle.train(LAYERS, _oracle.cut(6, *data()) * 5)
    assert np.abs(expected[0] - unclipped[0]).max() > 1e-3, "the bound must matter"
    for name, got, want in zip(found, found.values(), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.clause("O-16", "X-2")
def test_there_is_one_way_to_clip(harness: Harness) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainerConfig(clip_grad_norm=1.0, clip_grad_value=0.5)
    assert (
        str(caught.value) == "clip_grad_norm=1.0 and clip_grad_value=0.5 are two ways to clip. Leave one of them out."
    )


class Searching:
    """Trains with an optimizer whose step computes the loss twice, by a closure."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.calls = self.scheduled = 0
        kind = type(run.optimizer)

        def search(self: Any, closure: Any) -> None:
            closure()
            closure()
            kind.step(self)

        run.optimizer.__class__ = type("Searching", (kind,), {"step": search})
        run.trainer.set_optimizer(run.optimizer)

    def step(self, trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        """The hook."""
        run = self.run

        def closure() -> Any:
            self.calls += 1
            trainer.zero_grad(run.optimizer)
            loss = run.loss(run.model(bat[0]), bat[1])
            trainer.backward(loss)
            return loss

        trainer.step(run.optimizer, self.Scheduler(self), closure=closure)

    class Scheduler:
        """Counts."""

        def __init__(self, owner: Searching) -> None:
            self.owner = owner

        def step(self) -> None:
            """Steps."""
            self.owner.scheduled += 1


@pytest.mark.clause("O-17")
@pytest.mark.parametrize("changed", [{}, {"clip_grad_norm": 0.05}, {"clip_grad_value": 0.02}], ids=str)
def test_an_optimizer_steps_with_a_closure(harness: Harness, tmp_path: Path, changed: dict[str, Any]) -> None:
    parts: dict[str, Any] = {"auto_optimize": False, "auto_schedule": False, "ema_decay": 0.5}
    run = build(harness, tmp_path, **parts, **changed)
    searching = Searching(run)
    run.trainer.fit(searching.step)
    plain = build(harness, tmp_path / "plain", **parts, **changed)

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        trainer.zero_grad(plain.optimizer)
        trainer.backward(plain.loss(plain.model(bat[0]), bat[1]))
        trainer.step(plain.optimizer)

    plain.trainer.fit(step)
    assert (searching.calls, searching.scheduled) == (6, 3)
    assert_same(run.parameters(), plain.parameters())
    averages = [harness.parameters(item.trainer.get_ema_models()[0]) for item in (run, plain)]
    assert_same(*averages)


@pytest.mark.clause("O-17", "X-2")
def test_a_closure_is_refused_where_it_cannot_be_had(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, auto_optimize=False)
    trainer, optimizer = run.trainer, run.optimizer
    kind: Any = type(optimizer)
    without = kind.__new__(type("Plain", (kind,), {"step": lambda self: None}))

    def refused(text: str, of: Any, optimizer: Any, closure: Any) -> None:
        with pytest.raises((ConfigError, UnsupportedError)) as caught:
            of.step(optimizer, closure=closure)
        assert str(caught.value).startswith(text)

    def closure() -> None:
        raise AssertionError("it must not be called")

    refused("step got closure=3 for ", trainer, optimizer, 3)
    refused("step got closure=<function ", trainer, None, closure)
    refused("step got a closure for Plain, whose step() takes none. Leave closure out.", trainer, without, closure)
    Searching(run)
    refused(
        "step got Searching and no closure, which its step(closure) wants. Give closure=..., a function that clears "
        "the gradients, calls trainer.backward(loss) and gives the loss.",
        trainer,
        run.optimizer,
        None,
    )
    automatic = harness.make_trainer(config(tmp_path / "auto"))
    refused("step got a closure with auto_optimize=True, which steps by itself.", automatic, run.optimizer, closure)
    half = harness.make_trainer(config(tmp_path / "half", auto_optimize=False, mixed_precision="fp16"))
    refused("step got a closure with mixed_precision='fp16': what an optimizer", half, run.optimizer, closure)
    together: Any = trainer
    together._backend.world_size = 2
    refused("step got a closure in one of 2 processes. Each would see", trainer, run.optimizer, closure)


class Unscaling:
    """Trains by hand under a loss scale, and looks at the gradients."""

    def __init__(self, run: Run, *, times: int, overflow_at: int | None = None) -> None:
        self.run, self.times, self.overflow_at = run, times, overflow_at
        self.seen: list[dict[str, Any]] = []
        scale_the_loss(run.trainer)

    def step(self, trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        """The hook."""
        run = self.run
        trainer.zero_grad(run.optimizer)
        factor = float("inf") if global_step == self.overflow_at else 1.0
        trainer.backward(run.loss(run.model(bat[0]), bat[1]) * factor)
        for _ in range(self.times):
            trainer.unscale(run.optimizer)
        self.seen.append(run.harness.gradients(run.model))
        trainer.step(run.optimizer)


@pytest.mark.clause("O-18")
@pytest.mark.parametrize("changed", [{}, {"clip_grad_norm": 0.05}], ids=str)
def test_gradients_are_unscaled_once(harness: Harness, tmp_path: Path, changed: dict[str, Any]) -> None:
    parts: dict[str, Any] = {"initial": LAYERS, "auto_optimize": False, **changed}
    runs = [Unscaling(build(harness, tmp_path / str(times), **parts), times=times) for times in range(3)]
    for run in runs:
        run.run.trainer.fit(run.step)
        assert run.run.trainer._stepper.scaler.scale == 65536.0
    scaled, once, twice = runs
    for before, after in zip(scaled.seen, once.seen, strict=True):
        assert_same({name: array / np.float32(65536) for name, array in before.items()}, after)
    for other in (scaled, twice):
        assert_same(other.run.parameters(), once.run.parameters())


@pytest.mark.clause("O-18", "O-8")
@pytest.mark.parametrize("times", [0, 1, 2])
def test_an_overflow_that_is_unscaled_skips_the_step(harness: Harness, tmp_path: Path, times: int) -> None:
    run = Unscaling(build(harness, tmp_path, samples=4, auto_optimize=False), times=times, overflow_at=0)
    before = run.run.parameters()
    run.run.trainer.fit(run.step)
    assert_same(run.run.parameters(), before)
    assert run.run.trainer._stepper.scaler.scale == 65536.0 / 2


@pytest.mark.clause("O-18", "X-2")
def test_scaled_gradients_are_not_added_to_unscaled_ones(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, samples=4, auto_optimize=False)
    scale_the_loss(run.trainer)

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        for _ in range(2):
            trainer.zero_grad(run.optimizer)  # which they may be cleared by instead of a step
            trainer.backward(run.loss(run.model(bat[0]), bat[1]))
            trainer.unscale(run.optimizer)
        trainer.step(run.optimizer)
        trainer.zero_grad(run.optimizer)
        trainer.backward(run.loss(run.model(bat[0]), bat[1]))
        trainer.unscale(run.optimizer)
        trainer.backward(run.loss(run.model(bat[0]), bat[1]))
        with pytest.raises(SetupError) as caught:
            trainer.step(run.optimizer)
        assert str(caught.value).startswith(f"The gradients of {type(run.optimizer).__name__} were unscaled, and ")
        with pytest.raises(SetupError):
            trainer.unscale(run.optimizer)
        trainer.zero_grad(run.optimizer)

    run.trainer.fit(step)
    with pytest.raises(ConfigError) as refused:
        build(harness, tmp_path / "auto").trainer.unscale(run.optimizer)
    assert str(refused.value) == ("unscale was called with auto_optimize=True, which unscales by itself. Leave it out.")

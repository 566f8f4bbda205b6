"""L and W: weights of batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance._problem import Run, build
from dowdyboy_conformance._together import Together
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_conformance.scenarios import weights as scenarios
from dowdyboy_core import SetupError

HOW = (
    "Return the loss, or (loss, weight) with a weight that is a number of at least 0 or a tensor of one element "
    "without a gradient, such as how many tokens or samples the batch has."
)


@pytest.mark.clause("L-19", "L-20", "W-29")
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_weighted_step_is_that_on_the_joined_batch(together: Together, tmp_path: Path, processes: int) -> None:
    wanted = scenarios.joined(together.harness, tmp_path, processes)
    seen = together(processes, "weighted")
    assert all(rank == seen[0] for rank in seen)
    assert set(seen[0]) == {f"{kind}, {window}" for kind in scenarios.KINDS for window, _ in scenarios.CASES}
    for name, found in seen[0].items():
        for path, values in wanted[name.rpartition(", ")[2]].items():
            np.testing.assert_allclose(found[path], values, rtol=2e-5, atol=2e-6, err_msg=f"{name}: {path}")


@pytest.mark.clause("W-29", "L-19")
@pytest.mark.parametrize("processes", [2, 3])
def test_all_processes_have_weights_or_none(together: Together, processes: int) -> None:
    for seen in together(processes, "some_only"):
        assert seen is not None, "nobody has noticed"
        assert seen[0] == "SetupError"
        assert seen[1].startswith("train_step gave a weight with some batches and none with others.")


def weighing(run: Run, weight: Any) -> Any:
    """The usual hook with a weight: one for all, or one for each step."""

    def train_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        loss = run.train_step(trainer, bat, bat_idx, global_step)
        return loss, weight(global_step) if callable(weight) else weight

    return train_step


@pytest.mark.clause("L-19")
def test_a_factor_of_all_weights_changes_nothing(harness: Harness, tmp_path: Path) -> None:
    for window in (1, 2):
        plain = build(harness, tmp_path / "plain", epoch=2, accumulate_steps=window).fit(val=False).parameters()
        for weight in (1.0, 4096, np.float32(64.0), harness.tensor(np.array([512], np.int64))):
            run = build(harness, tmp_path / "weighted", epoch=2, accumulate_steps=window)
            run.trainer.fit(weighing(run, weight))
            for path, array in run.parameters().items():
                np.testing.assert_array_equal(array, plain[path], err_msg=f"{window}, {weight!r}")


@pytest.mark.clause("L-19")
def test_losses_are_multiplied_by_about_the_same_before_backward(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, samples=24, batch_size=2, accumulate_steps=4)
    run.trainer._stepper.scaler.enabled = True
    run.trainer._stepper.scaler.scale = 2.0**16
    backend, factors = run.trainer._backend, list[float]()
    original = backend.backward

    def noted(loss: Any, factor: float) -> None:
        factors.append(factor)
        original(loss, factor)

    backend.backward = noted  # type: ignore[method-assign]
    run.trainer.fit(weighing(run, lambda step: [3000.0, 5000.0, 4096.0][step % 3]))
    assert len(factors) == 12
    assert all(2**13 <= factor <= 2**16 for factor in factors), "2**14 is the loss scale over the window"
    assert run.trainer._stepper.scaler.scale == 2.0**16, "nothing overflowed"


@pytest.mark.clause("L-19", "L-20")
@pytest.mark.parametrize("window", [1, 2])
def test_a_weight_on_a_device_is_not_read(harness: Harness, tmp_path: Path, window: int) -> None:
    run = build(harness, tmp_path, samples=24, batch_size=2, accumulate_steps=window)
    backend, read = run.trainer._backend, list[int]()
    backend.asynchronous = True
    original = backend.to_float

    def noted(value: Any) -> float:
        read.append(1)
        return original(value)

    backend.to_float = noted  # type: ignore[method-assign]
    within: list[int] = []

    def weight(step: int) -> Any:
        within.append(len(read))
        return harness.tensor(np.float32(0.0 if step == 3 else 2.0))

    run.trainer.fit(weighing(run, weight))
    assert within == [0] * 12


@pytest.mark.clause("L-20")
@pytest.mark.parametrize("waits", [False, True], ids=["at hand", "on a device"])
@pytest.mark.parametrize("window", [1, 2])
def test_a_window_without_weight_has_a_gradient_of_zero(
    harness: Harness, tmp_path: Path, waits: bool, window: int
) -> None:
    run = build(harness, tmp_path, samples=8, batch_size=4 // window, accumulate_steps=window, nonfinite="stop")
    run.trainer._backend.asynchronous = waits
    before, stepped, gradients = run.parameters(), list[int](), list[Any]()
    original = run.trainer._stepper.step

    def noted(*given: Any, **named: Any) -> bool:
        gradients.extend(harness.gradients(run.model).values())
        return original(*given, **named)

    run.trainer._stepper.step = noted  # type: ignore[method-assign]

    def train_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        loss = run.train_step(trainer, bat, bat_idx, global_step) * float("inf")
        return loss, harness.tensor(np.float32(0.0)) if waits else 0

    run.trainer.fit(train_step, on_step_end=lambda trainer, step: stepped.append(step))
    assert len(stepped) == 2
    assert len(gradients) == 2 * len(before), "each parameter has one"
    assert not any(np.any(gradient) for gradient in gradients)
    for path, array in run.parameters().items():
        np.testing.assert_array_equal(array, before[path])


@pytest.mark.clause("L-20", "L-13")
@pytest.mark.parametrize("waits", [False, True], ids=["at hand", "on a device"])
def test_a_loss_that_counts_is_looked_at(harness: Harness, tmp_path: Path, waits: bool) -> None:
    for spoilt, weight in ((float("nan"), 1e-3), (1.0, -1.0)) if waits else ((float("nan"), 1e-3),):
        run = build(harness, tmp_path, nonfinite="stop")
        run.trainer._backend.asynchronous = waits

        def train_step(*given: Any, run: Run = run, spoilt: float = spoilt, weight: float = weight) -> Any:
            loss = run.train_step(*given) * (spoilt if given[3] == 1 else 1.0)
            return loss, harness.tensor(np.float32(weight if given[3] == 1 else 1.0))

        with pytest.raises(SetupError, match=r"^The loss is nan in epoch 1, step 1, "):
            run.trainer.fit(train_step)


@pytest.mark.clause("L-19", "X-2")
def test_what_is_no_weight_is_refused(harness: Harness, tmp_path: Path) -> None:
    def refused(given: Any, **settings: Any) -> str:
        run = build(harness, tmp_path, **settings)

        def train_step(*arguments: Any) -> Any:
            loss = run.train_step(*arguments)
            return given(loss, arguments[3]) if callable(given) else (loss, given)

        with pytest.raises(SetupError) as caught:
            run.trainer.fit(train_step)
        return str(caught.value)

    for weight in (-1.0, float("nan"), float("inf"), True, "3", None, np.bool_(True)):
        assert refused(weight) == f"train_step gave the weight {weight!r:.80} of type {type(weight).__name__}. {HOW}"
    for tensor in (np.ones(2, np.float32), np.array(True), np.float32(-2.0)):
        assert refused(harness.tensor(tensor)).endswith(HOW)
    assert refused(lambda loss, step: (loss, loss)).endswith(HOW), "a second loss is no weight"
    assert refused(lambda loss, step: (loss, 1.0, 2.0)) == f"train_step gave a tuple of 3. {HOW}"
    assert refused(lambda loss, step: [loss, 1.0]).startswith("backward got a loss that is [")
    assert refused(lambda loss, step: (1.0, loss)).endswith(HOW)
    some = "train_step gave a weight with some batches and none with others."
    for with_weight in (0, 1):
        assert refused(lambda loss, step, at=with_weight: (loss, 1.0) if step == at else loss).startswith(some)
    by_hand = "and with auto_optimize=False it differentiates its losses itself"
    assert by_hand in refused(2.0, auto_optimize=False)
    assert by_hand in refused(harness.tensor(np.float32(2.0)), auto_optimize=False)
    for harmless in ((lambda loss, step: (loss, loss)), (lambda loss, step: (loss, {"accuracy": 1.0}))):
        run = build(harness, tmp_path, auto_optimize=False)
        run.trainer.fit(lambda *given, run=run, give=harmless: give(run.train_step(*given), 0))


@pytest.mark.clause("L-19", "C-7")
def test_a_resumed_run_measures_weights_by_the_same_unit(harness: Harness, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"samples": 24, "batch_size": 2, "accumulate_steps": 2, "enable_save_checkpoint": True}

    def run_on(folder: Path, kill_at: int | None) -> tuple[Any, list[Any]]:
        run = build(harness, folder, save_steps=2, resume="auto", **settings)
        units: list[Any] = []

        def train_step(*given: Any) -> Any:
            if given[3] == kill_at:
                raise KeyboardInterrupt
            units.append(run.trainer._weighing.unit)
            return run.train_step(*given), 1.5 ** given[3]

        try:
            run.trainer.fit(train_step)
        except KeyboardInterrupt:
            pass
        return run.parameters(), units

    whole, units = run_on(tmp_path / "whole", None)
    _, before = run_on(tmp_path / "parts", 7)
    parts, after = run_on(tmp_path / "parts", None)
    assert before[:6] + after == units
    assert units[-1] > units[1]
    for path, array in whole.items():
        np.testing.assert_array_equal(parts[path], array)

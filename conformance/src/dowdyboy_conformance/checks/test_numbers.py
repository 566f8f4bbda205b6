"""N: the same losses as the formulas, and so the same on every backend. O: windows and clipping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance import _oracle
from dowdyboy_conformance._problem import build, config, data, layers
from dowdyboy_conformance.harnesses.harness import Harness, Optimizing
from dowdyboy_conformance.scenarios.numbers import scale_the_loss

RATES = {"sgd": 0.3, "momentum": 0.05, "adam": 0.02, "adamw": 0.02}
LAYERS = layers(4, 4, 3)


def close_to(expected: Any) -> Any:
    return pytest.approx(expected, rel=2e-5, abs=1e-7)


def check_parameters(found: dict[str, Any], expected: list[Any], tolerance: float = 2e-5) -> None:
    for name, got, want in zip(found, found.values(), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.clause("N-1", "L-2")
@pytest.mark.parametrize("name", RATES)
def test_sixty_steps_follow_the_formulas(harness: Harness, tmp_path: Path, name: str) -> None:
    run = build(harness, tmp_path, optimizer=name, lr=RATES[name], epoch=20, initial=LAYERS).fit(val=False)
    losses, parameters = _oracle.train(LAYERS, _oracle.cut(4, *data()) * 20, optimizer=name, lr=RATES[name])
    assert len(losses) == 60 and losses[-1] < losses[0] / 1.2, "the oracle itself must learn"
    assert run.losses == close_to(losses)
    check_parameters(run.parameters(), parameters, 2e-4)


@pytest.mark.clause("N-5", "O-1", "O-3", "L-4")
@pytest.mark.parametrize("window", [1, 2])
@pytest.mark.parametrize("max_norm", [None, 0.05])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw"])
def test_a_loop_by_hand_ends_in_the_same_bits(
    harness: Harness, tmp_path: Path, optimizer: str, max_norm: float | None, window: int
) -> None:
    parts: dict[str, Any] = {"optimizer": optimizer, "schedule": "step", "samples": 16, "batch_norm": True}
    run = build(harness, tmp_path, epoch=3, accumulate_steps=window, clip_grad_norm=max_norm, **parts).fit(val=False)
    hand = build(harness, tmp_path, **parts)
    batches = [tuple(map(harness.tensor, arrays)) for arrays in _oracle.cut(4, *data(16))]
    for _ in range(3):
        made = Optimizing(hand.optimizer, hand.scheduler)
        harness.train_by_hand(hand.model, hand.loss, made, batches, window=window, max_norm=max_norm)
    found, expected = harness.state(run.model), harness.state(hand.model)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.clause("N-2")
def test_squared_error_follows_the_formulas(harness: Harness, tmp_path: Path) -> None:
    features, _ = data()
    targets = (features[:, :2] * features[:, 2:]).astype(np.float32)
    initial = layers(4, 6, 2)
    run = build(harness, tmp_path, epoch=20, initial=initial, dataset=harness.dataset(features, targets))
    run.loss = harness.loss("mse")
    run.fit(val=False)
    losses, parameters = _oracle.train(initial, _oracle.cut(4, features, targets) * 20, loss="mse")
    assert run.losses == close_to(losses)
    check_parameters(run.parameters(), parameters)


@pytest.mark.clause("N-2", "H-4")
def test_dropout_is_off_in_validation(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, dropout=0.9, initial=LAYERS, lr=0.0, epoch=1)
    found: list[float] = []

    def on_epoch_end(trainer: Any, ep: int) -> None:
        found.extend(harness.numpy(trainer.get_records()["val_loss"]).tolist())

    run.fit(on_epoch_end=on_epoch_end)
    expected, _ = _oracle.train(LAYERS, _oracle.cut(5, *data()), lr=0.0)
    assert found == close_to(expected)


@pytest.mark.clause("O-1")
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_window_steps_as_one_large_batch(harness: Harness, tmp_path: Path, name: str) -> None:
    run = build(harness, tmp_path, optimizer=name, initial=LAYERS, batch_size=2, accumulate_steps=3, epoch=3).fit(
        val=False
    )
    _, parameters = _oracle.train(LAYERS, _oracle.cut(6, *data()) * 3, optimizer=name)
    check_parameters(run.parameters(), parameters)


@pytest.mark.clause("O-2")
def test_a_last_window_is_averaged_over_what_it_has(harness: Harness, tmp_path: Path) -> None:
    # 10 samples in batches of 2: windows of 3 and of 2 batches, that is, of 6 and of 4 samples.
    run = build(harness, tmp_path, samples=10, initial=LAYERS, batch_size=2, accumulate_steps=3, epoch=2).fit(val=False)
    features, classes = data(10)
    windows = [(features[:6], classes[:6]), (features[6:], classes[6:])]
    _, parameters = _oracle.train(LAYERS, windows * 2)
    check_parameters(run.parameters(), parameters)


@pytest.mark.clause("O-1", "L-2")
def test_gradients_are_cleared_between_windows(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, initial=LAYERS, lr=0.0, batch_size=6, epoch=2)
    weight = dict(harness.native_parameters(run.model))["fc0.weight"]
    norms: list[float] = []

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        gradient = weight.grad
        norms.append(0.0 if gradient is None else float(np.abs(harness.numpy(gradient)).max()))
        return run.train_step(trainer, bat, bat_idx, global_step)

    run.trainer.fit(step)
    assert norms == [0.0] * 4


@pytest.mark.clause("O-3")
@pytest.mark.parametrize("window", [1, 2])
def test_clipping_bounds_the_norm_of_the_averaged_gradient(harness: Harness, tmp_path: Path, window: int) -> None:
    run = build(
        harness,
        tmp_path,
        initial=LAYERS,
        batch_size=6 // window,
        accumulate_steps=window,
        clip_grad_norm=0.05,
        epoch=5,
    ).fit(val=False)
    _, parameters = _oracle.train(LAYERS, _oracle.cut(6, *data()) * 5, max_norm=0.05)
    _, unclipped = _oracle.train(LAYERS, _oracle.cut(6, *data()) * 5)
    assert np.abs(parameters[0] - unclipped[0]).max() > 1e-2, "the bound must matter"
    check_parameters(run.parameters(), parameters, 1e-4)


@pytest.mark.clause("O-3")
def test_each_optimizer_is_clipped_by_itself(harness: Harness, tmp_path: Path) -> None:
    trainer = harness.make_trainer(config(tmp_path, clip_grad_norm=0.5))
    ones = [np.ones((1, 4), np.float32), np.zeros(1, np.float32)]
    models = [harness.model([(ones[0], ones[1])]) for _ in range(2)]
    made = [harness.optimizer("sgd", [model], 1.0) for model in models]
    trainer.set_models(models)
    trainer.set_optimizers([item.optimizer for item in made])
    inputs = np.zeros((1, 4), np.float32)
    inputs[0, 0] = 3.0
    trainer.set_train_dataloader(harness.loader(harness.dataset(inputs), 1))

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        one, other = trainer.get_models()
        return one(bat[0]).sum() + 0.01 * other(bat[0]).sum()

    trainer.fit(step)
    norm = np.sqrt(3.0**2 + 1)  # the gradient is (3, 0, 0, 0) and 1
    first, second = (harness.parameters(model) for model in models)
    assert first["fc0.weight"][0, 0] == close_to(1 - 0.5 * 3 / norm)
    assert first["fc0.bias"][0] == close_to(-0.5 / norm)
    assert second["fc0.weight"][0, 0] == close_to(1 - 0.03), "a small gradient stays as it is"


@pytest.mark.clause("O-8", "P-1")
@pytest.mark.parametrize("forced", [False, True], ids=["fp16", "the scale alone"])
def test_an_overflow_skips_one_optimizer_and_halves_the_scale(harness: Harness, tmp_path: Path, forced: bool) -> None:
    run = build(harness, tmp_path, mixed_precision="no" if forced else "fp16", initial=LAYERS, lr=0.1, epoch=1)
    other = harness.model(LAYERS)
    second = harness.optimizer("sgd", [other], 0.1).optimizer
    run.trainer.set_models([run.model, other])
    run.trainer.set_optimizers([run.optimizer, second])
    if forced:  # in float32, so that it is seen where the device has no fp16, too
        scale_the_loss(run.trainer)
    before, start = harness.parameters(other), run.parameters()

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        first, second = (run.loss(model(bat[0]), bat[1]) for model in trainer.get_models())
        return first * (float("inf") if global_step == 0 else 0.0) + second

    run.trainer.fit(step)
    scaler = run.trainer._stepper.scaler
    if not forced and "fp16" not in harness.capabilities:
        assert run.trainer.precision == "no" and scaler.scale == 1.0
        return
    assert scaler.scale == 65536.0 / 2
    check_parameters(run.parameters(), list(start.values()), 0.0)
    _, expected = _oracle.train(LAYERS, _oracle.cut(4, *data()))
    check_parameters(harness.parameters(other), expected, 2e-5 if forced else 1e-3)
    assert np.abs(expected[0] - before["fc0.weight"]).max() > 5e-3, "the second model must move"

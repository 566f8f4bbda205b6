"""O, B: an average of the weights is moved after each step, and evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance._averages import DECAY, Values, averaged, close, equal, of_average, train, trained
from dowdyboy_conformance._problem import CLASSES, FEATURES, HIDDEN, build, data, layers
from dowdyboy_conformance._resuming import read_index
from dowdyboy_conformance._together import Together
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core import ConfigError, SetupError


@pytest.mark.clause("O-13")
@pytest.mark.parametrize(("optimizer", "window", "decay"), [("sgd", 1, 0.75), ("adam", 2, 0.25)])
def test_the_average_moves_after_each_step(
    harness: Harness, tmp_path: Path, optimizer: str, window: int, decay: float
) -> None:
    run = build(harness, tmp_path, epoch=2, ema_decay=decay, optimizer=optimizer, accumulate_steps=window)
    seen: list[Values] = []
    series = train(run, on_step_end=lambda trainer, global_step: seen.append(of_average(run)))
    assert len(series) == (6 if window == 1 else 4), "the last window of an epoch is shorter"
    assert len(seen) == len(series)
    for steps, mean in enumerate(seen, 1):
        assert close(mean, averaged(series[:steps], decay)), "on_step_end comes after the average has moved"
    assert equal(of_average(run), seen[-1])
    assert equal(run.parameters(), series[-1]), "what is trained is untouched"


@pytest.mark.clause("O-13")
def test_what_is_stepped_by_hand_moves_the_average_once_a_batch(
    harness: Harness, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = build(harness, tmp_path, epoch=2, ema_decay=DECAY, auto_optimize=False)
    series: list[Values] = []

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        if trainer.epoch == 1 or bat_idx == 1:
            return
        for _ in range(2):
            trainer.zero_grad(run.optimizer)
            trainer.backward(run.train_step(trainer, bat, bat_idx, global_step))
            trainer.step(run.optimizer)
        series.append(run.parameters())

    run.trainer.fit(step)
    assert len(series) == 2
    assert close(of_average(run), averaged(series))
    told = "ema_decay=0.75 and no optimizer has stepped by the end of epoch 1"
    assert capsys.readouterr().out.count(told) == 1


@pytest.mark.clause("O-14", "L-12")
def test_evaluation_uses_the_average_and_training_does_not(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, epoch=2, ema_decay=DECAY, save_best=True, batch_norm=True, save_best_type="max")
    seen: dict[str, Values] = {}
    model, tensors = run.trainer.get_models()[0], dict(harness.native_parameters(run.model))

    def note(where: str) -> None:
        assert run.trainer.get_models()[0] is model
        assert all(item is tensors[path] for path, item in harness.native_parameters(run.model))
        seen[where] = run.parameters()

    def val_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        note("val")

    def best(trainer: Any) -> float:
        note("best")
        return 1.0

    def end(trainer: Any, ep: int) -> None:
        note("end")
        trainer.test(lambda trainer, bat, bat_idx, global_step: note("test"), lambda trainer: note("tested"))
        note("after")

    run.trainer.set_save_best_calc_func(best)
    series = train(run, val_step=val_step, on_epoch_end=end)
    expected = averaged(series)
    for where in ("val", "best", "test", "tested"):
        assert close(seen[where], expected), where
        assert equal(seen[where], of_average(run)), where
    for where in ("end", "after"):
        assert equal(seen[where], series[-1]), where
    run.trainer.test(lambda trainer, bat, bat_idx, global_step: note("later"))
    assert equal(seen["later"], of_average(run))
    assert equal(run.parameters(), series[-1])


@pytest.mark.clause("O-14", "L-12")
def test_a_test_between_forward_and_backward_disturbs_nothing(harness: Harness, tmp_path: Path) -> None:
    def ended(name: str, tests: bool) -> Values:
        run = build(harness, tmp_path / name, epoch=1, ema_decay=DECAY)

        def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
            loss = run.train_step(trainer, bat, bat_idx, global_step)
            if tests:
                trainer.test(lambda *given: None)
            return loss

        run.trainer.fit(step)
        return run.parameters()

    assert equal(ended("tested", True), ended("plain", False))


@pytest.mark.clause("O-14", "H-7")
def test_an_exception_in_validation_leaves_the_trained_weights(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, ema_decay=DECAY)
    series: list[Values] = []

    def val_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        series.append(run.parameters())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(run, val_step=val_step)
    assert not close(run.parameters(), series[0])
    assert equal(of_average(run), series[0])


@pytest.mark.clause("O-14")
def test_an_average_belongs_to_one_fit(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, ema_decay=DECAY)
    train(run)
    series = train(run)
    assert close(of_average(run), averaged(series))
    with pytest.raises(SetupError, match="no average of the weights is kept: ema_decay is None"):
        build(harness, tmp_path / "without").trainer.get_ema_models()


@pytest.mark.clause("O-15")
def test_what_is_trained_later_joins_with_its_value(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, epoch=3, ema_decay=DECAY, optimizer="momentum", batch_norm=True)
    frozen = harness.model(layers(FEATURES, HIDDEN, CLASSES, seed=3))
    run.trainer.set_models([run.model, frozen])
    run.trainer.set_optimizers([run.optimizer, harness.optimizer("sgd", [frozen], 0.1).optimizer])
    harness.freeze(frozen)
    first: list[Values] = []
    second: list[Values] = [harness.parameters(frozen)]

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        features, classes = bat
        if global_step:
            first.append(run.parameters())
        if global_step > 3:
            second.append(harness.parameters(frozen))
        models = trainer.get_models()
        return run.loss(models[0](features), classes) + run.loss(models[1](features), classes)

    def end(trainer: Any, ep: int) -> None:
        if ep == 1:
            assert equal(harness.parameters(trainer.get_ema_models()[1]), second[0])
            harness.unfreeze(frozen)
        if ep == 2:
            harness.freeze(run.model)

    run.trainer.fit(step, None, end)
    first.append(run.parameters())
    second.append(harness.parameters(frozen))
    one, other = run.trainer.get_ema_models()
    assert (len(first), len(second)) == (9, 7)
    assert close(harness.parameters(one), averaged(first)), "one that is frozen stays"
    assert close(harness.parameters(other), averaged(second))
    own, copied = harness.state(run.model), harness.state(one)
    buffers = own.keys() - harness.parameters(one).keys() | {harness.running_variance}
    assert all(np.array_equal(own[name], copied[name]) for name in buffers)


@pytest.mark.clause("O-15", "W-8")
@pytest.mark.parametrize("processes", [2, 3])
def test_all_processes_have_the_same_average(together: Together, processes: int) -> None:
    [first, *others] = together(processes, "average")
    assert len(first) == 2
    assert all(mean != weights for mean, weights in first)
    assert all(seen == first for seen in others)


@pytest.mark.clause("B-13", "B-2")
def test_the_best_is_decided_by_the_average(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, epoch=1, ema_decay=DECAY, save_best=True, enable_save_checkpoint=True, lr=1.0)
    run.fit()
    [model] = run.trainer.get_ema_models()

    def value(judged: Any) -> float:
        losses: list[float] = []
        other = build(harness, tmp_path / "other")
        other.trainer.set_model(judged)
        judge = other.trainer.get_models()[0]
        step = lambda trainer, bat, *place: losses.append(float(harness.numpy(run.loss(judge(bat[0]), bat[1]))))  # noqa: E731
        other.trainer.test(step)
        return float(np.mean(losses))

    best = read_index(tmp_path / "checkpoint" / "best_epoch_1")["best"]
    assert best == pytest.approx(value(model), rel=1e-6)
    assert best != pytest.approx(value(run.model), rel=1e-4)


@pytest.mark.clause("O-14", "L-14", "B-11")
@pytest.mark.parametrize("early", [False, True])
def test_a_run_that_ends_early_ends_with_its_average(harness: Harness, tmp_path: Path, early: bool) -> None:
    stop: dict[str, Any] = {"early_stop": 1, "save_best": True, "early_stop_delta": 9.0} if early else {}
    run = build(harness, tmp_path, epoch=5, ema_decay=DECAY, accumulate_steps=2, **stop)
    seen: list[Values] = []

    def val_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        seen.append(run.parameters())
        run.val_step(trainer, bat, bat_idx, global_step)

    def step_end(trainer: Any, global_step: int) -> None:
        if not early and global_step == 4:
            trainer.stop()

    series = train(run, val_step=val_step, on_step_end=step_end)
    assert len(series) == (4 if early else 3)
    assert close(seen[-1], averaged(series))
    assert equal(seen[-1], of_average(run))
    assert equal(run.parameters(), series[-1])


@pytest.mark.clause("O-15")
def test_the_statistics_of_an_average_can_be_computed(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, ema_decay=DECAY, batch_norm=True)
    run.fit()
    loader = harness.loader(harness.dataset(*data()), 5)
    live, before = run.parameters(), harness.state(run.model)[harness.running_variance]
    with pytest.raises(ZeroDivisionError):
        run.trainer.update_bn(loader, lambda trainer, bat: (trainer.get_models()[0](bat[0]), 1 / 0))
    assert np.array_equal(harness.state(run.model)[harness.running_variance], before), "nothing was changed"
    run.trainer.update_bn(loader)
    assert equal(trained(run.parameters()), trained(live))
    state = harness.state(run.trainer.get_ema_models()[0])
    weight = state["fc0.weight"].T if harness.linear_is_transposed else state["fc0.weight"]
    values = data()[0] @ weight.T + state["fc0.bias"]
    ddof = 0 if harness.running_variance_is_biased else 1
    expected = np.mean([values[place : place + 5].var(axis=0, ddof=ddof) for place in (0, 5, 10)], axis=0)
    found = harness.state(run.model)[harness.running_variance]
    assert np.allclose(found, expected, rtol=1e-5)
    run.trainer.update_bn(loader, lambda trainer, bat: trainer.get_models()[0](bat[0]))
    assert np.array_equal(harness.state(run.model)[harness.running_variance], found), "it begins anew"
    run.fit()
    assert not np.allclose(harness.state(run.model)[harness.running_variance], found, rtol=1e-2), "it follows again"


@pytest.mark.clause("O-15", "X-2")
def test_where_statistics_can_not_be_computed(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, batch_norm=True)
    trainer = run.trainer
    with pytest.raises(SetupError, match="update_bn got data without a batch"):
        trainer.update_bn([])
    with pytest.raises(ConfigError, match="update_bn got 3, which yields no batches"):
        trainer.update_bn(3)
    with pytest.raises(ConfigError, match="step="):
        trainer.update_bn([], 3)  # type: ignore[arg-type]
    with pytest.raises(SetupError, match="update_bn was called from train_step"):
        trainer.fit(lambda trainer, *given: trainer.update_bn([]))
    trainer.set_models([run.model, harness.model(layers(FEATURES, CLASSES))])
    with pytest.raises(SetupError, match="which of the 2 models"):
        trainer.update_bn([1])
    with pytest.raises(SetupError, match="update_bn needs a model"):
        harness.make_trainer(trainer.config).update_bn([1])

"""L-9 and L-12: a test is a run of its own, wherever it is called."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance._data import Indexed
from dowdyboy_conformance._problem import Run, build, data
from dowdyboy_conformance._resuming import Killed, assert_equal, outcome, start
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core import SetupError

EPOCHS = 2


class Tests:
    """Has every hook of a run call ``test``, and notes what each test saw.

    Args:
        run: the run.
        fails: whether each test fails in its second batch, of which the hook makes nothing.
    """

    __test__ = False

    def __init__(self, run: Run, fails: bool = False) -> None:
        self.run, self.fails = run, fails
        self.seen: list[Any] = []
        self.draws: list[float] = []
        self.order: list[Any] = []

    def call(self) -> None:
        """Tests once."""
        with suppress(ZeroDivisionError):
            self.run.trainer.test(self.test_step, self.on_test_end)

    def test_step(self, trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        """Draws from every stream, records and shows."""
        if self.fails and bat_idx == 1:
            raise ZeroDivisionError
        self.draws.append(random.random() + np.random.rand() + self.run.harness.draw())
        trainer.set_records({"train_loss": 7.0, "test": bat_idx})
        trainer.set_bar_state({"shown": "by the test"})
        return self.run.loss(trainer.get_models()[0](bat[0]), bat[1])

    def on_test_end(self, trainer: Any) -> None:
        """Notes the records, and draws again."""
        self.draws.append(self.run.harness.draw())
        self.seen.append({name: self.run.harness.numpy(item).tolist() for name, item in trainer.get_records().items()})

    def fit(self, kill_at: int | None = None, calls: bool = True) -> None:
        """Fits with everything that draws, and tests in each hook if it ``calls``."""
        run = self.run

        def call() -> None:
            if calls:
                self.call()

        def train_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
            if global_step == kill_at:
                raise Killed
            call()
            self.order.append([trainer.epoch, bat_idx, run.harness.numpy(bat[0]).tolist()])
            loss = run.train_step(trainer, bat, bat_idx, global_step)
            call()
            trainer.log({"loss": loss, "draw": run.harness.draw()}, global_step)
            return loss

        def val_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
            call()
            trainer.set_records({"val_draw": random.random()})
            return run.val_step(trainer, bat, bat_idx, global_step)

        def best(trainer: Any) -> float:
            call()
            return float(run.harness.numpy(trainer.get_records()["val_loss"]).mean())

        def on_epoch_end(trainer: Any, ep: int) -> None:
            call()
            sums = {name: item.sum() for name, item in trainer.get_records().items()}
            trainer.log({"end": ep, **sums}, trainer.global_step)

        run.trainer.set_save_best_calc_func(best)
        run.trainer.fit(train_step, val_step, on_epoch_end)


def prepare(harness: Harness, out_dir: Path, workers: int, **settings: Any) -> Run:
    """A run with dropout, BatchNorm, shuffling and windows, whose test data is drawn from as it is read."""
    common: dict[str, Any] = {"epoch": EPOCHS, "accumulate_steps": 2, "save_steps": 1}
    run = start(harness, out_dir, workers=workers, **{**common, **settings})
    own: dict[str, Any] = {"shuffle": True, "workers": 1 if workers else 0}
    run.trainer.set_test_dataloader(harness.loader(samples(), 5, **own))
    return run


def samples() -> Indexed:
    """Twelve of them."""
    features, classes = data(12, seed=5)
    return Indexed(12, lambda index: (features[index], classes[index]))


@pytest.mark.clause("L-12", "D-10", "S-5")
@pytest.mark.parametrize(("workers", "fails"), [(0, False), (1, False), (0, True)])
def test_tests_in_every_hook_change_nothing_that_follows(
    harness: Harness, tmp_path: Path, workers: int, fails: bool
) -> None:
    epoch = 1 if workers else EPOCHS  # it takes a while to start them, and there are many tests
    runs = [prepare(harness, tmp_path / name, workers, epoch=epoch) for name in ("plain", "tests")]
    plain, with_tests = (Tests(run, fails) for run in runs)
    plain.fit(calls=False)
    with_tests.fit()
    assert with_tests.order == plain.order
    assert_equal(outcome(tmp_path / "tests", epoch), outcome(tmp_path / "plain", epoch))
    assert with_tests.seen == [{"train_loss": [7.0] * 3, "test": [0, 1, 2]}] * (0 if fails else len(with_tests.seen))
    assert fails or len(with_tests.seen) == epoch * (2 * 3 + 3 + 2)


@pytest.mark.clause("L-12", "C-7")
def test_what_a_test_draws_follows_from_its_place_alone(harness: Harness, tmp_path: Path) -> None:
    whole = Tests(prepare(harness, tmp_path / "whole", 0))
    whole.fit()
    assert len(set(whole.draws)) == len(whole.draws), "no two tests draw the same"
    killed = Tests(prepare(harness, tmp_path / "parts", 0))
    with pytest.raises(Killed):
        killed.fit(kill_at=4)
    resumed = Tests(prepare(harness, tmp_path / "parts", 0, resume="auto"))
    resumed.fit()
    # The last of its steps closed no window, and is done again.
    done = len(killed.draws) - 2 * 4
    assert killed.draws[:done] + resumed.draws == whole.draws
    assert_equal(outcome(tmp_path / "parts", 2), outcome(tmp_path / "whole", 2))


@pytest.mark.clause("L-12")
def test_each_module_gets_its_mode_back(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, batch_norm=True, dropout=0.5, save_best=True)
    component = harness.loss("mse")
    run.trainer.set_component(component)
    parts = [run.model, run.model.fc0, run.model.norm0, run.model.drop1, component]
    chosen = [True, True, False, True, True]
    seen: list[list[bool]] = []

    def modes() -> list[bool]:
        return [harness.is_training(item) for item in parts]

    def call(*_: Any) -> float:
        before = modes()
        run.trainer.test(lambda *_: seen.append(modes()), lambda _: seen.append(modes()))
        assert modes() == before
        return 0.0

    def train_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        run.model.norm0.train(False)
        assert modes() == chosen
        call()
        assert modes() == chosen
        return run.train_step(trainer, bat, bat_idx, global_step)

    def val_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        run.model.drop1.train(True)  # as those do who sample from it
        call()
        return run.val_step(trainer, bat, bat_idx, global_step)

    call()
    before = dict(harness.state(run.model))
    run.trainer.set_save_best_calc_func(call)
    run.trainer.fit(train_step, val_step, call)
    call()
    assert seen == [[False] * 5] * len(seen)
    assert len(seen) == 4 * (1 + 3 + 3 + 1 + 1 + 1)
    after = harness.state(run.model)
    assert np.array_equal(after[harness.running_variance], before[harness.running_variance]), "it follows nothing"


@pytest.mark.clause("L-12")
def test_what_is_shown_is_of_the_fit_again(
    harness: Harness, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = build(harness, tmp_path, disable_tqdm=False)
    tests = Tests(run)

    def train_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        trainer.set_bar_state({"shown": "by the fit"})
        loss = run.train_step(trainer, bat, bat_idx, global_step)
        if bat_idx == 2:
            tests.call()
        return loss

    def val_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        trainer.set_bar_state({"step": bat_idx})
        tests.call()
        return 3.0

    run.trainer.fit(train_step, val_step)
    lines = capsys.readouterr().err.splitlines()
    told = [(line.split(" [")[0], line.split("] ")[1]) for line in lines]
    of_tests = [state for title, state in told if title == "test 3/3"]
    assert len(of_tests) == 4 and all(state.endswith("shown=by the test") for state in of_tests)
    assert [line for line in told if line[0] != "test 3/3"] == [
        ("Epoch 1/1 train 3/3", f"loss={run.losses[-1]:.4g}, shown=by the fit"),
        ("Epoch 1/1 val 3/3", "loss=3, step=2"),
    ]


@pytest.mark.clause("L-12", "X-2")
def test_no_hook_begins_what_is_under_way(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, save_best=True)
    errors: list[str] = []

    trying: list[Any] = []

    def refused(action: Any) -> None:
        if trying:  # what should have been refused has begun, and calls this hook again
            return
        trying.append(action)
        with pytest.raises(SetupError) as caught:
            action()
        trying.clear()
        errors.append(str(caught.value))

    def fit(*_: Any) -> float:
        refused(run.fit)
        return 1.0

    def test(*_: Any) -> None:
        fit()
        refused(lambda: run.trainer.test(run.val_step))

    def train_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        fit()
        run.trainer.test(test, test)
        return run.train_step(trainer, bat, bat_idx, global_step)

    run.trainer.set_save_best_calc_func(fit)
    run.trainer.fit(train_step, fit, fit)
    run.trainer.test(test, test)
    text = "fit was called from a hook of {}, which is not over. Call it after that, or give the hook a Trainer of its "
    text += "own."
    again = (
        "test was called from a hook of test, which is not over. Call it again after the first one, or compute what "
        "you need in test_step and on_test_end."
    )
    tests = [text.format("test"), again] * 4
    assert errors == [*[text.format("fit"), *tests] * 3, *[text.format("fit")] * 5, *tests]
    assert len(run.losses) == 3, "what was refused has trained nothing"
    run.fit()
    assert len(run.losses) == 6, "and after it all there is nothing under way"


@pytest.mark.clause("L-12", "L-9", "D-10")
def test_one_loader_may_be_for_everything(harness: Harness, tmp_path: Path) -> None:
    found = []
    for calls in (False, True):
        run = build(harness, tmp_path / str(calls))
        loader = harness.loader(samples(), 4, shuffle=True, workers=1)
        for role in ("train", "val", "test"):
            getattr(run.trainer, f"set_{role}_dataloader")(loader)
        tests = Tests(run)
        tests.fit(calls=calls)
        found.append([tests.order, {name: array.tolist() for name, array in harness.state(run.model).items()}])
    assert found[0] == found[1]
    assert len(found[0][0]) == 3


@pytest.mark.clause("L-12", "L-9")
def test_tests_around_a_fit_change_nothing(harness: Harness, tmp_path: Path) -> None:
    def parts(name: str, epoch: int, **settings: Any) -> Tests:
        return Tests(start(harness, tmp_path / name, epoch=epoch, save_steps=1, **settings))

    outcomes = []
    for name in ("plain", "tests"):
        for kill_at in (4, None):
            tests = parts(name, 2)
            if kill_at is None:
                [folder] = (tmp_path / name / "checkpoint").glob("last_epoch_*")
                tests.run.trainer.load_checkpoint(folder)
            times = 2 if name == "tests" else 0
            for _ in range(times):
                tests.call()
            with suppress(Killed):
                tests.fit(kill_at, calls=False)
            for _ in range(times):
                tests.call()
        outcomes.append(outcome(tmp_path / name, 2))
        tests.fit(calls=False)  # again, from the start
        outcomes[-1] |= outcome(tmp_path / name, 2)
    assert_equal(*outcomes)

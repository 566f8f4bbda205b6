"""H-10 and H-11: what on_epoch_begin had done is done again at a resume, before the state is taken up."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance._data import Indexed
from dowdyboy_conformance._problem import data
from dowdyboy_conformance._resuming import Killed, assert_equal, outcome, start
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core import CheckpointError, SetupError

EPOCHS = 3
PER_EPOCH = 3
TOLD = "Other parameters were trained"


class Staged:
    """A run that its hook changes from epoch to epoch: what is trained, by what optimizer, and on what.

    Args:
        harness: of the framework.
        out_dir: of the run.
        exchanges: whether the hook exchanges the optimizer.
        settings: of the run.
    """

    def __init__(self, harness: Harness, out_dir: Path, exchanges: bool = True, **settings: Any) -> None:
        self.exchanges = exchanges
        self.run = start(harness, out_dir, optimizer="sgd", save_steps=1, epoch=EPOCHS, **settings)
        self.harness = harness
        self.calls: list[tuple[bool, int, int]] = []
        harness.freeze(self.run.model)
        self._unfreeze("fc1")

    def _unfreeze(self, part: str) -> None:
        for path, parameter in self.harness.native_parameters(self.run.model):
            if path.startswith(part):
                self.run.trainer._backend.set_wants_gradient(parameter, True)

    def on_epoch_begin(self, trainer: Any, ep: int) -> None:
        """Changes the run, and draws, writes and asks for what it may ask for."""
        self.calls.append((trainer.resuming, trainer.epoch, ep))
        assert not trainer.get_records()
        drawn = random.random() + np.random.rand() + self.harness.draw()
        trainer.set_records({"drawn": drawn})
        trainer.log({"drawn": drawn}, trainer.global_step)
        trainer.print(f"resuming={trainer.resuming}")
        # What follows depends on a number that the hook keeps, and no checkpoint does.
        features, classes = data(12, seed=int(drawn * 1e6))
        trainer.set_train_dataloader(
            self.harness.loader(Indexed(12, lambda index: (features[index], classes[index])), 4, shuffle=True)
        )
        if ep == 2:
            self._unfreeze("fc0")
        if ep == 2 and self.exchanges:
            trainer.set_optimizer(*self.harness.optimizer("adam", [self.run.model], 0.05, schedule="step"))
        if trainer.resuming:
            trainer.stop()
            trainer.save_checkpoint("again")
            trainer.test(self._never)
            trainer.load_checkpoint("nowhere")

    def _never(self, *_: Any) -> None:
        raise AssertionError("nothing is tested before the state is there")

    def fit(self, kill_at: int | None = None) -> None:
        """Fits, and is killed within a training step."""
        run = self.run

        def train_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
            if global_step == kill_at:
                raise Killed
            trainer.log({"draw": run.harness.draw()}, global_step)
            return run.train_step(trainer, bat, bat_idx, global_step)

        def on_epoch_end(trainer: Any, ep: int) -> None:
            sums = {name: item.sum() for name, item in sorted(trainer.get_records().items())}
            trainer.log({"end": ep, **sums}, trainer.global_step)

        try:
            run.trainer.fit(train_step, run.val_step, on_epoch_end, on_epoch_begin=self.on_epoch_begin)
        except Killed:
            run.trainer.wait_for_checkpoint()


def _newest(out_dir: Path) -> Path:
    [folder] = (out_dir / "checkpoint").glob("last_epoch_*")
    return folder


@pytest.mark.clause("H-10", "H-8", "C-7")
@pytest.mark.parametrize("by_hand", [False, True])
def test_what_the_hook_did_by_epoch_is_done_again(harness: Harness, tmp_path: Path, by_hand: bool) -> None:
    Staged(harness, tmp_path / "whole").fit()
    for kill_at in (2, PER_EPOCH, PER_EPOCH + 2, 2 * PER_EPOCH + 1):
        out_dir = tmp_path / f"parts{kill_at}"
        Staged(harness, out_dir).fit(kill_at)
        resumed = Staged(harness, out_dir, resume=None if by_hand else "auto")
        if by_hand:
            resumed.run.trainer.load_checkpoint(_newest(out_dir))
        assert not resumed.run.trainer.resuming
        resumed.fit()
        begun = -(-kill_at // PER_EPOCH)
        assert resumed.calls == [(ep <= begun, ep, ep) for ep in range(1, EPOCHS + 1)]
        assert not resumed.run.trainer.resuming
        assert_equal(outcome(out_dir), outcome(tmp_path / "whole"))
        log = (out_dir / "default_run.log").read_text()
        assert TOLD not in log and "resuming=True" not in log


@pytest.mark.clause("H-10")
def test_what_the_hook_does_not_do_again_is_told(harness: Harness, tmp_path: Path) -> None:
    out_dir = tmp_path / "all"
    Staged(harness, out_dir, exchanges=False).fit(kill_at=PER_EPOCH + 1)
    resumed = Staged(harness, out_dir, exchanges=False)
    resumed.run.trainer.load_checkpoint(_newest(out_dir))
    resumed.fit()
    assert TOLD not in (out_dir / "default_run.log").read_text(), "the hook does it again"
    for by_hand in (False, True):
        out_dir = tmp_path / str(by_hand)
        Staged(harness, out_dir).fit(kill_at=2)
        resumed = Staged(harness, out_dir, resume=None if by_hand else "auto")
        harness.unfreeze(resumed.run.model)
        if by_hand:
            resumed.run.trainer.load_checkpoint(_newest(out_dir))
        resumed.fit(kill_at=2)
        assert (out_dir / "default_run.log").read_text().count(TOLD) == 1


@pytest.mark.clause("H-11", "H-10")
def test_what_is_changed_after_loading_stays(harness: Harness, tmp_path: Path) -> None:
    Staged(harness, tmp_path / "first").fit(kill_at=2)
    resumed = Staged(harness, tmp_path / "second")
    resumed.run.trainer.load_checkpoint(_newest(tmp_path / "first"))
    parameters = dict(harness.native_parameters(resumed.run.model))
    changed = next(path for path in parameters if path.startswith("fc1"))
    harness.overwrite(parameters[changed], 0.5)
    expected = harness.state(resumed.run.model)
    seen: list[Any] = []

    def on_epoch_begin(trainer: Any, ep: int) -> None:
        seen.append(ep)
        trainer.log({"again": 1.0}, 0)
        for parameter in parameters.values():
            harness.overwrite(parameter, 9.0)

    def train_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        seen.append((global_step, {name: np.array(value) for name, value in harness.state(resumed.run.model).items()}))
        raise Killed

    with pytest.raises(Killed):
        resumed.run.trainer.fit(train_step, on_epoch_begin=on_epoch_begin)
    [ep, (step, state)] = seen
    assert (ep, step) == (1, 2)
    for name, value in expected.items():
        np.testing.assert_array_equal(state[name], value, err_msg=name)
    curves = tmp_path / "second" / "metrics.jsonl"
    assert not curves.exists() or "again" not in curves.read_text()


@pytest.mark.clause("H-11")
def test_what_fits_only_after_the_hook_waits_for_fit(harness: Harness, tmp_path: Path) -> None:
    def load() -> Staged:
        resumed = Staged(harness, tmp_path)
        trainer = resumed.run.trainer
        before = {name: np.array(value) for name, value in harness.state(resumed.run.model).items()}
        trainer.set_optimizers([])  # as the hook of epoch 2 sets one
        trainer.load_checkpoint(_newest(tmp_path))
        for name, value in harness.state(resumed.run.model).items():
            np.testing.assert_array_equal(value, before[name], err_msg=name)
        trainer.set_optimizer(*harness.optimizer("sgd", [resumed.run.model], 0.1, schedule="step"))
        with pytest.raises(SetupError, match="is not in place"):
            trainer.test(resumed.run.val_step)
        with pytest.raises(SetupError, match="is not in place"):
            trainer.save_checkpoint("now")
        return resumed

    Staged(harness, tmp_path).fit(kill_at=PER_EPOCH + 1)
    load().fit(kill_at=2 * PER_EPOCH)
    resumed = load()
    resumed.run.trainer.set_optimizers([*resumed.run.trainer.get_optimizers()[0]], [None])
    with pytest.raises(CheckpointError, match=r"lr_scheduler|doesn.t fit"):
        resumed.run.fit()
    assert "this one has none" in (tmp_path / "default_run.log").read_text()


@pytest.mark.clause("H-11", "C-9")
def test_without_a_hook_nothing_waits(harness: Harness, tmp_path: Path) -> None:
    run = start(harness, tmp_path)
    run.fit()
    other = start(harness, tmp_path)
    other.trainer.set_optimizers([])
    with pytest.raises(CheckpointError, match="holds 1 optimizers"):
        other.trainer.load_checkpoint(_newest(tmp_path))

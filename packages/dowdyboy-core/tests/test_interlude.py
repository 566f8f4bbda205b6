"""Tests that hooks call: where they are refused, and what is left of them."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from dowdyboy_core import SetupError, Trainer, TrainerConfig
from dowdyboy_core._run.interlude import Interlude
from dowdyboy_core.backend.loaders import StreamParts, open_loader
from dowdyboy_core.backend.random_streams import RandomStreams
from dowdyboy_core.backend.shares import Share


def make(crashing: Any, out_dir: Path, **settings: Any) -> tuple[Trainer, Any]:
    """A trainer for the plain model over four batches of each kind, and that model."""
    config = TrainerConfig(**{"out_dir": out_dir, "epoch": 1, "log_with": "none", "disable_tqdm": True, **settings})
    trainer, model = Trainer(config, crashing.PlainBackend()), crashing.Model()
    trainer.set_model(model)
    trainer.set_optimizer(crashing.Optimizer(model, 0.25))
    for role in ("train", "val", "test"):
        getattr(trainer, f"set_{role}_dataloader")([0.0, 1.0, 2.0, 3.0])
    return trainer, model


@pytest.mark.parametrize(
    ("count", "world_size", "batch", "refused"),
    [
        (5, 1, 4, False),
        (5, 2, 1, False),
        (5, 2, 2, True),
        (6, 2, 2, False),
        (2, 3, 0, True),
        (None, 1, 0, False),
        (None, 2, 0, True),
    ],
)
def test_in_validation_all_processes_must_have_the_batch(
    crashing: Any, tmp_path: Path, count: int | None, world_size: int, batch: int, refused: bool
) -> None:
    trainer, _ = make(crashing, tmp_path)
    backend = trainer._backend
    backend.world_size = world_size
    streams = RandomStreams(backend)
    parts = StreamParts(lambda: iter(()), count)
    trainer._parts.loaders["val"] = open_loader(parts, streams, 0, Share(0, world_size), fill_up=False)
    interlude = Interlude(backend, trainer._parts, streams, 0)
    interlude.check_test(batch)  # in no validation
    for interlude.phase in ("train", "between"):
        interlude.check_test(batch)
    interlude.phase = "val"
    if not refused:
        interlude.check_test(batch)
        return
    known = "nobody knows how many" if count is None else str(count // world_size)
    with pytest.raises(SetupError, match=f"with bat_idx={batch}, and {known} of the validation batches are in each of"):
        interlude.check_test(batch)


def test_a_signal_in_a_test_stops_the_run_after_the_batch(crashing: Any, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    tested: list[int] = []

    def test_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        tested.append(bat_idx)
        if bat_idx == 1:
            signal.raise_signal(signal.SIGTERM)

    def run(resume: str | None, tests: bool) -> Any:
        trainer, model = make(crashing, tmp_path / ("tests" if tests else "plain"), epoch=2, resume=resume)

        def train_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
            if tests and resume is None and global_step == 1:
                trainer.test(test_step)
            return [model.w, 1.0]

        trainer.fit(train_step)
        return trainer.global_step, model.w.value

    try:
        with pytest.raises(SystemExit) as caught:
            run(None, tests=True)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
    assert caught.value.code == 128 + signal.SIGTERM
    assert tested == [0, 1, 2, 3], "the test comes to its end first"
    assert run("auto", tests=True) == run(None, tests=False)


def test_an_error_in_a_test_that_a_hook_lets_out_ends_the_fit(crashing: Any, tmp_path: Path) -> None:
    trainer, model = make(crashing, tmp_path)
    error = ZeroDivisionError("mine")

    def fails(*_: Any) -> None:
        raise error

    def train_step(trainer: Any, *_: Any) -> Any:
        trainer.test(fails)

    with pytest.raises(ZeroDivisionError) as caught:
        trainer.fit(train_step)
    assert caught.value is error
    trainer.fit(lambda *_: [model.w, 1.0])
    trainer.test(lambda *_: None)
    assert trainer.global_step == 4


def test_the_curves_stay_open_over_a_test(crashing: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, model = make(crashing, tmp_path)
    closed: list[str] = []
    monkeypatch.setattr(trainer._metrics, "close", lambda: closed.append("closed"))

    def train_step(trainer: Any, *_: Any) -> Any:
        trainer.test(lambda *_: None)
        closed.append("step")
        return [model.w, 1.0]

    trainer.fit(train_step)
    trainer.test(lambda *_: None)
    assert closed == ["step"] * 4 + ["closed"] * 2


def test_a_refused_test_leaves_the_one_under_way(crashing: Any, tmp_path: Path) -> None:
    trainer, _ = make(crashing, tmp_path)
    seen: list[Any] = []

    def test_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        trainer.set_records({"seen": bat})
        with pytest.raises(SetupError, match="test was called from a hook of test"):
            trainer.test(test_step)

    trainer.test(test_step, lambda trainer: seen.append(trainer.get_records()["seen"].tolist()))
    assert seen == [[0.0, 1.0, 2.0, 3.0]]

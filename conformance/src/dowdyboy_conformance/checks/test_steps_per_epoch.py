"""L, D: an epoch is so many training steps, and the data goes on from pass to pass underneath."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance._problem import build, data
from dowdyboy_conformance._resuming import assert_equal, go, outcome, start
from dowdyboy_conformance._together import Together
from dowdyboy_conformance.harnesses.harness import COSINE_STEPS, Harness
from dowdyboy_core import CheckpointError, SetupError


class Endless:
    """Batches of indices without an end, drawn from the global stream; counts how many were asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def __iter__(self) -> Any:
        while True:
            self.asked += 1
            yield [int(index) for index in np.random.randint(0, 12, 4)]


class Told:
    """A list of batches that is told the number of the pass, and gives none in those that are left out."""

    def __init__(self, batches: list[Any], empty: tuple[int, ...] = ()) -> None:
        self.batches, self.empty = batches, empty
        self.told: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        """Notes the number."""
        self.told.append(epoch)

    def __iter__(self) -> Any:
        return iter([] if self.told[-1] in self.empty else self.batches)


def seen_by(harness: Harness, out_dir: Path, loader: Any = None, **changed: Any) -> tuple[list[Any], list[Any]]:
    """The batches of a run, and what happened in it."""
    run = build(harness, out_dir, shuffle=True, **changed)
    if loader is not None:
        run.trainer.set_train_dataloader(loader)
    batches: list[Any] = []
    events: list[Any] = []

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        batches.append(harness.numpy(bat[0]).tolist())
        events.append((trainer.epoch, bat_idx, global_step))
        return run.train_step(trainer, bat, bat_idx, global_step)

    def end(trainer: Any, ep: int) -> None:
        events.append(("end", ep, len(trainer.get_records()["train_loss"])))

    run.trainer.fit(step, run.val_step, end)
    return batches, events


@pytest.mark.clause("L-16", "D-19")
def test_an_epoch_is_so_many_steps(harness: Harness, tmp_path: Path) -> None:
    passes, _ = seen_by(harness, tmp_path / "passes", epoch=4)
    batches, events = seen_by(harness, tmp_path / "steps", epoch=2, steps_per_epoch=5)
    assert batches == passes[:10], "pass p has the order of epoch p, and the epochs go on in it"
    expected: list[Any] = [(1, step, step) for step in range(5)] + [("end", 1, 5)]
    expected += [(2, step, 5 + step) for step in range(5)] + [("end", 2, 5)]
    assert events == expected
    short, _ = seen_by(harness, tmp_path / "short", epoch=5, steps_per_epoch=2)
    assert short == passes[:10]


@pytest.mark.clause("L-17", "O-2")
def test_the_end_of_a_period_closes_the_window(harness: Harness, tmp_path: Path) -> None:
    whole, short = (
        build(harness, tmp_path / str(steps), epoch=epoch, batch_size=2, accumulate_steps=4, steps_per_epoch=steps)
        for epoch, steps in ((1, None), (2, 3))
    )
    by_hand = build(harness, tmp_path / "hand", batch_size=2, epoch=1, accumulate_steps=3)
    for run in (whole, short, by_hand):
        run.fit(val=False)
    for name, value in by_hand.parameters().items():
        np.testing.assert_allclose(short.parameters()[name], value, rtol=1e-6, atol=1e-7)
        assert not np.array_equal(whole.parameters()[name], value) or not value.any()


@pytest.mark.clause("L-16", "D-19", "C-7")
@pytest.mark.parametrize(
    ("kill_at", "save_steps", "workers", "window"), [(4, 1, 0, 1), (6, None, 2, 1), (8, 1, 2, 2), (10, 1, 0, 4)]
)
def test_it_is_resumed_bitwise(
    harness: Harness, tmp_path: Path, kill_at: int, save_steps: int | None, workers: int, window: int
) -> None:
    changed = {"save_steps": save_steps, "steps_per_epoch": 4, "accumulate_steps": window, "schedule_by": "step"}
    go(start(harness, tmp_path / "whole", 0, **changed))
    go(start(harness, tmp_path / "killed", workers, **changed), kill_at)
    resumed = start(harness, tmp_path / "killed", workers, resume="auto", **changed)
    go(resumed)
    assert 0 < len(resumed.losses) < 12, "it must have gone on, not begun anew"
    assert_equal(outcome(tmp_path / "killed"), outcome(tmp_path / "whole"))


@pytest.mark.clause("L-16", "L-17", "O-11", "O-12", "D-19")
def test_schedules_count_the_steps_of_a_period(harness: Harness, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epoch": 2, "steps_per_epoch": 5, "accumulate_steps": 2, "schedule": "step", "lr": 1.0}
    for by, whole, expected in (("step", 6, [0, 0, 1, 1, 2, 3, 3, 4, 4, 5]), ("epoch", 2, [0] * 5 + [1] * 5)):
        run = build(harness, tmp_path / by, schedule_by=by, **settings)
        stream = list(run.trainer.train_dataloader)
        for loader in (run.trainer.train_dataloader, Told(stream)):  # of which one has no length
            run.trainer.set_train_dataloader(loader)
            assert run.trainer.schedule_steps == whole
        rates: list[float] = []

        def step(*given: Any, run: Any = run, rates: list[float] = rates) -> Any:
            rates.append(harness.learning_rate(run.optimizer))
            return run.train_step(*given)

        run.trainer.fit(step)
        assert rates == [0.5**number for number in expected], "the last window of a period is closed"
        assert harness.learning_rate(run.optimizer) == 0.5**whole
    # One that is made for as many steps is not told of.
    settings |= {"epoch": 1, "schedule": "cosine", "steps_per_epoch": 2 * COSINE_STEPS}
    build(harness, tmp_path / "made", schedule_by="step", **settings).fit()
    assert "is made for" not in (tmp_path / "made/default_run.log").read_text()


@pytest.mark.clause("L-16", "L-14", "L-15", "B-11")
def test_a_period_that_is_cut_short_ends_where_it_is(harness: Harness, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"enable_save_checkpoint": True, "resume": "auto", "shuffle": True, "epoch": 3}
    passes, _ = seen_by(harness, tmp_path / "passes", epoch=4)
    seen: list[Any] = []
    ends: list[int] = []
    for stop_at in (5, None):
        run = build(harness, tmp_path / "run", accumulate_steps=2, steps_per_epoch=4, **settings)

        def step(trainer: Any, bat: Any, bat_idx: int, global_step: int, run: Any = run, at: Any = stop_at) -> Any:
            seen.append(harness.numpy(bat[0]).tolist())
            if global_step + 1 == at:
                trainer.stop()
            return run.train_step(trainer, bat, bat_idx, global_step)

        run.trainer.fit(step, run.val_step, lambda _, ep: ends.append(ep))
        assert run.trainer.global_step == (6 if stop_at else 10), "the window under way is the last"
    assert ends == [1, 2, 3]
    assert seen == passes[:10], "and the data goes on there"
    worse = build(harness, tmp_path / "early", steps_per_epoch=2, early_stop=2, epoch=9)
    worse.trainer.set_save_best_calc_func(lambda trainer: trainer.epoch)
    worse.fit()
    assert (worse.trainer.epoch, worse.trainer.global_step, worse.trainer.best) == (3, 6, (1.0, 1))


@pytest.mark.clause("L-16")
def test_another_number_of_steps_is_refused(harness: Harness, tmp_path: Path) -> None:
    go(start(harness, tmp_path, steps_per_epoch=2, epoch=1))
    saved = tmp_path / "checkpoint" / "last_epoch_1"
    for steps in (3, None):
        run = start(harness, tmp_path / "other", steps_per_epoch=steps)
        before = run.parameters()
        with pytest.raises(CheckpointError) as caught:
            run.trainer.load_checkpoint(saved)
        assert str(caught.value) == (
            f"{str(saved)!r} was saved with steps_per_epoch=2 and this run has steps_per_epoch={steps}: its epochs are "
            "other ones. Give steps_per_epoch=2 to go on, or load it with weights_only=True."
        )
        assert all(np.array_equal(before[name], value) for name, value in run.parameters().items())
        run.trainer.load_checkpoint(saved, weights_only=True)


@pytest.mark.clause("D-20")
def test_an_endless_sampler_is_read_lazily(harness: Harness, tmp_path: Path) -> None:
    outcomes = {}
    for name, kills in (("whole", [None]), ("killed", [5, 9, None])):
        for kill_at in kills:
            sampler = Endless()
            run = start(harness, tmp_path / name, steps_per_epoch=4, save_steps=1, resume="auto")
            run.trainer.set_train_dataloader(harness.batched_by(harness.dataset(*data()), sampler))
            go(run, kill_at)
            assert sampler.asked < 40
        outcomes[name] = outcome(tmp_path / name)
    assert_equal(outcomes["killed"], outcomes["whole"])


@pytest.mark.clause("D-19", "D-20", "D-17")
def test_lists_and_streams_go_on(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path / "made")
    batches = list(run.trainer.train_dataloader)
    loader = Told(batches)
    seen, _ = seen_by(harness, tmp_path / "told", loader, epoch=2, steps_per_epoch=4)
    listed, _ = seen_by(harness, tmp_path / "list", batches, epoch=4, steps_per_epoch=2)
    expected = [harness.numpy(batches[step % 3][0]).tolist() for step in range(8)]
    assert (seen, listed) == (expected, expected)
    assert loader.told == [1, 2, 3]


@pytest.mark.clause("D-20")
def test_an_empty_pass_is_an_error(harness: Harness, tmp_path: Path) -> None:
    batches = list(build(harness, tmp_path / "made").trainer.train_dataloader)
    with pytest.raises(SetupError) as caught:
        seen_by(harness, tmp_path / "run", Told(batches, empty=(2,)), epoch=2, steps_per_epoch=4)
    assert str(caught.value).startswith("Pass 2 over the train data has no batch, and with steps_per_epoch=4 ")


@pytest.mark.clause("A-4")
def test_the_loaders_can_be_read(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path)
    trainer = run.trainer
    given = {role: [(1,)] for role in ("train", "val", "test")}
    for role, loader in given.items():
        getattr(trainer, f"set_{role}_dataloader")(loader)
    for role, loader in given.items():
        assert getattr(trainer, f"{role}_dataloader") is loader
        with pytest.raises(AttributeError):
            setattr(trainer, f"{role}_dataloader", loader)


@pytest.mark.clause("W-28", "D-19", "D-20", "C-7")
@pytest.mark.parametrize("processes", [2, 3])
def test_passes_are_dealt_out_as_one_sequence(together: Together, processes: int) -> None:
    alone = together(1, "passes")[0]
    ranks = together(processes, "passes")
    for name, seen in alone.items():
        for rank in ranks:
            assert rank[name]["parts"] == rank[name]["whole"], name
        if name == "dealt out":
            continue
        dealt = zip(*(rank[name]["whole"] for rank in ranks), strict=True)
        assert [batch for row in dealt for batch in row] == seen["whole"], name
    for number, rank in enumerate(ranks):
        own = [[number, place % (2 + number)] for place in range(24 // processes)]
        assert [batch for _, batch in rank["dealt out"]["whole"]] == own

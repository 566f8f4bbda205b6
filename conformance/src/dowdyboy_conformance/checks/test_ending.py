"""L-14, L-15: a fit that a hook ends in order. B-11, B-12: an early stop, and the best value so far."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dowdyboy_conformance._problem import Run, build
from dowdyboy_conformance._resuming import Killed, assert_equal, outcome, read_index, start
from dowdyboy_conformance._together import Together
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core import ConfigError, SetupError

NAN = float("nan")


class Ended:
    """Runs a fit of which a hook calls ``stop``, and notes the events.

    Args:
        run: the run.
        at: the event at which it is called; None for never.
    """

    def __init__(self, run: Run, at: tuple[str, int] | None) -> None:
        self.run, self.at = run, at
        self.events: list[tuple[str, int]] = []

    def note(self, event: str, number: int) -> None:
        """Notes an event, and may stop there."""
        self.events.append((event, number))
        if (event, number) == self.at:
            self.run.trainer.stop()

    def fit(self) -> Ended:
        """Fits with all hooks."""
        run = self.run

        def train_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
            loss = run.train_step(trainer, bat, bat_idx, global_step)
            trainer.log({"loss": loss}, global_step)
            self.note("train", global_step)
            return loss

        def val_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
            self.note("val", global_step)
            return run.val_step(trainer, bat, bat_idx, global_step)

        def best(trainer: Any) -> float:
            self.note("best", trainer.epoch)
            return float(run.harness.numpy(trainer.get_records()["val_loss"]).mean())

        run.trainer.set_save_best_calc_func(best)
        run.trainer.fit(
            train_step,
            val_step,
            lambda _, ep: self.note("end", ep),
            on_epoch_begin=lambda trainer, ep: None if trainer.resuming else self.note("begin", ep),
            on_step_end=lambda _, global_step: self.note("step", global_step),
        )
        return self

    def kinds(self) -> list[str]:
        """The events without their numbers."""
        return [event for event, _ in self.events]


CASES = [
    (("begin", 1), 2),
    (("train", 0), 2),
    (("step", 1), 2),
    (("train", 2), 4),
    (("step", 4), 5),
    (("train", 5), 7),
    (("val", 1), 5),
    (("best", 1), 5),
    (("end", 1), 5),
    (("end", 3), 15),
]
"""Where it is called in a run of three epochs of five batches, in windows of two, and how many batches are trained."""


@pytest.mark.clause("L-14", "L-1")
@pytest.mark.parametrize(("at", "trained"), CASES, ids=[f"{at[0]}-{at[1]}" for at, _ in CASES])
def test_a_fit_ends_in_order(harness: Harness, tmp_path: Path, at: tuple[str, int], trained: int) -> None:
    settings: dict[str, Any] = {"samples": 20, "accumulate_steps": 2, "enable_save_checkpoint": True, "save_best": True}
    run = build(harness, tmp_path, epoch=3, schedule="step", lr=1.0, **settings)
    ended = Ended(run, at).fit()
    epochs = (trained + 4) // 5
    assert ended.kinds().count("train") == run.trainer.global_step == trained
    assert ended.events[-6:] == [
        *(("val", number) for number in range(4 * epochs - 4, 4 * epochs)),
        ("best", epochs),
        ("end", epochs),
    ]
    assert harness.learning_rate(run.optimizer) == 0.5**epochs, "the schedule is that of an epoch's end"
    index = read_index(tmp_path / f"checkpoint/last_epoch_{epochs}")
    assert (index["epoch"], index["batch"], index["val_batch"], index["train_step"]) == (epochs, 0, None, trained)
    saved = {path.name for path in (tmp_path / "checkpoint").iterdir()}
    assert {f"epoch_{number + 1}" for number in range(epochs)} < saved
    told = (tmp_path / "default_run.log").read_text()
    assert f"stopped after epoch {epochs}, as trainer.stop() asked" in told


@pytest.mark.clause("L-15", "C-7")
def test_a_run_goes_on_after_a_stop(harness: Harness, tmp_path: Path) -> None:
    Ended(start(harness, tmp_path / "whole"), None).fit()
    first = Ended(start(harness, tmp_path / "parts", workers=1), ("end", 2)).fit()
    second = Ended(start(harness, tmp_path / "parts", resume="auto"), None).fit()
    assert [event for event in first.events if event[0] == "end"] == [("end", 1), ("end", 2)]
    assert second.events[0] == ("begin", 3)
    assert_equal(outcome(tmp_path / "parts"), outcome(tmp_path / "whole"))
    # The epoch that was cut short is over, and the next one follows.
    Ended(start(harness, tmp_path / "cut", workers=1), ("step", 3)).fit()
    rest = Ended(start(harness, tmp_path / "cut", resume="auto"), None).fit()
    assert rest.events[:2] == [("begin", 3), ("train", 4)]
    index = read_index(tmp_path / "cut/checkpoint/last_epoch_3")
    assert (index["epoch"], index["train_step"]) == (3, 7)


@pytest.mark.clause("L-14", "X-2")
def test_a_stop_is_of_one_fit(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, epoch=2)
    Ended(run, ("end", 1)).fit()
    assert run.trainer.epoch == 1
    for action in (run.trainer.stop, lambda: run.trainer.test(run.val_step, lambda trainer: trainer.stop())):
        with pytest.raises(SetupError) as caught:
            action()
        assert str(caught.value) == "stop was called where no fit is under way. Call it in a hook of fit."
    run.fit()
    assert run.trainer.epoch == 2, "the next one knows nothing of it"


def values(
    harness: Harness, out_dir: Path, given: list[float], kill_at: int | None = None, **settings: Any
) -> tuple[list[int], list[Any]]:
    """Has each epoch have a given value; gives the epochs that were trained, and the best after each."""
    common: dict[str, Any] = {"epoch": len(given), "early_stop": 2, "enable_save_checkpoint": True}
    run = build(harness, out_dir, **{**common, **settings})
    epochs, best = list[int](), list[Any]()

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        if global_step == kill_at:
            raise Killed
        return run.train_step(trainer, bat, bat_idx, global_step)

    def end(trainer: Any, ep: int) -> None:
        epochs.append(ep)
        best.append(trainer.best)

    assert run.trainer.best is None
    run.trainer.set_save_best_calc_func(lambda trainer: given[trainer.epoch - 1])
    try:
        run.trainer.fit(step, run.val_step, end)
    except Killed:
        assert kill_at is not None
    return epochs, best


EARLY: list[tuple[str, dict[str, Any], list[float], int]] = [
    ("falls", {}, [3, 2, 1, 0.5], 4),
    ("rises", {}, [1, 2, 3, 4], 3),
    ("equal", {}, [1, 1, 1, 1], 3),
    ("in between", {}, [1, 2, 0.5, 2, 3, 0.1], 5),
    ("max", {"save_best_type": "max"}, [1, 2, 1, 1, 5], 4),
    ("nan", {}, [2, NAN, NAN, 1], 3),
    ("never finite", {}, [NAN, NAN, 1], 2),
    ("nan first", {}, [NAN, 1, 2, 0.5], 4),
    ("delta", {"early_stop_delta": 0.5}, [3, 2.75, 2.5, 2, 1], 3),
    ("delta adds up", {"early_stop_delta": 0.5}, [3, 2.75, 2.25, 2, 1.5], 5),
    ("max, delta", {"early_stop_delta": 0.5, "save_best_type": "max"}, [1, 1.25, 1.5, 3], 3),
    ("interval", {"val_interval": 2}, [9, 1, 0, 2, 0, 3, 0, 0], 6),
    ("one", {"early_stop": 1}, [1, 2, 0], 2),
    ("with the best", {"save_best": True}, [1, 2, 3, 4], 3),
    ("off", {"early_stop": None, "save_best": True}, [1, 2, 3, 4], 4),
]


@pytest.mark.clause("B-11")
@pytest.mark.parametrize(("settings", "given", "last"), [case[1:] for case in EARLY], ids=[case[0] for case in EARLY])
def test_a_fit_stops_early(
    harness: Harness, tmp_path: Path, settings: dict[str, Any], given: list[float], last: int
) -> None:
    epochs, _ = values(harness, tmp_path, given, **settings)
    assert epochs == list(range(1, last + 1))
    assert read_index(tmp_path / f"checkpoint/last_epoch_{last}")["epoch"] == last, "and is saved as at any end"
    told = "stopped early at epoch" in (tmp_path / "default_run.log").read_text()
    assert told == (last < len(given))


@pytest.mark.clause("B-11", "C-7")
@pytest.mark.parametrize("kill_at", [3, 7, 10])
def test_the_patience_survives_a_resume(harness: Harness, tmp_path: Path, kill_at: int) -> None:
    given = [3.0, 2.0, 2.5, 2.25, 4.0, 1.0]
    settings: dict[str, Any] = {"early_stop": 3, "early_stop_delta": 0.125, "save_steps": 1}
    whole, _ = values(harness, tmp_path / "whole", given, **settings)
    assert whole == [1, 2, 3, 4, 5]
    first, _ = values(harness, tmp_path / "parts", given, kill_at, **settings)
    second, _ = values(harness, tmp_path / "parts", given, resume="auto", **settings)
    assert first + second == whole
    assert values(harness, tmp_path / "parts", given, resume="auto", **settings) == ([], []), "it has ended"
    last = (tmp_path / "parts/default_run.log").read_text().splitlines()[-1]
    assert last.endswith("stopped early at epoch 5: none of the last 3 epochs with a value was better than 2")
    longer, best = values(harness, tmp_path / "parts", given, resume="auto", **{**settings, "early_stop": 4})
    assert longer == [6]
    assert best == [(1.0, 6)]


@pytest.mark.clause("B-12", "B-2", "B-3")
@pytest.mark.parametrize("setting", [{"save_best": True, "early_stop": None}, {"early_stop": 9}])
def test_the_best_so_far(harness: Harness, tmp_path: Path, setting: dict[str, Any]) -> None:
    _, best = values(harness, tmp_path, [NAN, 3.0, 4.0, 3.0, 2.0], **setting)
    assert best == [None, (3.0, 2), (3.0, 2), (3.0, 2), (2.0, 5)]
    _, best = values(harness, tmp_path, [NAN, 3.0, 4.0, 3.0, 2.0, 5.0], resume="auto", **setting)
    assert best == [(2.0, 5)]
    saved = {path.name for path in (tmp_path / "checkpoint").glob("best_*")}
    assert saved == ({"best_epoch_5"} if "save_best" in setting else set())


@pytest.mark.clause("B-11", "X-2", "F-3")
def test_what_early_stop_can_not_be(harness: Harness, tmp_path: Path) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"early_stop": 0}, "early_stop=0 is not acceptable. Give an int of at least 1, or None."),
        (
            {"early_stop": 2, "early_stop_delta": -1.0},
            "early_stop_delta=-1.0 is not acceptable. Give a finite number of at least 0.",
        ),
        (
            {"early_stop_delta": 0.5},
            "early_stop_delta=0.5 needs early_stop, the number of epochs to wait for something better.",
        ),
    ]
    for settings, text in wrong:
        with pytest.raises(ConfigError) as caught:
            build(harness, tmp_path, **settings)
        assert str(caught.value) == text
    with pytest.raises(SetupError, match="save_best_rec='val_loss' is not among the records"):
        build(harness, tmp_path, early_stop=2).fit(val=False)


@pytest.mark.clause("W-27", "L-14", "L-15", "B-11")
@pytest.mark.parametrize("processes", [2, 3])
def test_all_processes_end_where_one_asks(together: Together, processes: int) -> None:
    for seen in together(processes, "ending"):
        assert seen["train"] == [["train", 2], 1, 3, ["end", 1]], "after the batch in which it was called"
        assert seen["step"] == [["train", 3], 1, 4, ["end", 1]], "after the next one, where they ask one another"
        assert seen["val"] == [["train", 6], 1, 7, ["end", 1]]
        assert seen["end"] == [["train", 6], 1, 7, ["end", 1]]
        assert seen["resumed"] == [2, 3]
        assert seen["early"] == [1, 2, 3]

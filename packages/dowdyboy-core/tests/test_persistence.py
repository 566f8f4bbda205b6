"""When the Trainer saves, and what it goes on from, with a framework of plain Python, alone and as one of several."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dowdyboy_core import CheckpointError
from dowdyboy_core._disk.files import read_index, write_folder
from dowdyboy_core._run.checkpoints import read_snapshot
from dowdyboy_core.backend.signals import Stopped
from dowdyboy_core.rand import derive_seed, set_seed

POINT = '{"step": 0, "epoch": 1, "values": {"old": 1.0}}\n'


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def said(out_dir: Path) -> list[str]:
    """The lines of the run's log, without their times."""
    lines = (out_dir / "default_run.log").read_text(encoding="utf-8").splitlines()
    return [line.split(" ", 2)[2] for line in lines]


def warnings_in(out_dir: Path) -> list[str]:
    return [line for line in said(out_dir) if not line.startswith("[INFO]")]


def step(do: Callable[[Any, float], object] = lambda trainer, bat: None) -> Callable[[Any, float, int, int], Any]:
    """A step for training and for validation that does something and gives a loss."""

    def run(trainer: Any, bat: float, bat_idx: int, global_step: int) -> Any:
        do(trainer, bat)
        return [trainer.get_raw_models()[0].w, 1.0]

    return run


def stop_at(*last: float) -> Callable[[Any, float, int, int], Any]:
    """A step during any of whose batches ``last`` a signal asks to stop."""
    return step(lambda trainer, bat: signal.raise_signal(signal.SIGTERM) if bat in last else None)


def fit(crashing: Any, out_dir: Path, values: list[float], **settings: Any) -> Path:
    """Fits with a value for each epoch; gives the folder of the checkpoints."""
    crashing.train_plain(out_dir, values, **settings)
    return out_dir / "checkpoint"


def runs(checkpoints: Path) -> dict[str, int]:
    """The number of the run that each checkpoint is of."""
    return {path.name: read_index(path)["run"] for path in sorted(checkpoints.iterdir())}


def epochs_of(trainer: Any) -> list[int]:
    """Fits, and gives the epochs that were trained."""
    seen: list[int] = []
    trainer.fit(step(lambda trainer, bat: seen.append(trainer.epoch)))
    return sorted(set(seen))


# ---- with another number of processes


@pytest.mark.parametrize(("world_size", "left"), [(1, [6, 7, 8, 9, 10, 11]), (2, [6, 8, 10]), (4, [4, 8])])
@pytest.mark.parametrize("phase", ["train", "val"])
def test_another_number_of_processes_goes_on_after_the_batches_that_all_had_done(
    crashing: Any, tmp_path: Path, phase: str, world_size: int, left: list[int]
) -> None:
    def trainer(backend: Any, **settings: Any) -> Any:
        made = crashing.plain_trainer(tmp_path, backend, batches=12, epoch=1, **settings)
        made.set_val_dataloader([float(number) for number in range(12)])
        return made

    steps = {"train": step(), "val": step(), phase: stop_at(4)}
    with pytest.raises(Stopped):  # each of the two after its third batch
        trainer(crashing.OneOfSeveral(2)).fit(steps["train"], steps["val"])
    seen: dict[str, list[float]] = {"train": [], "val": []}
    trainer(crashing.OneOfSeveral(world_size), resume="auto").fit(
        step(lambda trainer, bat: seen["train"].append(bat)), step(lambda trainer, bat: seen["val"].append(bat))
    )
    share = [float(number) for number in range(0, 12, world_size)]
    assert seen == ({"train": left, "val": share} if phase == "train" else {"train": [], "val": left})
    warning = (
        f"[WARNING] The checkpoint was saved by 2 processes and this run has {world_size}: it goes on, but not with "
        "the numbers that an uninterrupted run would have had."
    )
    assert warnings_in(tmp_path) == ([] if world_size == 2 else [warning])


@pytest.mark.parametrize("rank", [0, 1])
def test_the_global_streams_come_from_the_seed_and_the_rank(crashing: Any, tmp_path: Path, rank: int) -> None:
    backend = crashing.OneOfSeveral(2, rank)
    drawn: list[tuple[float, float]] = []
    trainer = crashing.plain_trainer(tmp_path, backend, batches=2, epoch=1, seed=7)
    trainer.fit(step(lambda trainer, bat: drawn.append((random.random(), backend.draw()))))
    set_seed(derive_seed(7, "fit", rank))
    backend.seed(derive_seed(7, "fit", rank))
    assert drawn == [(random.random(), backend.draw())]


# ---- which run it is, and what of an earlier one counts


def test_a_new_run_in_the_folder_of_another_says_so(crashing: Any, tmp_path: Path) -> None:
    checkpoints = fit(crashing, tmp_path, [1.0])
    assert warnings_in(tmp_path) == []
    fit(crashing, tmp_path, [1.0], enable_save_checkpoint=False)
    assert warnings_in(tmp_path) == []
    assert runs(checkpoints) == {"epoch_1": 1, "last_epoch_1": 1}
    fit(crashing, tmp_path, [1.0])
    assert warnings_in(tmp_path) == [
        f"[WARNING] {str(checkpoints)!r} holds checkpoints of an earlier run, which those of this one will replace one "
        "by one. Give another out_dir to keep them, or resume='auto' to go on."
    ]
    assert runs(checkpoints) == {"epoch_1": 2, "last_epoch_1": 2}


def test_it_is_a_new_run_only_if_there_is_a_later_checkpoint(crashing: Any, tmp_path: Path) -> None:
    checkpoints = fit(crashing, tmp_path, [1.0, 1.0])
    fit(crashing, tmp_path, [1.0, 1.0, 1.0], resume="auto")
    assert runs(checkpoints) == {"epoch_1": 1, "epoch_2": 1, "epoch_3": 1, "last_epoch_3": 1}
    fit(crashing, tmp_path, [1.0, 1.0], resume=checkpoints / "epoch_1")
    assert runs(checkpoints) == {"epoch_1": 1, "epoch_2": 2, "epoch_3": 1, "last_epoch_2": 2}


def test_what_was_loaded_goes_before_what_resume_would_find(crashing: Any, tmp_path: Path) -> None:
    checkpoints = fit(crashing, tmp_path, [1.0, 1.0, 1.0])
    trainer = crashing.plain_trainer(tmp_path, crashing.PlainBackend(), epoch=3, resume="auto")
    trainer.load_checkpoint(checkpoints / "epoch_1")
    assert epochs_of(trainer) == [2, 3]


def test_the_best_of_an_earlier_fit_is_not_lost(crashing: Any, tmp_path: Path) -> None:
    trainer = crashing.plain_trainer(tmp_path, crashing.PlainBackend(), epoch=2, save_best=True)
    values = iter([0.5, 0.7, 0.6, 0.4])
    trainer.set_save_best_calc_func(lambda trainer: next(values))
    trainer.fit(step())
    trainer.fit(step())
    best = [line for line in said(tmp_path) if "is the best" in line]
    assert best == ["[INFO] epoch 1 is the best so far: 0.5", "[INFO] epoch 2 is the best so far: 0.4"]
    [folder] = (tmp_path / "checkpoint").glob("best_epoch_*")
    assert folder.name == "best_epoch_2" and read_index(folder)["best"] == 0.4


@pytest.mark.parametrize(
    ("there", "best", "best_epoch"),
    [
        (("min", 0.05), 0.05, 1),
        (("min", 0.5), 0.1, 1),  # no better
        (("max", 0.05), 0.1, 1),  # of another kind
        (("min", float("nan")), 0.1, 1),  # of no epoch
    ],
)
def test_a_best_checkpoint_counts_if_it_is_better_and_of_the_same_kind(
    crashing: Any, tmp_path: Path, there: tuple[str, float], best: float, best_epoch: int
) -> None:
    elsewhere = fit(crashing, tmp_path / "elsewhere", [0.1], save_best=True)
    kind, value = there
    checkpoints = fit(crashing, tmp_path / "here", [value], save_best=True, save_best_type=kind)
    fit(crashing, tmp_path / "here", [0.1, 0.3], save_best=True, resume=elsewhere / "epoch_1")
    index = read_index(checkpoints / "last_epoch_2")
    assert (index["best"], index["best_epoch"]) == (best, best_epoch)


# ---- its curves


@pytest.mark.parametrize(("resume", "left"), [("auto", ""), (None, POINT)])
def test_what_a_run_drew_before_its_first_checkpoint_goes_when_it_is_resumed(
    crashing: Any, tmp_path: Path, resume: str | None, left: str
) -> None:
    (tmp_path / "metrics.jsonl").write_text(POINT)
    crashing.plain_trainer(tmp_path, crashing.PlainBackend(), epoch=1, resume=resume).fit(step())
    assert (tmp_path / "metrics.jsonl").read_text() == left
    assert warnings_in(tmp_path) == []


def test_without_curves_there_is_nothing_to_cut(crashing: Any, tmp_path: Path) -> None:
    crashing.plain_trainer(tmp_path, crashing.PlainBackend(), epoch=1, resume="auto").fit(step())
    assert warnings_in(tmp_path) == []


def test_the_curves_stay_where_there_are_checkpoints_and_none_is_whole(crashing: Any, tmp_path: Path) -> None:
    checkpoints = fit(crashing, tmp_path, [1.0])
    before = (tmp_path / "metrics.jsonl").read_text()
    for path in checkpoints.iterdir():
        (path / "rng.json").unlink()
    trainer = crashing.plain_trainer(tmp_path, crashing.PlainBackend(), epoch=1, resume="auto")
    assert epochs_of(trainer) == [1]
    assert before.count("\n") == 2 and (tmp_path / "metrics.jsonl").read_text() == before


def test_curves_are_cut_back_to_a_checkpoint_of_their_own_once(crashing: Any, tmp_path: Path) -> None:
    checkpoints = fit(crashing, tmp_path / "first", [1.0, 1.0])
    curves = tmp_path / "second" / "metrics.jsonl"
    curves.parent.mkdir()
    curves.write_text(POINT)
    trainer = crashing.plain_trainer(curves.parent, crashing.PlainBackend(), epoch=2)
    trainer.load_checkpoint(checkpoints / "epoch_1")
    draw = step(lambda trainer, bat: trainer.log({"new": bat}, trainer.global_step))
    trainer.fit(draw)
    assert curves.read_text() == POINT + "".join(
        f'{{"step": {at}, "epoch": 2, "values": {{"new": {at - 2}.0}}}}\n' for at in (2, 3)
    )

    assert warnings_in(curves.parent) == []

    trainer.load_checkpoint(curves.parent / "checkpoint" / "last_epoch_2")
    curves.write_text(curves.read_text() + POINT)
    trainer.fit(draw)
    before = curves.read_text()
    assert before.count(POINT) == 1, "cut back"
    trainer.fit(draw)
    assert curves.read_text().startswith(before) and curves.read_text().count("\n") == before.count("\n") + 4


# ---- loading


def test_loading_says_what_was_taken_up(crashing: Any, tmp_path: Path) -> None:
    checkpoints = fit(crashing, tmp_path / "first", [1.0, 1.0])
    trainer = crashing.plain_trainer(tmp_path, crashing.PlainBackend())
    trainer.load_checkpoint(checkpoints / "epoch_2", weights_only=True)
    trainer.load_checkpoint(checkpoints / "epoch_1")
    assert said(tmp_path) == [
        f"[INFO] took the weights of {str(checkpoints / 'epoch_2')!r}",
        f"[INFO] resumed from {str(checkpoints / 'epoch_1')!r}: 1 epochs, 2 steps",
    ]


def test_the_weights_alone_need_nothing_else_of_the_checkpoint(crashing: Any, tmp_path: Path) -> None:
    folder = fit(crashing, tmp_path, [1.0]) / "epoch_1"
    (folder / "rng.json").unlink()
    trainer = crashing.plain_trainer(tmp_path, crashing.PlainBackend())
    [model] = trainer.get_raw_models()
    with pytest.raises(CheckpointError, match=r"rng\.json"):
        trainer.load_checkpoint(folder)
    assert model.w.value == 1.0
    trainer.load_checkpoint(folder, weights_only=True)
    assert model.w.value != 1.0


def test_random_streams_that_are_none_are_refused(crashing: Any, tmp_path: Path) -> None:
    folder = fit(crashing, tmp_path, [1.0]) / "epoch_1"
    snapshot = read_snapshot(folder)
    snapshot.trees["rng"] = [{}]
    write_folder(folder, snapshot.content())
    trainer = crashing.plain_trainer(tmp_path, crashing.PlainBackend())
    with pytest.raises(CheckpointError) as caught:
        trainer.load_checkpoint(folder)
    assert str(caught.value) == (
        f"{str(folder)!r} holds random streams that can't be taken up: KeyError: 'python'. Nothing was loaded. Use "
        "another checkpoint, or load the weights alone with weights_only=True."
    )


def test_whole_checkpoints_are_not_written_anew_by_resuming(crashing: Any, tmp_path: Path) -> None:
    checkpoints = fit(crashing, tmp_path, [0.5], save_best=True)
    before = {path: path.stat().st_ino for path in checkpoints.glob("*/*")}
    fit(crashing, tmp_path, [0.5], save_best=True, resume="auto")
    assert {path: path.stat().st_ino for path in checkpoints.glob("*/*")} == before
    shutil.rmtree(checkpoints / "best_epoch_1")
    fit(crashing, tmp_path, [0.5], save_best=True, resume="auto")
    after = {path: path.stat().st_ino for path in checkpoints.glob("*/*")}
    assert set(after) == set(before)
    assert all(after[path] == before[path] for path in after if path.parent.name != "best_epoch_1")


def test_a_lost_checkpoint_that_can_not_be_made_up_for_is_an_error_at_the_end(
    crashing: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = fit(crashing, tmp_path, [0.5], save_best=True)
    shutil.rmtree(checkpoints / "best_epoch_1")

    def full(folder: Path, content: Any) -> None:
        if folder.name == "best_epoch_1":
            raise OSError(28, "No space left on device")
        write_folder(folder, content)

    monkeypatch.setattr("dowdyboy_core._run.checkpoints.write_folder", full)
    with pytest.raises(CheckpointError, match=r"the last save of best_epoch_1 in '.*' failed"):
        fit(crashing, tmp_path, [0.5, 0.7], save_best=True, resume="auto")
    assert runs(checkpoints).keys() == {"epoch_1", "epoch_2", "last_epoch_2"}


# ---- what one process chooses for all


def resume_as(crashing: Any, out_dir: Path, rank: int, others: Callable[[Any], Any]) -> Any:
    backend = crashing.OneOfSeveral(2, rank, others)
    return crashing.plain_trainer(out_dir, backend, epoch=3, resume="auto")


def test_all_go_on_from_what_the_first_process_chose(crashing: Any, tmp_path: Path) -> None:
    chosen = fit(crashing, tmp_path, [1.0, 1.0, 1.0]) / "epoch_1"  # and this process would have found a later one
    asked: list[Any] = []

    def first(value: Any) -> Any:
        """Names the checkpoint where this process, which looks for none, asks for it, and nothing later."""
        if value is None and not asked:
            return asked.append(value) or str(chosen)
        return value

    trainer = resume_as(crashing, tmp_path, 1, first)
    assert epochs_of(trainer) == [2, 3]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (("It has gone.", None), "It has gone."),
        ((None, {"run": 5}), "it finds another checkpoint there."),
        ((None, None), "it finds another checkpoint there."),
    ],
)
def test_none_goes_on_if_another_process_can_not(
    crashing: Any, tmp_path: Path, answer: tuple[str | None, Any], problem: str
) -> None:
    newest = fit(crashing, tmp_path, [1.0]) / "last_epoch_1"
    trainer = resume_as(crashing, tmp_path, 0, lambda value: answer if isinstance(value, tuple) else value)
    with pytest.raises(CheckpointError) as caught:
        trainer.fit(step())
    assert str(caught.value) == (
        f"Process 0 goes on from {str(newest)!r}, and process 1 can't: {problem} Give an out_dir that all machines "
        "share, or copy that folder to the same path on each of them."
    )


def test_a_process_that_can_not_tells_the_others_why(crashing: Any, tmp_path: Path) -> None:
    index = read_index(fit(crashing, tmp_path, [1.0]) / "epoch_1")
    missing = tmp_path / "missing"
    told: list[Any] = []

    def first(value: Any) -> Any:
        if value is None:
            return str(missing)
        if isinstance(value, tuple):
            told.append(value)
            return None, index
        return value

    with pytest.raises(CheckpointError, match=r"process 1 can't: '.*missing' is no folder\. Give the folder of"):
        resume_as(crashing, tmp_path, 1, first).fit(step())
    with pytest.raises(CheckpointError) as caught:
        read_snapshot(missing)
    assert told == [(str(caught.value), None)]


# ---- saving and stopping


def test_the_last_checkpoint_is_refreshed_where_a_window_closes(crashing: Any, tmp_path: Path) -> None:
    found: list[int | None] = []

    def look(trainer: Any, bat: float) -> None:
        trainer.wait_for_checkpoint()
        path = tmp_path / "checkpoint" / "last_epoch_1"
        found.append(read_index(path)["train_step"] if path.exists() else None)

    trainer = crashing.plain_trainer(
        tmp_path, crashing.PlainBackend(), batches=9, epoch=1, save_steps=3, accumulate_steps=2
    )
    trainer.fit(step(look))
    assert found == [None, None, None, None, 4, 4, 6, 6, 6]


def stopped(trainer: Any) -> None:
    """Fits until a signal comes, in the fifth of all batches, or the sixth for who doesn't get that."""
    with pytest.raises(Stopped):
        trainer.fit(stop_at(4, 5))


def test_a_process_alone_stops_after_the_batch_in_which_a_signal_came(crashing: Any, tmp_path: Path) -> None:
    stopped(crashing.plain_trainer(tmp_path, crashing.PlainBackend(), batches=9))
    assert read_index(tmp_path / "checkpoint" / "last_epoch_1")["batch"] == 5
    assert said(tmp_path)[-1] == "[INFO] stopped by signal 15 in epoch 1, saved; resume='auto' goes on from here"


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_process_alone_says_that_it_stops(
    crashing: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], rank: int
) -> None:
    stopped(crashing.plain_trainer(tmp_path, crashing.OneOfSeveral(2, rank), batches=18))
    assert ("SIGTERM: stopping after this batch" in capfd.readouterr().err) == (rank == 0)


@pytest.mark.parametrize("why", ["it should not", "the disk will not"])
def test_a_stop_that_could_not_be_saved_says_so(crashing: Any, tmp_path: Path, why: str) -> None:
    if why == "the disk will not":
        (tmp_path / "checkpoint").write_text("in the way")
    trainer = crashing.plain_trainer(
        tmp_path, crashing.PlainBackend(), batches=9, enable_save_checkpoint=why == "the disk will not"
    )
    stopped(trainer)
    assert said(tmp_path)[-1] == "[INFO] stopped by signal 15 in epoch 1, and this point is NOT saved"

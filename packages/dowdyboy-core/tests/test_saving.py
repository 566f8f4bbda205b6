"""What is in a snapshot of a run, and which snapshots a run takes up, with a framework of plain Python."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dowdyboy_core import CheckpointError, SetupError
from dowdyboy_core._disk.files import write_folder
from dowdyboy_core._run.checkpoints import Snapshot, read_snapshot
from dowdyboy_core.backend.signals import Stopped


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def step(trainer: Any, bat: float, bat_idx: int, global_step: int) -> Any:
    """Records the batch, and stops in the third."""
    trainer.set_records({"seen": bat})
    if bat == 2:
        signal.raise_signal(signal.SIGTERM)
    return [trainer.get_raw_models()[0].w, 1.0]


def halted(crashing: Any, out_dir: Path, prepare: Callable[[Any], None] = lambda trainer: None) -> Path:
    """A checkpoint of a run that was stopped after three batches of four, and whose epoch is then ended."""
    for resume in (None, "auto"):
        trainer = crashing.plain_trainer(out_dir, crashing.PlainBackend(), batches=4, epoch=1, resume=resume)
        prepare(trainer)
        if resume is None:
            with pytest.raises(Stopped):
                trainer.fit(step)
            shutil.copytree(out_dir / "checkpoint" / "last_epoch_1", out_dir / "halted")
        else:
            trainer.fit(step)
    return out_dir / "halted"


def refused(trainer: Any, folder: Path) -> str:
    """What is said of a checkpoint that isn't taken up."""
    with pytest.raises(CheckpointError) as caught:
        trainer.load_checkpoint(folder)
    return str(caught.value)


def change(folder: Path, do: Callable[[Snapshot], object]) -> Path:
    """Writes a checkpoint with something else in it, in order but for that."""
    snapshot = read_snapshot(folder)
    do(snapshot)
    write_folder(folder, snapshot.content())
    return folder


# ---- what is in it


def test_records_are_saved_within_an_epoch_and_not_at_its_end(crashing: Any, tmp_path: Path) -> None:
    folder = halted(crashing, tmp_path)
    assert read_snapshot(folder).trees["records"]["seen"]["values"].shape == (3,)
    assert read_snapshot(tmp_path / "checkpoint" / "epoch_1").trees["records"] == {}


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_process_takes_up_the_records_of_all(crashing: Any, tmp_path: Path, rank: int) -> None:
    folder = halted(crashing, tmp_path / "alone")
    trainer = crashing.plain_trainer(tmp_path, crashing.OneOfSeveral(2, rank), batches=4)
    trainer.load_checkpoint(folder)
    found = {name: list(values) for name, values in trainer.get_records().items()}
    assert found == ({"seen": [0, 1, 2]} if rank == 0 else {})


def test_components_come_back_with_what_they_hold(crashing: Any, tmp_path: Path) -> None:
    def prepare(trainer: Any) -> None:
        trainer.set_components([crashing.Component(), "no module", crashing.Component(0.5)])

    folder = halted(crashing, tmp_path / "first", prepare)
    assert set(read_snapshot(folder).weights) == {"model_0", "component_2"}
    trainer = crashing.plain_trainer(tmp_path, crashing.PlainBackend())
    trainer.set_components([crashing.Component(), "no module", crashing.Component(0.0)])
    trainer.load_checkpoint(folder)
    empty, _, full = trainer.get_components()
    assert (empty.number, full.number) == (None, 0.5)


# ---- several processes


def several(crashing: Any, out_dir: Path, others: Callable[[Any], Any]) -> Any:
    """A trainer of three models in the first of two processes, of which only the third is trained."""
    trainer = crashing.plain_trainer(out_dir, crashing.OneOfSeveral(2, 0, others), epoch=1)
    models = [crashing.Model() for _ in range(3)]
    models[0].w.trained = False
    trainer.set_models(models)
    trainer.set_optimizer(crashing.Optimizer(models[2], 0.25))
    return trainer


def digests_and(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Any], Any]:
    """Another process that has digests of its own, and everything else the same."""

    def others(value: Any) -> Any:
        named = isinstance(value, Mapping) and any(str(name).startswith("model ") for name in value)
        return answer(dict(value)) if named else value

    return others


def plain_step(trainer: Any, bat: float, bat_idx: int, global_step: int) -> Any:
    return [trainer.get_raw_models()[2].w, 1.0]


@pytest.mark.parametrize(
    ("answer", "first", "count"),
    [
        (lambda digests: dict.fromkeys(digests, -1), "model 1, w", 2),
        (lambda digests: {**digests, "model 2, w": -1}, "model 2, w", 1),
        (lambda digests: {"model 2, w": digests["model 2, w"]}, "model 1, w", 1),
    ],
)
def test_weights_that_differ_between_processes_are_not_saved(
    crashing: Any, tmp_path: Path, answer: Callable[[dict[str, Any]], dict[str, Any]], first: str, count: int
) -> None:
    with pytest.raises(SetupError) as caught:
        several(crashing, tmp_path, digests_and(answer)).fit(plain_step)
    assert str(caught.value) == (
        f"The weights of processes 0 and 1 differ, first in {first!r} ({count} of 2 parameters). Let every process "
        "run the same steps; compute with the models of get_models(), since gradients of get_raw_models() stay in "
        "their process; and if some parameters get no gradient in some steps, set find_unused_parameters=True."
    )
    assert not (tmp_path / "checkpoint").exists()


def test_the_digests_are_of_the_weights_that_are_trained(crashing: Any, tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    def note(digests: dict[str, Any]) -> dict[str, Any]:
        seen.append(digests)
        return digests

    trainer = several(crashing, tmp_path, digests_and(note))
    trainer.fit(plain_step)
    trainer.fit(plain_step)
    first, second = seen
    assert set(first) == set(second) == {"model 1, w", "model 2, w"}
    assert first["model 1, w"] == second["model 1, w"]
    assert first["model 2, w"] != second["model 2, w"]


# ---- what is refused


def test_a_checkpoint_of_another_framework(crashing: Any, tmp_path: Path) -> None:
    folder = change(halted(crashing, tmp_path), lambda snapshot: snapshot.index.update(backend="other"))
    assert refused(crashing.plain_trainer(tmp_path, crashing.PlainBackend()), folder) == (
        f"{str(folder)!r} was saved by 'other' and this is 'plain', which lays out weights in another way; and "
        "it doesn't say what its tensors are, as checkpoints do from format version 3 on. Save it anew there with this "
        "version, or load it there."
    )


@pytest.mark.parametrize(("saved", "had", "has"), [(True, "one", "none"), (False, "none", "one")])
def test_a_scheduler_on_one_side_alone(crashing: Any, tmp_path: Path, saved: bool, had: str, has: str) -> None:
    def without(trainer: Any) -> None:
        trainer.set_optimizer(crashing.Optimizer(trainer.get_raw_models()[0], 0.25))

    folder = halted(crashing, tmp_path, (lambda trainer: None) if saved else without)
    trainer = crashing.plain_trainer(tmp_path, crashing.PlainBackend())
    if saved:
        without(trainer)
    assert refused(trainer, folder) == (
        f"{str(folder)!r} has {had} lr_scheduler for optimizer 0 and the trainer has {has}. Give the same as when it "
        "was saved, or load the weights alone with weights_only=True."
    )


def test_a_state_that_can_not_be_taken_up_leaves_everything_as_it_was(crashing: Any, tmp_path: Path) -> None:
    folder = change(halted(crashing, tmp_path), lambda snapshot: snapshot.trees["lr_scheduler_0"].clear())
    trainer = crashing.plain_trainer(tmp_path, crashing.PlainBackend())
    [model], [optimizer] = trainer.get_raw_models(), trainer.get_optimizers()[0]
    assert refused(trainer, folder) == (
        f"{str(folder)!r} holds a state that can't be taken up: KeyError: 'steps'. Nothing was loaded. Use another "
        "checkpoint, or load the weights alone with weights_only=True."
    )
    assert (model.w.value, optimizer.velocity, optimizer.lr) == (1.0, 0.0, 0.25)
    assert trainer.get_records() == {}


def test_an_optimizer_without_the_state_of_a_scheduler(crashing: Any, tmp_path: Path) -> None:
    folder = change(halted(crashing, tmp_path), lambda snapshot: snapshot.trees.pop("lr_scheduler_0"))
    assert refused(crashing.plain_trainer(tmp_path, crashing.PlainBackend()), folder) == (
        f"{str(folder)!r} holds 1 optimizers and 0 lr_schedulers, of which each has one, if only null. Use another "
        "checkpoint, or load the weights alone with weights_only=True."
    )

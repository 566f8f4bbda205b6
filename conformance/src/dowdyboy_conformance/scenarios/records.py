"""What each of several processes does, where the question is what comes of records."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from dowdyboy_conformance._problem import Run, build, data
from dowdyboy_conformance._resuming import Killed, read_index
from dowdyboy_conformance.harnesses.harness import Harness

# Six batches, of which the last one is short: as many rounds for one, two and three processes, none of them filled up.
SAMPLES, BATCH_SIZE = 22, 4


def samples(harness: Harness, out_dir: Path) -> Any:
    """Records of samples at the end of two epochs, of a whole run and of one that was stopped within the second."""
    seen = {"whole": _recorded(harness, out_dir / "whole")}
    with contextlib.suppress(Killed):
        _recorded(harness, out_dir / "parts", kill_in=2)
    seen["parts"] = _recorded(harness, out_dir / "parts", resume="auto")
    best = read_index(out_dir / "parts" / "checkpoint" / "best_epoch_1")["best"]
    return {**seen, "best": best, "elsewhere": _elsewhere(harness, out_dir)}


def _elsewhere(harness: Harness, out_dir: Path) -> Any:
    """How many samples there are where a run goes on from a checkpoint within an epoch of one process fewer."""
    with contextlib.suppress(Killed):
        _recorded(harness, out_dir / "own", kill_in=1)
    world_size = harness.make_trainer(build(harness, out_dir / "reader").trainer.config).world_size
    before = out_dir.parents[1] / str(world_size - 1) / out_dir.name / "own" / "checkpoint" / "last_epoch_1"
    if not before.is_dir():
        return None
    return [len(values) for _, _, values in _recorded(harness, out_dir / "on", epoch=1, resume=str(before))[0]]


def _recorded(harness: Harness, out_dir: Path, kill_in: int | None = None, **settings: Any) -> list[Any]:
    """Name, type and values of the records, in their order, at the end of each epoch."""
    settings = {"epoch": 2, "save_steps": 1, "enable_save_checkpoint": True, "save_best": True, **settings}
    run = build(harness, out_dir, save_best_rec="even", save_best_type="max", **settings)
    dataset = harness.dataset(*data(SAMPLES), np.arange(SAMPLES))
    run.trainer.set_train_dataloader(harness.loader(dataset, BATCH_SIZE, shuffle=True))
    run.trainer.set_val_dataloader(harness.loader(dataset, 5))
    found: list[Any] = []

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        if trainer.epoch == kill_in and bat_idx == 1:
            raise Killed
        trainer.set_records({"number": bat[2], "row": bat[0]}, samples=True)
        if 7 in harness.numpy(bat[2]):
            trainer.set_records({"seldom": [[1, 2], [3, 4]]}, samples=True)
        trainer.set_records({"chosen": harness.numpy(bat[0])[harness.numpy(bat[1]) == 1]}, samples=True)
        return _loss(run, bat)

    def val_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        numbers = harness.numpy(bat[2])
        trainer.set_records({"number": numbers, "even": (numbers % 2 == 0).tolist()}, samples=True)
        trainer.set_records({"whole": len(numbers)})

    def end(trainer: Any, ep: int) -> None:
        arrays = {name: harness.numpy(tensor) for name, tensor in trainer.get_records().items()}
        found.append([[name, array.dtype.name, array.tolist()] for name, array in arrays.items()])

    run.trainer.fit(step, val_step, end)
    return found


def _loss(run: Run, bat: Any) -> Any:
    return run.loss(run.trainer.get_models()[0](bat[0]), bat[1])

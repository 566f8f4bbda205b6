"""What each of several processes does, where the question is about the average of the weights and kept checkpoints."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from dowdyboy_conformance._problem import build, config
from dowdyboy_conformance.harnesses.harness import Harness


def average(harness: Harness, out_dir: Path) -> Any:
    """Digests of the average in each epoch, and the weights' own, and how many exchanges there were."""
    settings: dict[str, Any] = {"epoch": 2, "samples": 24, "batch_norm": True, "optimizer": "adam"}
    run = build(harness, out_dir, ema_decay=0.5, **settings)
    seen: list[tuple[int, int]] = []

    def end(trainer: Any, ep: int) -> None:
        models = [*trainer.get_ema_models(), *trainer.get_raw_models()]
        seen.append((_digest(harness, models[0]), _digest(harness, models[1])))

    run.fit(on_epoch_end=end)
    return seen


def _digest(harness: Harness, model: Any) -> int:
    return zlib.crc32(b"".join(array.tobytes() for _, array in sorted(harness.parameters(model).items())))


def asking(harness: Harness, out_dir: Path) -> Any:
    """A run that is saved as one process or all have asked; gives the folders."""
    settings: dict[str, Any] = {"epoch": 2, "samples": 8 * harness_world(harness, out_dir), "save_interval": 9}
    run = build(harness, out_dir, enable_save_checkpoint=True, **settings)
    rank = run.trainer.rank

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        if global_step == 0:
            trainer.save_checkpoint("all")
        if global_step == 1 and rank == trainer.world_size - 1:
            trainer.save_checkpoint("one")
        return run.train_step(trainer, bat, bat_idx, global_step)

    def end(trainer: Any, ep: int) -> None:
        if ep == 1 and rank == 0:
            trainer.save_checkpoint("end")

    run.trainer.fit(step, None, end)
    run.trainer.save_checkpoint("out")
    return sorted(path.name for path in (out_dir / "checkpoint").iterdir())


def harness_world(harness: Harness, out_dir: Path) -> int:
    """How many processes there are."""
    return harness.make_trainer(config(out_dir)).world_size

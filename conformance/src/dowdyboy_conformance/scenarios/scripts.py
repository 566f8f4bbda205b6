"""What each of several processes does in scripts that are drawn from a number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dowdyboy_conformance._inside import inside
from dowdyboy_conformance._playing import play_all
from dowdyboy_conformance._problem import build, config, data
from dowdyboy_conformance.harnesses.harness import Harness

_stopping = inside("_run.stopping")

COUNT = 2


def scripts(harness: Harness, out_dir: Path) -> Any:
    """What is wrong with scripts that are interrupted; in two processes, since one or three show nothing else."""
    if harness.make_trainer(config(out_dir)).world_size != 2:
        return []
    return _play(harness, out_dir)


def counts(harness: Harness, out_dir: Path) -> Any:
    """The global steps of validation that this process sees, of which the first has a batch more."""
    run = build(harness, out_dir, epoch=2, batch_size=1, samples=4 * harness.make_trainer(config(out_dir)).world_size)
    run.trainer.set_val_dataloader(harness.loader(harness.dataset(*data(run.trainer.world_size + 1)), 1))
    seen: list[int] = []

    def val_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        seen.append(global_step)

    run.trainer.fit(run.train_step, val_step)
    return seen


def play_together(spec: str, out_dir: str) -> None:
    """A process of a job that plays those that the environment names."""
    from dowdyboy_conformance._together import load

    harness: Harness = load(spec)()
    rank = harness.make_trainer(config(Path(out_dir))).rank
    Path(out_dir, f"rank_{rank}.txt").write_text("\n\n".join(_play(harness, Path(out_dir))), encoding="utf-8")


def _play(harness: Harness, out_dir: Path) -> list[str]:
    period, _stopping.PERIOD = _stopping.PERIOD, 0.0  # they ask one another after each batch
    try:
        return play_all(harness, out_dir, COUNT)
    finally:
        _stopping.PERIOD = period

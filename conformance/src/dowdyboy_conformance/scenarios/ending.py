"""What each of several processes does where a fit ends before its last epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dowdyboy_conformance._inside import inside
from dowdyboy_conformance._problem import Run, build
from dowdyboy_conformance.harnesses.harness import Harness

_stopping = inside("_run.stopping")

PLACES = {"train": 2, "step": 2, "val": 0, "end": 1}


def ending(harness: Harness, out_dir: Path) -> Any:
    """Fits that the last process ends by itself, and one that ends since nothing gets better."""
    period, _stopping.PERIOD = _stopping.PERIOD, 0.0  # they ask one another after each batch
    try:
        seen: dict[str, Any] = {}
        for event, number in PLACES.items():
            run = _run(harness, out_dir / event)
            seen[event] = _fit(run, (event, number) if run.trainer.rank == run.trainer.world_size - 1 else None)
        resumed = _run(harness, out_dir / "train", resume="auto")
        seen["resumed"] = [ep for event, ep in _events(resumed, None) if event == "end"]
        early = _run(harness, out_dir / "early", early_stop=2, epoch=5)
        early.trainer.set_save_best_calc_func(lambda trainer: float(trainer.epoch + trainer.rank))
        seen["early"] = [ep for event, ep in _events(early, None) if event == "end"]
        return seen
    finally:
        _stopping.PERIOD = period


def _run(harness: Harness, out_dir: Path, **settings: Any) -> Run:
    processes = harness.make_trainer(build(harness, out_dir).trainer.config).world_size
    common: dict[str, Any] = {"epoch": 3, "enable_save_checkpoint": True, "batch_size": 1}
    return build(harness, out_dir, samples=7 * processes, **{**common, **settings})


def _fit(run: Run, at: tuple[str, int] | None) -> list[Any]:
    """The last training step, the epoch, the number of steps and the last event."""
    events = _events(run, at)
    trained = [event for event in events if event[0] == "train"]
    return [list(trained[-1]), run.trainer.epoch, run.trainer.global_step, list(events[-1])]


def _events(run: Run, at: tuple[str, int] | None) -> list[tuple[str, int]]:
    events: list[tuple[str, int]] = []

    def note(event: str, number: int) -> None:
        events.append((event, number))
        if (event, number) == at:
            run.trainer.stop()

    def train_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        note("train", global_step)
        return run.train_step(trainer, bat, bat_idx, global_step)

    def val_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        note("val", global_step)
        return run.val_step(trainer, bat, bat_idx, global_step)

    run.trainer.fit(
        train_step,
        val_step,
        lambda _, ep: note("end", ep),
        on_step_end=lambda _, global_step: note("step", global_step),
    )
    return events

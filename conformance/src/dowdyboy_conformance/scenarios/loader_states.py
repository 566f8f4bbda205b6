"""What each of several processes does, where the training loader has a state of its own."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from dowdyboy_conformance._data import Indexed, Stateful, plain
from dowdyboy_conformance._problem import config, layers
from dowdyboy_conformance._resuming import Killed
from dowdyboy_conformance.harnesses.harness import Harness

SAMPLES = 7

CASES: dict[str, dict[str, Any]] = {
    "epochs": {"epoch": 3},
    "passes": {"epoch": 3, "steps_per_epoch": 5},
    "dealt out": {"epoch": 3, "dealt_out": True},
    "dealt out in passes": {"epoch": 3, "steps_per_epoch": 5, "dealt_out": True},
}


def seen_and_read(
    harness: Harness,
    out_dir: Path,
    kill_at: int | None,
    *,
    make: Any = Stateful,
    dealt_out: bool = False,
    **settings: Any,
) -> tuple[list[Any], list[int]]:
    """The batches that a run trains on, saved where it is killed, and the indices that are read for them."""
    read: list[int] = []

    def sample(index: int) -> list[int]:
        read.append(index)
        return [index]

    saves = {"enable_save_checkpoint": kill_at is not None, "save_steps": kill_at, "save_interval": 10}
    whole = {"auto_optimize": False, "resume": "auto", **saves, **settings}
    trainer = harness.make_trainer(config(out_dir, **whole))
    trainer.set_model(harness.model(layers(1, 1)))
    loader = make(Indexed(SAMPLES, sample))
    if dealt_out:
        loader.dealt_out = True
        loader.order_of = trainer.rank
    trainer.set_train_dataloader(loader)
    seen: list[Any] = []

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        if global_step == kill_at:
            raise Killed
        seen.append([trainer.epoch, plain(harness, bat)])

    with contextlib.suppress(Killed):
        trainer.fit(step)
    return seen, read


def kills(steps: int) -> list[int]:
    """Steps within which runs of so many are killed: in the first epoch, the second, and the last round of all."""
    return sorted({2, steps // 2 + 1, steps - 1})


def own_states(harness: Harness, out_dir: Path) -> Any:
    """Whole runs, and such as are killed at each step and resumed, in all processes alike."""
    found: dict[str, Any] = {}
    for name, settings in CASES.items():
        whole, _ = seen_and_read(harness, out_dir / name / "whole", None, **settings)
        parts: list[Any] = []
        for kill_at in kills(len(whole)):
            folder = out_dir / name / f"killed at {kill_at}"
            before, _ = seen_and_read(harness, folder, kill_at, **settings)
            after, read = seen_and_read(harness, folder, None, **settings)
            parts.append([before + after == whole, len(after), len(read)])
        found[name] = {"length": len(whole), "first": whole[: SAMPLES + 1], "parts": parts}
    return found

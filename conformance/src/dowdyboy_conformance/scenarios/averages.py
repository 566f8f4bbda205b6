"""What each of several processes does, where the question is about the average of the weights and kept checkpoints."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from dowdyboy_conformance._problem import build
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

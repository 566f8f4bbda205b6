"""How many steps a scheduler is made for."""

from __future__ import annotations

from typing import Any

from paddle.optimizer.lr import CosineAnnealingDecay, LinearWarmup, OneCycleLR, PolynomialDecay

_LENGTHS: dict[type, str] = {OneCycleLR: "total_steps", CosineAnnealingDecay: "T_max", PolynomialDecay: "decay_steps"}


def length(scheduler: Any) -> int | None:
    """The number of steps that a scheduler is made for; None if it goes on for ever, or doesn't say."""
    if isinstance(scheduler, LinearWarmup):
        last = length(scheduler.learning_rate)
        return None if last is None else last + scheduler.warmup_steps
    if isinstance(scheduler, PolynomialDecay) and scheduler.cycle:
        return None
    name = next((name for kind, name in _LENGTHS.items() if isinstance(scheduler, kind)), "")
    made = getattr(scheduler, name, None)
    return int(made) if isinstance(made, (int, float)) and made == int(made) else None

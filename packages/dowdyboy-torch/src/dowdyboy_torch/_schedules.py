"""How many steps a scheduler is made for."""

from __future__ import annotations

from typing import Any

from torch.optim.lr_scheduler import ChainedScheduler, CosineAnnealingLR, OneCycleLR, PolynomialLR, SequentialLR

_LENGTHS: dict[type, str] = {OneCycleLR: "total_steps", CosineAnnealingLR: "T_max", PolynomialLR: "total_iters"}


def length(scheduler: Any) -> int | None:
    """The number of steps that a scheduler is made for; None if it goes on for ever, or doesn't say."""
    if isinstance(scheduler, SequentialLR):
        last = length(scheduler._schedulers[-1])
        return None if last is None else last + (scheduler._milestones or [0])[-1]
    if isinstance(scheduler, ChainedScheduler):
        found = {length(item) for item in scheduler._schedulers} - {None}
        return found.pop() if len(found) == 1 else None
    name = next((name for kind, name in _LENGTHS.items() if isinstance(scheduler, kind)), "")
    made = getattr(scheduler, name, None)
    return int(made) if isinstance(made, (int, float)) and made == int(made) else None

"""The hooks of a fit, checked before anything is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .assembly import check_hook

STEP_ARGUMENTS = "trainer, bat, bat_idx, global_step"


@dataclass(frozen=True)
class Hooks:
    """What a fit calls; see ``Trainer.fit``.

    Raises:
        ConfigError: one of them can't be called as it will be.
    """

    train_step: Callable[[Any, Any, int, int], Any]
    val_step: Callable[[Any, Any, int, int], Any] | None = None
    on_epoch_end: Callable[[Any, int], Any] | None = None
    on_epoch_begin: Callable[[Any, int], Any] | None = None
    on_step_end: Callable[[Any, int], Any] | None = None

    def __post_init__(self) -> None:
        check_hook("train_step", self.train_step, STEP_ARGUMENTS)
        for name, arguments in _ARGUMENTS.items():
            hook = getattr(self, name)
            if hook is not None:
                check_hook(name, hook, arguments)


_ARGUMENTS = {
    "val_step": STEP_ARGUMENTS,
    "on_epoch_end": "trainer, ep",
    "on_epoch_begin": "trainer, ep",
    "on_step_end": "trainer, global_step",
}

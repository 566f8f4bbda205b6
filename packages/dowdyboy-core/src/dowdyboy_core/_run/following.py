"""What follows an epoch: the value that decides the best, and the schedulers, by the clock or by that value."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from dowdyboy_core._config import TrainerConfig
from dowdyboy_core._errors import ConfigError
from dowdyboy_core.backend.seam import Backend

from .assembly import Assembly
from .records import Records
from .values import as_number

# What a plateau scheduler is told for NaN or inf. In one framework NaN would stay the best for ever, and inf minus a
# share of inf is NaN again; a number worse than any real one is a bad epoch in both.
_WORST = 3e38


class Following:
    """Steps the schedulers once an epoch, and computes the value that some of them follow."""

    def __init__(self, config: TrainerConfig, backend: Backend, parts: Assembly) -> None:
        self._config = config
        self._backend = backend
        self._parts = parts
        self._function: Callable[[Any], Any] | None = None

    def set_function(self, function: Callable[[Any], Any]) -> None:
        """Has ``function(trainer)`` compute the value.

        Raises:
            ConfigError: it can't be called.
        """
        if not callable(function):
            raise ConfigError(f"set_save_best_calc_func got {function!r:.80}, which can't be called. Give a function.")
        self._function = function

    def record(self) -> str | None:
        """The record whose mean is the value; None where a function of the user's computes it."""
        return None if self._function is not None else self._config.save_best_rec

    def step_clocked(self) -> None:
        """Steps the schedulers that follow the clock; those that follow a value wait for it."""
        for scheduler in self._parts.schedulers:
            if scheduler is not None and self._backend.plateau_mode(scheduler) is None:
                self._backend.step_scheduler(scheduler, None)

    def wants_value(self, ep: int) -> bool:
        """Whether anything follows the value of an epoch, and it has one."""
        return bool(self._plateaus() or self._config.save_best) and ep % self._config.val_interval == 0

    def problem(self, records: Records, ep: int) -> str | None:
        """What keeps the value from being computed, in words: the record that it is the mean of is missing."""
        if self._function is not None:
            return None
        found, name = records.stacked(), self._config.save_best_rec
        if name in found:
            return None
        return (
            f"save_best_rec={name!r} is not among the records of epoch {ep}: {sorted(found)}. Record it with "
            f"set_records{', or name one of these' if found else ''}."
        )

    def value(self, trainer: Any, records: Records) -> float:
        """Computes the value, one for all processes, and steps plateau schedulers by it.

        Raises:
            ConfigError: the user's function gives no number.
        """
        # Whatever a function of the user computes, all processes follow one value.
        value: float = self._backend.gather(self._own_value(trainer, records))[0]
        for scheduler in self._plateaus():
            worst = -_WORST if self._backend.plateau_mode(scheduler) == "max" else _WORST
            self._backend.step_scheduler(scheduler, value if math.isfinite(value) else worst)
        return value

    def _plateaus(self) -> list[Any]:
        if not self._config.auto_schedule:
            return []
        return [item for item in self._parts.schedulers if item and self._backend.plateau_mode(item)]

    def _own_value(self, trainer: Any, records: Records) -> float:
        if self._function is None:
            return self._backend.mean(records.stacked()[self._config.save_best_rec])
        given = self._function(trainer)
        value = as_number(given, self._backend.to_float)
        if value is None:
            raise ConfigError(f"The function of set_save_best_calc_func gave {given!r:.80}. Return a number.")
        return value

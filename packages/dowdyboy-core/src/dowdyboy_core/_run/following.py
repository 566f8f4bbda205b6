"""What follows an epoch: the value that decides the best, and the schedulers that follow it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from dowdyboy_core._config import TrainerConfig
from dowdyboy_core._errors import ConfigError, SetupError
from dowdyboy_core.backend.seam import Backend

from .assembly import Assembly
from .records import Records
from .values import as_number

# What a plateau scheduler is told for NaN or inf. In one framework NaN would stay the best for ever, and inf minus a
# share of inf is NaN again; a number worse than any real one is a bad epoch in both.
_WORST = 3e38


class Following:
    """Computes the value of an epoch, and steps the schedulers that follow it."""

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

    def check(self) -> None:
        """Refuses schedulers that would wait in vain for the value that they follow.

        Raises:
            SetupError: no epoch has such a value.
        """
        every, epochs = self._config.val_interval, self._config.epoch
        plateaus = self._plateaus()
        if plateaus and every > epochs:
            raise SetupError(
                f"The scheduler {type(plateaus[0]).__name__} follows a value of the epochs that val_interval={every} "
                f"divides, and there is none among {epochs}. Set a smaller val_interval, or auto_schedule=False."
            )

    def wants_value(self, ep: int) -> bool:
        """Whether anything follows the value of an epoch, and it has one."""
        followed = self._config.save_best or self._config.early_stop is not None or self._plateaus()
        return bool(followed) and ep % self._config.val_interval == 0

    def problem(self, records: Records, ep: int) -> str | None:
        """What keeps the value from being computed, in words: the record that it is the mean of is missing."""
        if self._function is not None:
            return None
        found, name = records.stacked(), self._config.save_best_rec
        if name in found:
            return None
        plateaus = [] if self._config.save_best else self._plateaus()
        return (
            f"save_best_rec={name!r} is not among the records of epoch {ep}: {sorted(found)}. Record it with "
            f"set_records{', or name one of these' if found else ''}."
            + (f" The scheduler {type(plateaus[0]).__name__} follows its mean." if plateaus else "")
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
        return [item for item in self._parts.each_scheduler() if self._backend.plateau_mode(item)]

    def _own_value(self, trainer: Any, records: Records) -> float:
        if self._function is None:
            return self._backend.mean(records.stacked()[self._config.save_best_rec])
        given = self._function(trainer)
        value = as_number(given, self._backend.to_float)
        if value is None:
            raise ConfigError(f"The function of set_save_best_calc_func gave {given!r:.80}. Return a number.")
        return value

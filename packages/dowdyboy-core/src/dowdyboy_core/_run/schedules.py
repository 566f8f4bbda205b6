"""Schedulers that follow the clock: which step by epochs and which by optimizer steps, and how often."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dowdyboy_core._config import TrainerConfig
from dowdyboy_core._errors import ConfigError, SetupError
from dowdyboy_core.backend.seam import Backend

from .assembly import Assembly


class Schedules:
    """Steps the schedulers that follow the clock, each object once however many optimizers name it."""

    def __init__(self, config: TrainerConfig, backend: Backend, parts: Assembly, warn: Callable[[str], None]) -> None:
        self._config = config
        self._backend = backend
        self._parts = parts
        self._warn = warn
        self._by_step: list[tuple[Any, list[int]]] = []  # with the places of the optimizers that they are of
        self._due: list[Any] = []  # shared ones, whose other optimizers may still step in this batch

    def check(self) -> None:
        """Refuses a ``schedule_by`` that doesn't fit the optimizers.

        Raises:
            SetupError: it has another number of entries, or says two things of one scheduler.
        """
        by, count = self._config.schedule_by, len(self._parts.optimizers)
        if isinstance(by, str):
            return
        if len(by) != count:
            raise SetupError(
                f"schedule_by={tuple(by)!r} has {len(by)} entries, and there are {count} optimizers. Give one for "
                "each, or one word for all."
            )
        both = [item for item, _ in self._of("epoch") if any(item is other for other, _ in self._of("step"))]
        if both:
            raise SetupError(
                f"schedule_by={tuple(by)!r} says both of one scheduler ({type(both[0]).__name__}), which several "
                "optimizers share. Give one word for all of these."
            )

    def tell_lengths(self) -> None:
        """Says which schedulers are made for another number of steps than they will get."""
        for by in ("epoch", "step"):
            for scheduler, places in self._of(by):
                made, gets = self._backend.schedule_length(scheduler), self._steps(by)
                if made is not None and gets is not None and made != gets:
                    self._warn(
                        f"The scheduler of optimizer {places[0]} ({type(scheduler).__name__}) is made for {made} "
                        f"steps, and gets {gets} in the whole fit, {_EACH[by]}. Make it for trainer.schedule_steps, or "
                        "set schedule_by, unless you mean it so."
                    )

    def begin_epoch(self) -> None:
        """Looks at which schedulers there are by now."""
        self._by_step = self._of("step")

    def step_epoch(self) -> None:
        """Steps those that go by epochs; those that follow a value wait for it."""
        for scheduler, _ in self._of("epoch"):
            self._backend.step_scheduler(scheduler, None)

    def after(self, stepped: Sequence[bool]) -> None:
        """Steps those that go by optimizer steps, of whose optimizers one has stepped.

        Args:
            stepped: of each optimizer whether it stepped, or skipped its step for an overflow.
        """
        for scheduler, places in self._by_step:
            if any(stepped[place] for place in places):
                self._backend.step_scheduler(scheduler, None)

    def after_one(self, optimizer: Any) -> None:
        """The same, where a hook has stepped one optimizer; a scheduler that others share waits for these."""
        for scheduler, places in self._by_step:
            if not any(self._parts.optimizers[place] is optimizer for place in places):
                continue
            if len(places) == 1:
                self._backend.step_scheduler(scheduler, None)
            elif not any(scheduler is item for item in self._due):
                self._due.append(scheduler)

    def end_batch(self) -> None:
        """Steps those that have waited for other optimizers."""
        while self._due:
            self._backend.step_scheduler(self._due.pop(0), None)

    def check_by_hand(self, scheduler: Any) -> None:
        """Refuses a scheduler that is to be stepped by hand, and is stepped by itself as well.

        Raises:
            ConfigError: it is one of those.
        """
        if any(scheduler is item for item, _ in self._by_step):
            raise ConfigError(
                "step got a scheduler that schedule_by='step' steps after each step of its optimizer. Leave it out, or "
                "set auto_schedule=False."
            )

    def steps(self) -> int | None:
        """How many steps a scheduler gets in the whole fit; of two kinds, one that goes by optimizer steps.

        Raises:
            SetupError: that depends on data that was not set.
        """
        return self._steps("step" if "step" in _words(self._config.schedule_by) else "epoch")

    def _steps(self, by: str) -> int | None:
        config = self._config
        if not config.auto_schedule or (by == "step" and not config.auto_optimize):
            return None
        if by == "epoch":
            return config.epoch
        if "train" not in self._parts.loaders:
            raise SetupError("schedule_steps follows from the training data. Call set_train_dataloader first.")
        batches = self._parts.loaders["train"].count()
        return None if batches is None else -(-batches // config.accumulate_steps) * config.epoch

    def _of(self, by: str) -> list[tuple[Any, list[int]]]:
        """The schedulers that go by this, each object once, with the places of its optimizers."""
        if not self._config.auto_schedule:
            return []
        asked, found = self._config.schedule_by, list[tuple[Any, list[int]]]()
        for place, scheduler in enumerate(self._parts.schedulers):
            if scheduler is None or by != (asked if isinstance(asked, str) else asked[place]):
                continue
            if self._backend.plateau_mode(scheduler) is not None:
                continue
            known = next((places for item, places in found if item is scheduler), None)
            if known is None:
                found.append((scheduler, [place]))
            else:
                known.append(place)
        return found


def schedule_ways(config: TrainerConfig, backend: Backend, parts: Assembly) -> list[str | None]:
    """For each optimizer by what its scheduler goes; None where the trainer steps none by the clock."""
    by, count = config.schedule_by, len(parts.schedulers)
    words = [by] * count if isinstance(by, str) else [*by, *[None] * count][:count]
    followed = (config.auto_schedule and item and backend.plateau_mode(item) is None for item in parts.schedulers)
    return [word if clocked else None for word, clocked in zip(words, followed, strict=True)]


_EACH = {"epoch": "one an epoch", "step": "one an optimizer step"}


def _words(schedule_by: str | Sequence[str]) -> Sequence[str]:
    return (schedule_by,) if isinstance(schedule_by, str) else schedule_by

"""What a framework says of its own objects in the words of docs/exchange.md, and makes of what another says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from .arrays import Array
from .words import ModelWords, OptimizerWords, ScheduleWords


class Vocabulary(ABC):
    """The words of one framework, by class, never by shape or name."""

    @abstractmethod
    def model(self, model: Any) -> ModelWords:
        """What an unwrapped model consists of."""

    @abstractmethod
    def optimizer(self, optimizer: Any) -> OptimizerWords:
        """What an optimizer is, and how it keeps its state."""

    @abstractmethod
    def schedule(self, scheduler: Any) -> ScheduleWords:
        """How far a scheduler has come."""

    @abstractmethod
    def optimizer_state(
        self, optimizer: Any, live: Any, slots: Mapping[str, Mapping[str, Array]], rates: Sequence[float], schedule: Any
    ) -> Any:
        """What ``Backend.optimizer_state`` would give with the state of another framework's optimizer.

        Args:
            optimizer: the optimizer, whose settings stay its own.
            live: what ``Backend.optimizer_state`` gives now.
            slots: of each parameter, by its name.
            rates: the learning rate of each parameter group.
            schedule: the state of its scheduler; None where it has none.
        """

    @abstractmethod
    def schedule_state(self, scheduler: Any, live: Any, words: ScheduleWords, rates: Sequence[float]) -> Any:
        """What ``Backend.scheduler_state`` would give where a scheduler has come as far as another framework's.

        Args:
            scheduler: the scheduler, whose settings stay its own.
            live: what ``Backend.scheduler_state`` gives now.
            words: how far the other has come.
            rates: the learning rate of each parameter group of its optimizer.
        """

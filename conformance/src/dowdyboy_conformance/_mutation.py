"""What a mutant is: a harness whose trainers are wrong in one point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from dowdyboy_core import TrainerConfig

from .harnesses.numpy import NumpyHarness
from .harnesses.torch import TorchHarness


class BrokenMutant(Exception):
    """A mutant no longer fits the code that it should spoil."""


def change(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replaces an object's method by what ``make`` gives for the original.

    Raises:
        BrokenMutant: the object has no such method.
    """
    if not hasattr(owner, name):
        raise BrokenMutant(f"{type(owner).__name__} has no {name}")
    setattr(owner, name, make(getattr(owner, name)))


def nothing(original: Any) -> Any:
    """Stands for a method that does nothing."""
    return lambda *args, **named: None


class Spoilt:
    """Mixed into a harness, it has the trainers spoilt.

    Attributes:
        scenario: the one that its check of several processes looks at; None for all of them.
    """

    scenario: ClassVar[str | None] = None

    def make_trainer(self, config: TrainerConfig) -> Any:
        """The trainer, spoilt after it was made."""
        trainer = super().make_trainer(config)  # type: ignore[misc] # of the harness
        self.spoil(trainer)
        return trainer

    def spoil(self, trainer: Any) -> None:
        """Changes nothing: the control, which every check must pass."""


class Mutant(Spoilt, NumpyHarness):
    """A spoilt trainer of the reference backend, which is quick to start and to run."""


class TorchMutant(Spoilt, TorchHarness):
    """A spoilt trainer of PyTorch's, for what the reference backend hasn't got."""

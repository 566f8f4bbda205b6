"""What a mutant is: a harness that is wrong in one point."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from dowdyboy_conformance.harnesses.numpy import NumpyHarness
from dowdyboy_core import TrainerConfig

if TYPE_CHECKING:  # processes that are started for a mutant come by here, and need no pytest
    from pytest import MonkeyPatch


class BrokenMutant(Exception):
    """A mutant no longer fits the code that it should spoil."""


def change(owner: Any, name: str, make: Callable[[Any], Any], patch: MonkeyPatch | None = None) -> None:
    """Replaces an object's attribute by what ``make`` gives for the original.

    Args:
        owner: the object; a trainer or a part of one, unless there is a ``patch``.
        name: of the attribute.
        make: gives what takes its place.
        patch: what ``alter`` was given, which puts the original back.

    Raises:
        BrokenMutant: the object has no such attribute.
    """
    if not hasattr(owner, name):
        raise BrokenMutant(f"{owner!r:.80} has no {name}")
    replacement = make(getattr(owner, name))
    if patch is None:
        setattr(owner, name, replacement)
    else:
        patch.setattr(owner, name, replacement)


def nothing(original: Any) -> Any:
    """Stands for a method that does nothing."""
    return lambda *args, **named: None


def change_loaders(trainer: Any, spoil: Callable[[Any], Any], *roles: str) -> None:
    """Has ``spoil`` change the loaders that a trainer is given from here on, all of them or those of some roles."""

    def make(original: Any) -> Any:
        def set_loader(role: str, loader: Any) -> None:
            original(role, loader)
            if not roles or role in roles:
                spoil(trainer._parts.loaders[role])

        return set_loader

    change(trainer._parts, "set_loader", make)


class Spoilt:
    """Mixed into a harness, it has something spoilt.

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

    def alter(self, patch: MonkeyPatch) -> None:
        """Changes what is reached without a trainer, or before there is one; nothing here, either.

        It is called before each check of this harness, and what ``patch`` has changed is put back after it. (The
        processes that a check starts don't come by here.)
        """


class Mutant(Spoilt, NumpyHarness):
    """A spoilt reference backend, which is quick to start and to run."""


EXPECTED: dict[type[Spoilt], dict[str, tuple[str, ...]]] = {}
"""For each mutant the checks that must fail, by the clause that it breaks. (A check with parameters must fail once.)"""

_Kind = TypeVar("_Kind", bound=type[Spoilt])


def caught(clause: str, *checks: str) -> Callable[[_Kind], _Kind]:
    """Says of a mutant which clause it breaks, and which checks have to notice."""

    def note(mutant: _Kind) -> _Kind:
        others = EXPECTED.get(mutant, {})
        EXPECTED[mutant] = {clause: checks, **others}  # decorators work from the bottom up
        return mutant

    return note

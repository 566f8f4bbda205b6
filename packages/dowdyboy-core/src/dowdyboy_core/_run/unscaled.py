"""Gradients that a hook has had unscaled before the step: which, and what may no longer be done with them."""

from __future__ import annotations

from typing import Any

from dowdyboy_core._errors import SetupError


class Unscaled:
    """The optimizers whose gradients are unscaled, until they step or are cleared."""

    def __init__(self) -> None:
        self._finite: dict[int, tuple[Any, bool]] = {}  # by id, with the optimizer, so that no other one gets that
        self._added: set[int] = set()

    def note(self, optimizer: Any, *, finite: bool) -> None:
        """Notes that they are unscaled, and whether all of them are finite."""
        self._finite[id(optimizer)] = optimizer, finite

    def note_backward(self) -> None:
        """Notes that scaled gradients may have been added since."""
        if self._finite:
            self._added.update(self._finite)

    def finite(self, optimizer: Any) -> bool | None:
        """Whether all of them are finite; None for an optimizer whose gradients are scaled.

        Raises:
            SetupError: scaled ones may have been added to them.
        """
        if id(optimizer) not in self._finite:
            return None
        if id(optimizer) in self._added:
            raise SetupError(
                f"The gradients of {type(optimizer).__name__} were unscaled, and backward has run since, which adds "
                "scaled ones. After trainer.unscale(optimizer) call trainer.step(optimizer) or "
                "trainer.zero_grad(optimizer) before the next backward."
            )
        return self._finite[id(optimizer)][1]

    def forget(self, optimizer: Any) -> None:
        """Notes that they are gone: stepped, or cleared."""
        self._finite.pop(id(optimizer), None)
        self._added.discard(id(optimizer))

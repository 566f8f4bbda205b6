"""Whether the place of one framework's scheduler means something to another's."""

from __future__ import annotations

from dowdyboy_core._errors import CheckpointError
from dowdyboy_core.backend.words import ScheduleWords

_LOOSE = {"formula", "polynomial", "linear", "step", "multi_step", "exponential", "cosine"}
"""Kinds whose rates follow from the place alone, so that a formula may stand for each of them."""


def check_alike(number: int, there: ScheduleWords | None, here: ScheduleWords | None) -> None:
    """Refuses the place of another kind of scheduler.

    Args:
        number: of the optimizer.
        there: how far its scheduler has come in the checkpoint; None if it has none there.
        here: the same in this run.

    Raises:
        CheckpointError: only one side has a scheduler, no rule is known of one, or they are of different kinds.
    """
    if there is None and here is None:
        return
    if there is None or here is None:
        has, lacks = ("the checkpoint", "this run") if here is None else ("this run", "the checkpoint")
        raise CheckpointError(
            f"Optimizer {number} has a scheduler in {has} and none in {lacks}. Give set_optimizers the same, or load "
            "the weights alone with weights_only=True."
        )
    for words, where in ((there, "in the checkpoint"), (here, "here")):
        if words.kind is None:
            raise CheckpointError(
                f"Scheduler {number} is a {words.cls} {where}, of which no rule says how its place crosses. Use one of "
                "docs/exchange.md on both sides."
            )
    if there.kind != here.kind and not ("formula" in (there.kind, here.kind) and {there.kind, here.kind} <= _LOOSE):
        raise CheckpointError(
            f"Scheduler {number} is a {there.cls} ({there.kind}) in the checkpoint and a {here.cls} ({here.kind}) "
            "here. Make the one that gives the same rates, as docs/exchange.md pairs them."
        )

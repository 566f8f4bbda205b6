"""Which parameters are trained: saved with a run, put in place with it, and told where the script says otherwise."""

from __future__ import annotations

from typing import Any

from dowdyboy_core._errors import CheckpointError
from dowdyboy_core.backend.seam import Backend

from .assembly import Assembly

_SHOWN = 5


def frozen_names(backend: Backend, parts: Assembly) -> list[str]:
    """The parameters that aren't trained, by the number of their model and their path in it."""
    return [name for name, item in parts.named_parameters() if not backend.wants_gradient(item)]


def check(stored: Any) -> None:
    """Refuses what is no list of names.

    Raises:
        CheckpointError: it is none.
    """
    if stored is not None and not (isinstance(stored, list) and all(isinstance(name, str) for name in stored)):
        raise CheckpointError("The checkpoint has no frozen.json of the right kind. Use another checkpoint.")


def restore(backend: Backend, parts: Assembly, stored: list[str] | None) -> str | None:
    """Has those parameters trained that were when the run was saved, and no others.

    Args:
        backend: the framework.
        parts: of the run.
        stored: the names of those that were not; None of a checkpoint that doesn't know.

    Returns:
        What the script had set otherwise, in words; None if nothing.
    """
    if stored is None:
        return None
    frozen = set(stored)
    changed: dict[bool, list[str]] = {True: [], False: []}
    for name, item in parts.named_parameters():
        wanted = name not in frozen
        if backend.wants_gradient(item) != wanted:
            backend.set_wants_gradient(item, wanted)
            changed[wanted].append(name)
    told = [_told(names, trained) for trained, names in changed.items() if names]
    if not told:
        return None
    return (
        f"Other parameters were trained when the checkpoint was saved than the script has set: {'; '.join(told)}. The "
        "run goes on as it was saved. Freeze and unfreeze in on_epoch_end, or after load_checkpoint, to change that."
    )


def _told(names: list[str], trained: bool) -> str:
    shown = ", ".join(repr(name) for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{shown}{more} {'trained' if trained else 'frozen'} there"

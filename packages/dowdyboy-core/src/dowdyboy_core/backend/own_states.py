"""Loaders that have a state of their own, and go on from it without reading again what they gave before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dowdyboy_core._errors import CheckpointError


@dataclass(frozen=True)
class LoaderState:
    """Where a loader stands in an epoch.

    Attributes:
        number: how many batches it has given.
        state: what its ``state_dict`` said then.
    """

    number: int
    state: Any


def has_state(loader: Any) -> bool:
    """Whether an object says by its methods that it has a state; a class isn't one."""
    methods = (getattr(loader, name, None) for name in ("state_dict", "load_state_dict"))
    return not isinstance(loader, type) and all(map(callable, methods))


def put_in_place(loader: Any, state: Any) -> None:
    """Has a loader begin where another one stood.

    Raises:
        CheckpointError: it won't.
    """
    try:
        loader.load_state_dict(state)
    except Exception as error:
        raise CheckpointError(
            f"{type(loader).__name__}.load_state_dict doesn't take the state that the checkpoint has of the loader: "
            f"{type(error).__name__}: {error}. Give the loader that it was saved with, or load the weights alone with "
            "weights_only=True."
        ) from error

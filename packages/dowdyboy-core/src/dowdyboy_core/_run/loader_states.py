"""The state that a loader of the user's own says it has: stored with its process, and taken up at a resume."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from dowdyboy_core._errors import CheckpointError
from dowdyboy_core.backend.arrays import Array, Member
from dowdyboy_core.backend.own_states import LoaderState
from dowdyboy_core.backend.seam import Backend
from dowdyboy_core.backend.trees import encode

from .assembly import Assembly
from .own_state import plain_state
from .position import Position


class LoaderStates:
    """Stores where the training loader stands, and has it go on from there.

    Args:
        backend: the framework.
        parts: has the loader.
        position: how far the run has come.
        warn: says what the user should know.
    """

    def __init__(self, backend: Backend, parts: Assembly, position: Position, warn: Callable[[str], None]) -> None:
        self._backend = backend
        self._parts = parts
        self._position = position
        self._warn = warn
        self._told = False

    def capture(self) -> Any:
        """The state of this process, as a tree; None where there is none that a resumed run could use."""
        loader, position = self._parts.loaders.get("train"), self._position
        between = not position.batch or position.val_batch is not None
        if loader is None or (between and self._parts.steps_per_epoch is None):
            return None
        try:
            found = loader.state()
            if found is None:
                return None
            state = plain_state(self._backend, found.state)
            encode(state, "loader")
            self._revived(state)
        except Exception as error:  # of the user's own, or what is no plain data
            if not self._told:
                self._told = True
                self._warn(
                    f"The state of the train loader can't be stored: {type(error).__name__}: {error} A resumed run "
                    "will read what was read before, to come to its place. Keep to numbers, texts, lists, dicts, "
                    "tensors and arrays in what its state_dict gives."
                )
            return None
        return {"number": found.number, "place": list(position.place()), "state": state}

    def take_up(self, stored: Any) -> None:
        """Has the loader of each process begin where it stood, if it was stored for as many processes."""
        loader = self._parts.loaders.get("train")
        if loader is None or not isinstance(stored, list) or len(stored) != self._backend.world_size:
            return
        own = stored[self._backend.rank]
        if self._parts.steps_per_epoch is not None:
            self._position.take_own_place(own["place"])
        loader.take_up(LoaderState(own["number"], self._revived(own["state"])))

    def _revived(self, stored: Any) -> Any:
        if isinstance(stored, Array):
            return self._backend.tensor_from_state(stored, host=True)
        if isinstance(stored, Member):
            raise CheckpointError("it has a member of an enumeration.")
        if isinstance(stored, dict):
            return {key: self._revived(item) for key, item in stored.items()}
        if type(stored) in (list, tuple):
            return type(stored)(map(self._revived, stored))
        return deque(map(self._revived, stored), stored.maxlen) if type(stored) is deque else stored

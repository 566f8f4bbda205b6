"""A test that a hook calls: what it must not disturb, and where it can't be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from dowdyboy_core._errors import SetupError
from dowdyboy_core.backend.random_streams import RandomStreams
from dowdyboy_core.backend.seam import Backend
from dowdyboy_core.rand import derive_seed

from .assembly import Assembly


class Interlude:
    """Knows whether a hook is calling, and has a test leave models and random streams as it found them.

    Attributes:
        phase: ``'train'`` or ``'val'`` while ``fit`` runs over those batches, ``'between'`` elsewhere in it, None where
            no ``fit`` is under way.
    """

    def __init__(self, backend: Backend, parts: Assembly, streams: RandomStreams, seed: int) -> None:
        self._backend = backend
        self._parts = parts
        self._streams = streams
        self._seed = seed
        self.phase: str | None = None
        self._testing = False
        self._last: tuple[tuple[int, ...], int] = ((), 0)  # where the last test was, and how many have been there

    def check_fit(self) -> None:
        """Refuses a ``fit`` that a hook calls.

        Raises:
            SetupError: a fit or a test is under way.
        """
        if self._testing or self.phase is not None:
            raise SetupError(
                f"fit was called from a hook of {'test' if self._testing else 'fit'}, which is not over. Call it after "
                "that, or give the hook a Trainer of its own."
            )

    def check_test(self, val_batch: int | None) -> None:
        """Refuses a ``test`` that can't run here; in each process by what it knows, since the others may not come.

        Args:
            val_batch: the number of the validation batch under way in this process.

        Raises:
            SetupError: a test is under way, or processes have no batch like this one.
        """
        if self._testing:
            raise SetupError(
                "test was called from a hook of test, which is not over. Call it again after the first one, or compute "
                "what you need in test_step and on_test_end."
            )
        if self.phase != "val" or self._backend.world_size == 1:
            return
        everywhere = self._parts.loaders["val"].everywhere()
        if everywhere is None or (val_batch or 0) >= everywhere:
            known = "nobody knows how many" if everywhere is None else f"{everywhere}"
            raise SetupError(
                f"test was called from val_step with bat_idx={val_batch}, and {known} of the validation batches are in "
                f"each of the {self._backend.world_size} processes: some would not come to it. Call it from "
                "on_epoch_end."
            )

    @contextmanager
    def undisturbed(self, place: tuple[int, ...]) -> Iterator[None]:
        """Runs a test, and puts back what it changes of models and, where a hook has called it, of random streams.

        Args:
            place: how far the run has come. What the test draws is a function of this and of how many have been here.
        """
        with ExitStack() as stack:
            stack.callback(self._parts.keep_modes())
            if self.phase is not None:
                self._last = (place, self._last[1] + 1 if self._last[0] == place else 0)
                seed = derive_seed(self._seed, "test", self._backend.rank, *place, self._last[1])
                stack.enter_context(self._streams.isolated(seed))
            if self.phase == "train":  # after which, and not in it, the processes are brought to one state
                stack.enter_context(self._backend.aligned(self._parts.models))
            self._testing = True
            try:
                yield
            finally:
                self._testing = False

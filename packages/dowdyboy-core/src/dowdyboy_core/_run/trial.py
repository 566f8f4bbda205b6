"""The first save, tried before the first batch and after the first step: what can't be stored is refused then.

All that a checkpoint would hold is brought into the form that files have, without its data, and nothing is written.
"""

from __future__ import annotations

from dowdyboy_core._disk.files import prepare
from dowdyboy_core._errors import CheckpointError, UnsupportedError
from dowdyboy_core.backend.arrays import without_data

from . import own_state
from .run import Run
from .states import states_of


class Trial:
    """Tries the first save out, twice in a fit.

    Args:
        run: the run.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._before_first = self._after_first = False
        self._steps = 0

    def begin(self) -> None:
        """Has a fit that saves try it out."""
        self._before_first = self._after_first = self._run.config.enable_save_checkpoint

    def before_batches(self) -> None:
        """Tries it before the first batch, in all processes alike.

        Raises:
            CheckpointError: something can't be stored, here or in another process.
        """
        if not self._before_first:
            return
        self._before_first = False
        self._steps = self._run.stepper.steps
        error: Exception | None = None
        try:
            _encode(self._run, "No batch was trained.")
        except Exception as problem:  # whatever it is, the others mustn't wait for this one
            error = problem
        told = self._run.backend.gather(None if error is None else str(error))
        if error is not None:
            raise error
        for rank, text in enumerate(told):
            if text is not None:
                raise CheckpointError(f"Process {rank} can't save what it has: {text}")

    def after_step(self) -> None:
        """Tries it once more when the optimizers have stepped, and so have what they keep.

        Raises:
            CheckpointError: something can't be stored.
        """
        if not self._after_first or (self._run.config.auto_optimize and self._run.stepper.steps == self._steps):
            return
        self._after_first = False
        _encode(self._run, "One step was made.")  # what fails here ends the others, as in a hook


def _encode(run: Run, where: str) -> None:
    try:
        with without_data():
            weights, trees = states_of(run)
            prepare({}, weights, trees | own_state.here(run.backend, run.parts))
    except (CheckpointError, UnsupportedError) as error:
        raise type(error)(
            f"{error} {where} Mend that, or set enable_save_checkpoint=False to train without checkpoints."
        ) from error

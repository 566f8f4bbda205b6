"""The Trainer of the reference; the loop is in :mod:`dowdyboy_core.trainer`."""

from dowdyboy_core import trainer as _core
from dowdyboy_core.trainer import TrainerConfig

from ._backend import NumpyBackend

__all__ = ["Trainer", "TrainerConfig"]


class Trainer(_core.Trainer):
    """Trains, validates, tests, saves and resumes models of :mod:`.framework`, by a few hooks.

    Args:
        config: the settings.
    """

    def __init__(self, config: TrainerConfig) -> None:
        super().__init__(config, NumpyBackend())

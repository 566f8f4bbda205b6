"""The framework-free core of dowdyboy: the training contract, and the utilities around it."""

from dowdyboy_core.backend.points import Point, Tracker
from dowdyboy_core.backend.seam import Backend

from ._config import TrainerConfig
from ._errors import CheckpointError, ConfigError, DowdyboyError, SetupError, UnsupportedError
from ._version import __version__
from .trainer import Trainer

__all__ = [
    "Backend",
    "CheckpointError",
    "ConfigError",
    "DowdyboyError",
    "Point",
    "SetupError",
    "Tracker",
    "Trainer",
    "TrainerConfig",
    "UnsupportedError",
    "__version__",
]

"""The framework-free core of dowdyboy: the training contract, and the utilities around it."""

from ._backend import Backend
from ._config import TrainerConfig
from ._errors import CheckpointError, ConfigError, DowdyboyError, SetupError, UnsupportedError
from ._tracker import Point, Tracker
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

"""dowdyboy on PyTorch: one small training contract, the same as on PaddlePaddle."""

from dowdyboy_core import (
    CheckpointError,
    ConfigError,
    DowdyboyError,
    SetupError,
    TrainerConfig,
    UnsupportedError,
    __version__,
)

from . import _framework  # noqa: F401 - first of all, since it may be too old
from ._distributed import spawn
from ._exchange import register_exchange
from .trainer import Trainer

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DowdyboyError",
    "SetupError",
    "Trainer",
    "TrainerConfig",
    "UnsupportedError",
    "__version__",
    "register_exchange",
    "spawn",
]

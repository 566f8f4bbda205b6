"""The contract as a program: a whole backend on NumPy alone, small enough to read in one sitting.

``framework/`` stands where PyTorch or PaddlePaddle stand in the other backends; the other modules are what one writes
to bind a framework, in the layout that every distribution has. Read ``_backend.py`` first, and then what it calls:
``_state.py``, ``_data.py``, ``_exchange.py``, and for several processes ``_distributed.py`` with ``_sockets.py`` below
it.
docs/new-backend.md goes through them in the order in which one would write them.
"""

from dowdyboy_core import (
    CheckpointError,
    ConfigError,
    DowdyboyError,
    SetupError,
    TrainerConfig,
    UnsupportedError,
    __version__,
)

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

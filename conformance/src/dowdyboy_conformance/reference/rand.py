"""Random numbers; see :mod:`dowdyboy_core.rand`. Here ``set_seed`` seeds the framework's stream as well."""

from dowdyboy_core import rand as _core
from dowdyboy_core.rand import derive_seed, wheel_rand_index, wheel_ratio

from .framework import random as _framework

__all__ = ["derive_seed", "set_seed", "wheel_rand_index", "wheel_ratio"]


def set_seed(seed: int) -> None:
    """Seeds Python's, NumPy's and the framework's global random streams.

    Args:
        seed: an int of at least 0.

    Raises:
        ConfigError: the seed is not such a number.
    """
    _core.set_seed(seed)
    _framework.seed(seed)

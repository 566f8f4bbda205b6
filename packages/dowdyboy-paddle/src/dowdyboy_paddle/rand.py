"""Random numbers; see :mod:`dowdyboy_core.rand`. Here ``set_seed`` seeds PaddlePaddle as well."""

import paddle

from dowdyboy_core import rand as _core
from dowdyboy_core.rand import derive_seed, wheel_rand_index, wheel_ratio

__all__ = ["derive_seed", "set_seed", "wheel_rand_index", "wheel_ratio"]


def set_seed(seed: int) -> None:
    """Seeds Python's, NumPy's and PaddlePaddle's global random streams, the latter on every device.

    Args:
        seed: an int of at least 0.

    Raises:
        ConfigError: the seed is not such a number.
    """
    _core.set_seed(seed)
    paddle.seed(seed % 2**63)

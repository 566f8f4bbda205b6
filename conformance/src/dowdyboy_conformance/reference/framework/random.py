"""The framework's global random stream."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_generator = np.random.Generator(np.random.PCG64(0))


def seed(number: int) -> None:
    """Begins the stream anew."""
    global _generator
    _generator = np.random.Generator(np.random.PCG64(number))


def get_state() -> dict[str, Any]:
    """Where the stream stands: ints and texts in dicts."""
    return dict(_generator.bit_generator.state)


def set_state(state: dict[str, Any]) -> None:
    """Puts the stream where it stood."""
    _generator.bit_generator.state = state


def uniform(low: float, high: float, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Draws float32 numbers from low up to high."""
    return (low + (high - low) * _generator.random(shape)).astype(np.float32)

"""What frameworks keep of the number of steps that an optimizer has made, and back to that number.

PyTorch keeps the number itself. PaddlePaddle keeps powers of the betas, each a product that was rounded at every step:
they are built here as it builds them, so that they are equal to the bit, and read back by looking for the very value.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from dowdyboy_core._errors import CheckpointError
from dowdyboy_core.backend.arrays import Array, to_numpy
from dowdyboy_core.backend.words import Slot

from .arrays import filled

_MOST = 2**20  # steps after which every power of a beta below 0.9999 has come to rest

FUNCTIONS = ("count", "power", "filled_power", "filled_rho")
"""The forms of slots that follow from the number of steps."""


def count_of(slot: Slot, array: Array) -> int | None:
    """The number of steps that a slot tells of; None if it doesn't any more."""
    values = to_numpy(array).reshape(-1)
    if not len(values):
        return None
    if slot.form in ("number", "count"):
        return int(values[0])
    if slot.form not in ("power", "filled_power"):
        return None
    import numpy as np

    powers = _powers(slot.settings["beta"], array.dtype)
    place = len(powers) - int(np.searchsorted(powers[::-1], values[0], side="right"))
    if place >= len(powers) - 1 or powers[place] != values[0]:  # at rest, or made with another beta
        return None
    return place + 1 - int(slot.settings["first"])


def slot_of(slot: Slot, steps: int, dtype: str, shape: tuple[int, ...]) -> Array:
    """A slot that follows from the number of steps.

    Args:
        slot: which.
        steps: how many there were.
        dtype: the type of the optimizer's other slots.
        shape: that of the parameter.

    Raises:
        CheckpointError: there is no such form.
    """
    kept = "F64" if dtype == "F64" else "F32"
    if slot.form == "number":
        return filled(width_of_number(slot, dtype), (), float(steps))
    if slot.form == "count":
        return filled("I64", (1,), steps)
    beta = slot.settings["beta"]
    if slot.form == "power":
        return filled(kept, (1,), _power(beta, kept, steps + int(slot.settings["first"])))
    if slot.form == "filled_power":
        return filled(kept, shape, _power(beta, kept, steps + int(slot.settings["first"])))
    if slot.form == "filled_rho":
        return filled(kept, shape, _rho(beta, kept, steps))
    raise CheckpointError(f"exchange.json names the form {slot.form!r} of a slot, which this version doesn't know.")


def width_of_number(slot: Slot, dtype: str) -> str:
    """The type of a slot that is one number: what its optimizer says, else that of its other slots."""
    if "bits" in slot.settings:
        return "F64" if slot.settings["bits"] == 64 else "F32"
    return "F64" if dtype == "F64" else "F32"


def _power(beta: float, dtype: str, exponent: int) -> float:
    if exponent == 0:
        return 1.0
    powers = _powers(beta, dtype)
    return float(powers[min(exponent, len(powers)) - 1])


@lru_cache(maxsize=32)
def _powers(beta: float, dtype: str) -> Any:
    """beta, beta², … as products that are rounded one after another, until they no longer change."""
    import numpy as np

    kind = np.float64 if dtype == "F64" else np.float32
    length = 2**12
    with np.errstate(under="ignore"):
        while True:
            powers = np.multiply.accumulate(np.full(length, beta, kind))
            if powers[-1] == powers[-2] or length >= _MOST:
                break
            length *= 4
        rest = int(np.argmax(powers[1:] == powers[:-1])) if powers[-1] == powers[-2] else length - 1
    return powers[: rest + 1]


@lru_cache(maxsize=256)
def _rho(beta: float, dtype: str, steps: int) -> float:
    """The sum that RAdam's rectification goes by, as PaddlePaddle's kernel adds it up."""
    import numpy as np

    kind = np.float64 if dtype == "F64" else np.float32
    beta_, one, power, rho = kind(beta), kind(1), kind(1), kind(1)
    rho = kind(0)
    with np.errstate(under="ignore"):
        for _ in range(min(steps, _MOST)):
            power = power * beta_
            rho = (rho * (beta_ - power) + power) / (one - power)
    return float(rho)

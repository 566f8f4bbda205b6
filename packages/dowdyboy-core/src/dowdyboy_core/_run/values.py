"""Values that users give: as numbers, where they are some."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from dowdyboy_core._errors import ConfigError
from dowdyboy_core.backend.seam import Backend


def as_number(value: Any, to_float: Callable[[Any], float]) -> float | None:
    """A number, NumPy scalar or one-element tensor as a float; None if it is nothing of the kind."""
    if isinstance(value, (bool, int, float)):
        return float(value)
    if getattr(value, "ndim", None) == 0 or getattr(value, "size", None) == 1 or hasattr(value, "numel"):
        try:
            return to_float(value)
        except (TypeError, ValueError, RuntimeError):
            return None
    return None


def check_point(values: Any, step: Any) -> None:
    """Refuses what can't be a point of curves.

    Raises:
        ConfigError: the values are no mapping, or the step is no int.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"log got {values!r:.80}, which is no dict. Give {{name: number}}.")
    if isinstance(step, bool) or not isinstance(step, int):
        raise ConfigError(f"log got step={step!r} of type {type(step).__name__}. Give an int.")


def kept_numbers(values: Mapping[str, Any], backend: Backend) -> dict[str, Any]:
    """The values of a point as numbers, or as copies of tensors where reading one waits for the device.

    Raises:
        ConfigError: a name is no str, or a value no number.
    """
    numbers: dict[str, Any] = {}
    for name, value in values.items():
        number = _number_or_tensor(value, backend)
        if number is None or not isinstance(name, str):
            raise ConfigError(
                f"log got {value!r:.80} under the name {name!r}. Give numbers or one-element tensors by names of "
                "type str."
            )
        numbers[name] = number
    return numbers


def _number_or_tensor(value: Any, backend: Backend) -> Any:
    if backend.asynchronous:
        described = backend.describe_tensor(value)
        if described is not None and math.prod(described[1]) == 1 and not described[0].startswith("complex"):
            return backend.keep_tensor(value)
    return as_number(value, backend.to_float)

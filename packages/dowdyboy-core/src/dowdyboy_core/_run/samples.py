"""Records whose first axis counts samples: batches of any size, one tensor of all samples."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from dowdyboy_core._errors import ConfigError
from dowdyboy_core.backend.seam import Backend


def shape_of_samples(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of one sample in a value whose first axis counts them.

    Raises:
        ConfigError: the value has no axis.
    """
    if not shape:
        raise ConfigError(
            f"Record {name!r} got a value of shape () with samples=True, which has no axis that counts samples. Give "
            "one number or array for each sample of the batch, or leave samples=True out."
        )
    return shape[1:]


def check_way(name: str, before: bool, now: bool) -> None:
    """Refuses a name that is recorded by samples and by whole values.

    Raises:
        ConfigError: it is.
    """
    if before != now:
        said, has = ("with samples=True", "without it") if now else ("without samples=True", "with it")
        raise ConfigError(
            f"Record {name!r} got a value {said}; its values so far came {has}. Record a name always in one way, or "
            "give each way a name of its own."
        )


def check_samples(samples: Any) -> None:
    """Refuses what doesn't say whether the first axis counts samples.

    Raises:
        ConfigError: it is no bool.
    """
    if type(samples) is not bool:
        raise ConfigError(
            f"set_records got samples={samples!r:.80}. Give True where the first axis of each value counts samples, "
            "or leave it out."
        )


def join_samples(backend: Backend, values: Sequence[Any], dtype: str) -> Any:
    """One tensor on the device: arrays and tensors one behind the other along their first axis."""
    import numpy as np

    parts: list[Any] = []
    # Arrays go to the device in one piece as far as they follow one another, and tensors are there already.
    for are_arrays, run in groupby(values, key=lambda value: isinstance(value, np.ndarray)):
        if are_arrays:
            joined: Any = np.concatenate([value.astype(dtype) for value in run])
            parts.append(backend.stack(joined, dtype))
        else:
            parts += [backend.cast(backend.to_device(value), dtype) for value in run]
    return backend.concatenate(parts) if len(parts) > 1 else parts[0]

"""Where a run should compute, as it is asked for, before a backend has looked at the machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dowdyboy_core._errors import ConfigError

_DEVICE = re.compile(r"\s*(?:(cpu|gpu|cuda)(?::(\d+))?|(\d+(?:\s*,\s*\d+)*))\s*")


@dataclass(frozen=True)
class DeviceRequest:
    """Where a run should compute, before a backend has looked at the machine.

    Attributes:
        kind: ``'cpu'``, ``'gpu'`` or ``'auto'`` (a GPU if there is one).
        ids: the GPUs that may be used, in the order of the local ranks; empty means all of them.
    """

    kind: str
    ids: tuple[int, ...] = ()


def read_device(device: Any) -> DeviceRequest:
    """What a value of ``TrainerConfig.device`` asks for.

    Raises:
        ConfigError: it is not understood, or names a GPU twice.
    """
    given = device
    if isinstance(given, Sequence) and not isinstance(given, (str, bytes)):
        given = ",".join(str(item) for item in given)
    match = _DEVICE.fullmatch(str(given))
    if match is None or (match[1] == "cpu" and match[2] is not None):
        raise ConfigError(
            f"device={device!r} is not understood. Give None, 'cpu', 'gpu', 'gpu:1', or the GPUs "
            "to use as 1, '0,1' or [0, 1]."
        )
    kind, one, several = match.groups()
    if kind == "cpu":
        return DeviceRequest("cpu")
    listed = [one] if one is not None else several.split(",") if several else []
    ids = tuple(int(item) for item in listed)
    if len(set(ids)) != len(ids):
        raise ConfigError(f"device={device!r} names a GPU twice. Name each GPU once.")
    return DeviceRequest("gpu", ids)

"""Which device of PyTorch a process computes on."""

from __future__ import annotations

import torch

from dowdyboy_core import ConfigError
from dowdyboy_core.backend import DeviceRequest


def choose_device(request: DeviceRequest, local_rank: int) -> torch.device:
    """The device that a process computes on.

    Args:
        request: what the configuration asks for.
        local_rank: the number of the process on its machine.

    Raises:
        ConfigError: there is no such device.
    """
    if request.kind == "cpu" or (request.kind == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if request.ids and local_rank >= len(request.ids):
        raise ConfigError(f"Process {local_rank} of this machine has no GPU among {list(request.ids)}. Name more.")
    number = request.ids[local_rank] if request.ids else local_rank
    if number >= torch.cuda.device_count():
        raise ConfigError(
            f"GPU {number} was asked for, and PyTorch finds {torch.cuda.device_count()}. Name one that is there, or "
            "set cpu=True."
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)

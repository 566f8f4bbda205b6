"""Which device of PaddlePaddle a process computes on."""

from __future__ import annotations

import paddle

from dowdyboy_core import ConfigError
from dowdyboy_core.backend import DeviceRequest


def choose_device(request: DeviceRequest, local_rank: int) -> str:
    """The device that a process computes on.

    Args:
        request: what the configuration asks for.
        local_rank: the number of the process on its machine.

    Raises:
        ConfigError: there is no such device.
    """
    found = paddle.device.cuda.device_count() if paddle.device.is_compiled_with_cuda() else 0
    if request.kind == "cpu" or (request.kind == "auto" and not found):
        return "cpu"
    if request.ids and local_rank >= len(request.ids):
        raise ConfigError(f"Process {local_rank} of this machine has no GPU among {list(request.ids)}. Name more.")
    # The launcher shows each process one GPU only, and then that is the first it finds.
    number = request.ids[local_rank] if request.ids else min(local_rank, max(found - 1, 0))
    if number >= found:
        raise ConfigError(
            f"GPU {number} was asked for, and PaddlePaddle finds {found}. Name one that is there, or set cpu=True."
        )
    return f"gpu:{number}"

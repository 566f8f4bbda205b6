"""Precision on PyTorch: which there is on a device, and the context that a hook runs in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch

_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}

# One for all batches, since it has no state.
_NOTHING: AbstractContextManager[Any] = nullcontext()


def available_precision(asked: str, device: torch.device) -> str:
    """The precision that is in force when ``asked`` is asked for on ``device``."""
    if asked == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "no"
    return asked


class ForwardContexts:
    """Makes the context of a hook: autocast as the precision says, and no gradients for evaluation."""

    def __init__(self, precision: str, device: torch.device) -> None:
        self._dtype = _TYPES.get(precision)
        self._device_type = device.type

    def __call__(self, training: bool) -> AbstractContextManager[Any]:
        """The context of one call of a hook; a new one each time, so that autocast's cache of weights is fresh."""
        if self._dtype is None:
            return _NOTHING if training else torch.no_grad()
        autocast = torch.autocast(self._device_type, dtype=self._dtype)
        return autocast if training else _evaluation(autocast)

    def outside(self) -> AbstractContextManager[Any]:
        """The context of a backward pass called from within a hook: autocast off again."""
        if self._dtype is None:
            return _NOTHING
        return torch.autocast(self._device_type, enabled=False)


@contextmanager
def _evaluation(autocast: torch.autocast) -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(autocast)
        yield

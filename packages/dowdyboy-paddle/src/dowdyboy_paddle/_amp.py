"""Precision on PaddlePaddle: which there is on a device, and the context that a hook runs in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import paddle

_TYPES: dict[str, Any] = {"fp16": "float16", "bf16": "bfloat16"}

# One for all batches, since it has no state.
_NOTHING: AbstractContextManager[Any] = nullcontext()


def available_precision(asked: str, device: str) -> str:
    """The precision that is in force when ``asked`` is asked for on ``device``."""
    if device == "cpu":  # auto_cast warns there and does nothing
        return "no"
    if asked == "fp16" and not paddle.amp.is_float16_supported(device):
        return "no"
    if asked == "bf16" and not paddle.amp.is_bfloat16_supported(device):
        return "no"
    return asked


class ForwardContexts:
    """Makes the context of a hook: autocast as the precision says, and no gradients for evaluation."""

    def __init__(self, precision: str) -> None:
        self._dtype = _TYPES.get(precision)

    def __call__(self, training: bool) -> AbstractContextManager[Any]:
        """The context of one call of a hook."""
        if self._dtype is None:
            return _NOTHING if training else paddle.no_grad()
        autocast: AbstractContextManager[Any] = paddle.amp.auto_cast(dtype=self._dtype)
        return autocast if training else _evaluation(autocast)

    def outside(self) -> AbstractContextManager[Any]:
        """The context of a backward pass called from within a hook: autocast off again."""
        if self._dtype is None:
            return _NOTHING
        off: AbstractContextManager[Any] = paddle.amp.auto_cast(enable=False)
        return off


@contextmanager
def _evaluation(autocast: AbstractContextManager[Any]) -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(paddle.no_grad())
        stack.enter_context(autocast)
        yield

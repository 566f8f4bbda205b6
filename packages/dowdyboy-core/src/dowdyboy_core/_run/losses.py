"""Losses that a run can't go on with: told once, without waiting for the device in a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from dowdyboy_core._errors import SetupError
from dowdyboy_core.backend.arrays import Array
from dowdyboy_core.backend.seam import Backend

from .position import Position
from .stepping import LossScaler
from .values import as_number

_FOLDED_AT = 512  # losses that are kept one by one, before they become one tensor
_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16"}


class Losses:
    """Looks at the losses of training, and tells of the first that is not finite.

    Where reading a number waits for the device, losses are kept, and read when the training of an epoch ends and before
    anything is saved. In fp16 a loss doesn't count whose step was skipped for its overflow.

    Args:
        mode: ``'warn'``, ``'stop'`` or ``'ignore'``.
        backend: the framework.
        scaler: knows which steps were skipped.
        position: where the run stands.
        warn: tells the user.
    """

    def __init__(
        self, mode: str, backend: Backend, scaler: LossScaler, position: Position, warn: Callable[[str], None]
    ) -> None:
        self._mode = mode
        self._backend = backend
        self._scaler = scaler
        self._position = position
        self._warn = warn
        self.begin()

    def begin(self) -> None:
        """Begins a fit."""
        self._looks = self._mode != "ignore"
        self._tells_of_fp16 = self._looks and self._scaler.enabled
        self._scaler.made = self._scaler.tried = self._made_before = self._tried_before = 0
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self._bad: tuple[int, float] | None = None  # step and loss, in the window that is open
        self._kept: list[tuple[int, Any]] = []
        self._closed = 0  # how many of those are of windows that have closed
        self._folded: list[tuple[list[int], Any]] = []

    def note(self, loss: Any, closing: int) -> None:
        """Looks at the loss of a batch, once that is trained.

        Args:
            loss: what ``train_step`` gave.
            closing: above 0 where the batch closes its window.

        Raises:
            SetupError: it is not finite, and the run is to stop.
        """
        if not self._looks:
            return
        if self._backend.asynchronous and self._backend.describe_tensor(loss) is not None:
            self._keep(loss)
        elif self._bad is None:
            number = as_number(loss, self._backend.to_float)
            if number is not None and not math.isfinite(number):
                self._bad = self._position.train_step, number
        if closing:
            self._close()

    def _keep(self, loss: Any) -> None:
        described = self._backend.describe_tensor(loss)
        if described is not None and math.prod(described[1]) == 1:
            self._kept.append((self._position.train_step, self._backend.keep_tensor(loss)))

    def _close(self) -> None:
        if self._scaler.skipped:  # in order: the scale was too large
            self._bad = None
            del self._kept[self._closed :]
        if self._bad is not None:
            self._tell(*self._bad)
        if len(self._kept) >= _FOLDED_AT:
            self._fold()
        self._closed = len(self._kept)

    def _fold(self) -> None:
        """Makes one tensor of the losses that are kept, which are of one shape but for a hook that changes its mind."""
        alike: dict[tuple[int, ...], list[tuple[int, Any]]] = {}
        for step, loss in self._kept:
            described = self._backend.describe_tensor(loss)
            alike.setdefault(described[1] if described else (), []).append((step, loss))
        for group in alike.values():
            tensor = self._backend.stack([loss for _, loss in group], "float32")
            self._folded.append(([step for step, _ in group], tensor))
        self._kept, self._closed = [], 0

    def check(self) -> None:
        """Reads what was kept; called where the device is waited for anyway.

        Raises:
            SetupError: a loss was not finite, and the run is to stop.
        """
        if not (self._kept or self._folded):
            return
        self._fold()
        found: list[tuple[int, float]] = []
        for steps, tensor in self._folded:
            numbers = _numbers(self._backend.tensor_state(tensor))
            found += [(step, number) for step, number in zip(steps, numbers, strict=True) if not math.isfinite(number)]
        self._folded = []
        if found:
            self._tell(*min(found))

    def _tell(self, step: int, number: float) -> None:
        if not self._looks:
            return
        self._looks, self._bad = False, None
        epoch = self._position.running
        told = f"The loss is {number} in epoch {epoch}, step {step}, and the training can't go on from that."
        if self._mode == "stop":
            raise SetupError(
                f"{told} nonfinite='stop' ends the run here, and nothing was saved since. Go on from the last "
                "checkpoint with another learning rate, clip_grad_norm, or without the data of that step."
            )
        self._warn(
            f"{told} Try another learning rate, clip_grad_norm, or look at the data of that step; nonfinite='stop' "
            "ends a run there. This is told once."
        )

    def end_epoch(self, *, last: bool) -> None:
        """Looks back at the training of an epoch.

        Args:
            last: whether it is the last epoch.

        Raises:
            SetupError: something can't go on, and the run is to stop.
        """
        self.check()
        scaler = self._scaler
        made, tried = scaler.made - self._made_before, scaler.tried - self._tried_before
        self._made_before, self._tried_before = scaler.made, scaler.tried
        self._begin_epoch()
        # A scale that is too large at first comes down within a few steps: below 1 it is no longer the scale's fault.
        hopeless = scaler.scale < 1 or (last and not scaler.made)
        if not self._tells_of_fp16 or made or not tried or not hopeless:
            return
        self._tells_of_fp16 = False
        told = (
            f"In fp16 no step was made in epoch {self._position.running}: the gradients of all {tried} steps "
            f"overflowed, down to a loss scale of {scaler.scale:g}. Use mixed_precision='bf16' or 'no', or look at "
            "what the loss is."
        )
        if self._mode == "stop":
            raise SetupError(f"{told} nonfinite='stop' ends the run here.")
        self._warn(told)

    def check_weights(self, weights: Mapping[str, Mapping[str, Array]], trained: Mapping[str, Any]) -> None:
        """Refuses to save weights that are not finite, where the run is to stop for such losses.

        Args:
            weights: what is about to be saved, by the name of the model and the path in it.
            trained: the parameters that are trained, by ``model number, path``.

        Raises:
            SetupError: a weight is not finite.
        """
        if self._mode != "stop":
            return
        for name, arrays in weights.items():
            for path, array in arrays.items():
                place = f"{name.replace('ema_', 'model_').replace('_', ' ')}, {path}"  # an average is of trained ones
                if place in trained and not _finite(array):
                    raise SetupError(
                        f"The weight {path!r} of {name} is not finite in epoch {self._position.running}. "
                        "nonfinite='stop' ends the run here, and does not save it. Go on from the last checkpoint with "
                        "another learning rate or clip_grad_norm."
                    )


def check_not_empty(role: str, epoch: int, batches: int) -> None:
    """Refuses a pass without a batch.

    Raises:
        SetupError: it had none.
    """
    if not batches:
        raise SetupError(
            f"The {role} data has no batch in epoch {epoch}. Give a loader that yields some; with drop_last a "
            "batch_size above the number of samples leaves none."
        )


def _numbers(array: Array) -> list[float]:
    import numpy as np

    numbers: list[float] = np.frombuffer(bytes(array.data), _FLOATS[array.dtype]).tolist()
    return numbers


def _finite(array: Array) -> bool:
    import numpy as np

    if array.dtype == "BF16":  # whose exponent is all ones where it is no number
        return not ((np.frombuffer(array.data, np.uint16) & 0x7F80) == 0x7F80).any()
    known = array.dtype in _FLOATS and memoryview(array.data).nbytes
    return not known or bool(np.isfinite(np.frombuffer(array.data, _FLOATS[array.dtype])).all())

"""What happens between a loss and a step: windows of accumulation, loss scaling and clipping."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from dowdyboy_core._errors import SetupError, UnsupportedError
from dowdyboy_core.backend.seam import Backend


def windows(batches: Iterable[Any], size: int, done: int) -> Iterator[tuple[Any, int]]:
    """Yields each batch with the number of batches in its accumulation window if it closes one, else 0.

    Args:
        batches: the batches of an epoch that are left; read one ahead where ``size`` is above 1, since the last one
            closes its window however many there were.
        size: batches in a full window.
        done: batches of the epoch that came before.
    """
    if size == 1:
        for batch in batches:
            yield batch, 1
        return
    rest = iter(batches)
    end = object()
    batch = next(rest, end)
    while batch is not end:
        following = next(rest, end)
        place = done % size + 1
        yield batch, place if place == size or following is end else 0
        batch, done = following, done + 1


class LossScaler:
    """The loss scale of fp16 training: halved after an overflow, doubled after 2,000 steps without one.

    The rule and its constants are those of torch.amp.GradScaler. The scale moves at most once a training step, however
    many optimizers overflow, and each optimizer skips only for its own gradients.
    """

    INITIAL = 65536.0
    GROWTH_INTERVAL = 2000

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.scale = self.INITIAL if enabled else 1.0
        self._clean_steps = 0
        self._stepped = False
        self._overflowed = False
        self._finite = False
        self.skipped = False  # whether an optimizer skipped its step in the last training step
        self.tried = 0  # training steps in which optimizers were to step
        self.made = 0  # those of them in which one did

    def note(self, finite: bool) -> None:
        """Notes how one optimizer fared in this training step."""
        self._stepped = True
        self._overflowed |= not finite
        self._finite |= finite

    def update(self) -> None:
        """Moves the scale at the end of a training step."""
        self.skipped = self._overflowed
        if not self.enabled or not self._stepped:
            return
        self.tried += 1
        self.made += self._finite
        if self._overflowed:
            self.scale, self._clean_steps = self.scale / 2, 0
        else:
            self._clean_steps += 1
            if self._clean_steps == self.GROWTH_INTERVAL:
                self.scale, self._clean_steps = self.scale * 2, 0
        self._stepped = self._overflowed = self._finite = False

    def state(self) -> dict[str, Any]:
        """Scale and count, as a tree."""
        return {"scale": self.scale, "clean_steps": self._clean_steps}

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes up what ``state`` gave; a run without loss scaling keeps to a scale of 1.

        Raises:
            ValueError: it is no scale.
        """
        scale, clean_steps = float(state["scale"]), int(state["clean_steps"])
        if not 0 < scale < math.inf:
            raise ValueError(f"scale={scale} is no loss scale")
        if self.enabled:
            self.scale, self._clean_steps = scale, clean_steps


class Stepper:
    """Backward and step as the configuration wants them."""

    def __init__(
        self, backend: Backend, accumulate_steps: int, clip_grad_norm: float | None, scaler: LossScaler
    ) -> None:
        self.scaler = scaler
        self._backend = backend
        self._window = accumulate_steps
        self._clip = clip_grad_norm

    def backward(self, loss: Any) -> None:
        """Adds the gradients of a loss, scaled so that a full window adds up to the mean.

        Raises:
            SetupError: the loss can't be differentiated.
        """
        problem = self._backend.loss_problem(loss)
        if problem is not None:
            raise SetupError(
                f"backward got a loss that {problem}. Return the loss of the batch from train_step as a tensor with "
                "one element, computed from the model's output."
            )
        self._backend.backward(loss, self.scaler.scale / self._window)

    def step(self, optimizer: Any, batches: int | None = None) -> bool:
        """Updates an optimizer's parameters, unless its gradients overflowed.

        Args:
            optimizer: the optimizer.
            batches: how many batches have added gradients, if fewer than a full window.

        Returns:
            Whether it stepped.
        """
        factor = self._window / (batches or self._window) / self.scaler.scale
        if factor != 1 or self.scaler.enabled:
            finite = self._backend.scale_gradients(optimizer, factor, check=self.scaler.enabled)
            self.scaler.note(finite)
            if not finite:
                return False
        if self._clip is not None:
            if self._backend.has_sparse_gradients(optimizer):
                raise UnsupportedError(
                    f"clip_grad_norm={self._clip} can't be had with the sparse gradients of "
                    f"{type(optimizer).__name__}. Make the embedding without sparse=True; or leave clip_grad_norm out, "
                    "and clip by the optimizer's own means where it has some (grad_clip in PaddlePaddle)."
                )
            self._backend.clip_gradients(optimizer, self._clip)
        self._backend.step(optimizer)
        return True

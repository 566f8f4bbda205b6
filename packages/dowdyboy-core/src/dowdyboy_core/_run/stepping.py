"""What happens between a loss and a step: windows of accumulation, loss scaling and clipping."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from dowdyboy_core._errors import SetupError, UnsupportedError
from dowdyboy_core.backend.seam import Backend

from .counts import Counts
from .unscaled import Unscaled


def windows(batches: Iterable[Any], size: int) -> Iterator[tuple[Any, int]]:
    """Yields each batch with the number of batches in its accumulation window if it closes one, else 0.

    The first batch opens a window, also where a run goes on within an epoch: it is saved only where none is open.

    Args:
        batches: the batches of an epoch that are left; read one ahead within a window, since the last one closes its
            window however many there were.
        size: batches in a full window.
    """
    if size == 1:
        for batch in batches:
            yield batch, 1
        return
    rest = iter(batches)
    end = object()
    batch, done = next(rest, end), 0
    while batch is not end:
        place = done % size + 1
        if place == size:  # nothing is read ahead where a run may be saved: a loader's own state is of what it gave
            yield batch, place
            following = next(rest, end)
        else:
            following = next(rest, end)
            yield batch, place if following is end else 0
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
    """Backward and step as the configuration wants them.

    Attributes:
        scaler: the loss scale.
        steps: how many steps optimizers have made, but for those that they skipped.
        steps_of: the same of each optimizer.
    """

    def __init__(
        self,
        backend: Backend,
        accumulate_steps: int,
        clip_grad_norm: float | None,
        scaler: LossScaler,
        *,
        clip_grad_value: float | None = None,
    ) -> None:
        self.scaler = scaler
        self.steps = 0
        self.steps_of = Counts()
        self._backend = backend
        self._window = accumulate_steps
        self._clips = [
            (f"{name}={bound}", bound, clip)
            for name, bound, clip in (
                ("clip_grad_norm", clip_grad_norm, self._clip_norm),
                ("clip_grad_value", clip_grad_value, self._clip_values),
            )
            if bound is not None
        ]
        self._unscaled = Unscaled()

    def backward(self, loss: Any, factor: float | None = None) -> None:
        """Adds the gradients of a loss, scaled so that a full window adds up to the mean.

        Args:
            loss: the loss.
            factor: what it is multiplied by instead.

        Raises:
            SetupError: the loss can't be differentiated.
        """
        self.check(loss)
        self._backend.backward(loss, self.scaler.scale / self._window if factor is None else factor)
        self._unscaled.note_backward()

    def check(self, loss: Any) -> None:
        """Refuses what can't be differentiated.

        Raises:
            SetupError: it can't.
        """
        problem = self._backend.loss_problem(loss)
        if problem is not None:
            raise SetupError(
                f"backward got a loss that {problem}. Return the loss of the batch from train_step as a tensor with "
                "one element, computed from the model's output."
            )

    def zero_grad(self, optimizer: Any) -> None:
        """Clears the gradients of an optimizer's parameters, and what is known of them."""
        self._unscaled.forget(optimizer)
        self._backend.zero_grad(optimizer)

    def unscale(self, optimizer: Any) -> None:
        """Takes the loss scale out of an optimizer's gradients, once until it steps.

        Raises:
            SetupError: scaled gradients were added to unscaled ones.
        """
        if self.scaler.enabled and self._unscaled.finite(optimizer) is None:
            finite = self._backend.scale_gradients(optimizer, 1 / self.scaler.scale, check=True)
            self.scaler.note(finite)
            self._unscaled.note(optimizer, finite=finite)

    def step(self, optimizer: Any, batches: int | None = None, *, factor: Any = None) -> bool:
        """Updates an optimizer's parameters, unless its gradients overflowed.

        Args:
            optimizer: the optimizer.
            batches: how many batches have added gradients, if fewer than a full window.
            factor: what the gradients are to be multiplied by, where that is not the full window over these and the
                loss scale; it may be on a device.

        Returns:
            Whether it stepped.
        """
        finite = self._unscaled.finite(optimizer)
        self._unscaled.forget(optimizer)
        if factor is None:
            factor = self._window / (batches or self._window) / self.scaler.scale
        as_it_is = isinstance(factor, float) and factor == 1
        if finite is None and not (as_it_is and not self.scaler.enabled):
            finite = self._backend.scale_gradients(optimizer, factor, check=self.scaler.enabled)
            self.scaler.note(finite)
        if finite is False:
            return False
        self._clip(optimizer)
        self._backend.step(optimizer)
        self.steps += 1
        self.steps_of[optimizer] += 1
        return True

    def step_with(self, optimizer: Any, closure: Callable[[], Any]) -> bool:
        """Has an optimizer compute the loss by a closure, as often as it likes, and update its parameters.

        Args:
            optimizer: the optimizer.
            closure: adds the gradients of the loss, and gives it; they are clipped each time.

        Returns:
            That it stepped.
        """

        def clipped() -> Any:
            loss = closure()
            self._clip(optimizer)
            return loss

        self._backend.step_with(optimizer, clipped)
        self.steps += 1
        self.steps_of[optimizer] += 1
        return True

    def _clip(self, optimizer: Any) -> None:
        for setting, bound, clip in self._clips:
            if self._backend.has_sparse_gradients(optimizer):
                raise UnsupportedError(
                    f"{setting} can't be had with the sparse gradients of {type(optimizer).__name__}. Make the "
                    f"embedding without sparse=True; or leave {setting.partition('=')[0]} out, and clip by the "
                    "optimizer's own means where it has some (grad_clip in PaddlePaddle)."
                )
            clip(optimizer, bound)

    def _clip_norm(self, optimizer: Any, bound: float) -> None:
        self._backend.clip_gradients(optimizer, bound)

    def _clip_values(self, optimizer: Any, bound: float) -> None:
        self._backend.clip_gradient_values(optimizer, bound)

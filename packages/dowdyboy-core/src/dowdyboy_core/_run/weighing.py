"""Weights of batches: a window whose gradient is that of the weighted mean of its losses, over all processes."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

from dowdyboy_core._errors import SetupError
from dowdyboy_core.backend.seam import Backend
from dowdyboy_core.backend.weights import Weights

from .assembly import Assembly
from .stepping import Stepper
from .values import as_number

_AS_IT_IS: AbstractContextManager[Any] = nullcontext()

_HOW = (
    "Return the loss, or (loss, weight) with a weight that is a number of at least 0 or a tensor of one element "
    "without a gradient, such as how many tokens or samples the batch has."
)


class Weighing:
    """Takes the weights that ``train_step`` gives, and has each gradient count by its share of their sum.

    Where a window is one batch, the sum is known before the backward pass, and so is the share. Else the loss is
    multiplied by its weight over a unit, the power of two next to the mean weight of the window before, and the
    gradients by the rest once the window is over: so fp16 sees numbers of about the size that it sees without weights,
    and since the unit is a power of two it shows in no result. A weight on a device is never read.

    Args:
        backend: the framework.
        window: how many batches a full window has.
        parts: has the optimizers.
        stepper: does the backward passes.

    Attributes:
        rest: what gradients are still to be multiplied by when the window is over; None without weights.
        unit: the unit of the window that comes next; None before the first weight.
    """

    def __init__(self, backend: Backend, window: int, parts: Assembly, stepper: Stepper) -> None:
        self._backend = backend
        self._window = window
        self._parts = parts
        self._stepper = stepper
        self.unit: Any = None
        self.begin()

    @cached_property
    def _weights(self) -> Weights:
        return self._backend.weights()

    def begin(self) -> None:
        """Begins a fit."""
        self._given: bool | None = None  # whether the batches of this fit have weights
        self._open: list[Any] = []  # the weights of the window so far
        self._seen: Any = None
        self.rest: Any = None

    # ---- what train_step gives

    def split(self, given: Any) -> tuple[Any, Any]:
        """The loss and its weight, None if it has none.

        Raises:
            SetupError: it is neither a loss nor a loss with a weight, or some batches have weights and others none.
        """
        has_weight = type(given) is tuple
        if has_weight is not self._given:
            self._agree(has_weight)
        if not has_weight:
            return given, None
        if len(given) != 2:
            raise SetupError(f"train_step gave a tuple of {len(given)}. {_HOW}")
        return given[0], self._number(given[1])

    def _agree(self, has_weight: bool) -> None:
        if self._given is None:  # nor could one process wait for the weights of another that has none
            some, none = self._backend.largest([int(has_weight), int(not has_weight)])
            if not (some and none):
                self._given = has_weight
                return
        raise SetupError(
            "train_step gave a weight with some batches and none with others. Return (loss, weight) for each batch of "
            "a fit, in all processes, or the loss alone; a weight of 1.0 is one, too."
        )

    def _number(self, weight: Any) -> Any:
        number: Any = None
        if self._readable(weight):
            waits = self._backend.asynchronous and self._backend.describe_tensor(weight) is not None
            number = self._weights.kept(weight) if waits else as_number(weight, self._backend.to_float)
        if number is None or (isinstance(number, float) and not 0 <= number < math.inf):
            raise SetupError(f"train_step gave the weight {weight!r:.80} of type {type(weight).__name__}. {_HOW}")
        return number

    def _readable(self, weight: Any) -> bool:
        """Whether it is of a kind that can be a weight."""
        described = self._backend.describe_tensor(weight)
        if described is None:
            kind = getattr(getattr(weight, "dtype", None), "kind", "f")  # of NumPy
            return not isinstance(weight, bool) and kind in "iuf" and as_number(weight, float) is not None
        kind, shape = described
        if math.prod(shape) != 1 or not kind.startswith(("int", "uint", "float", "bfloat")):
            return False
        return self._backend.loss_problem(weight) is not None  # one that has a graph is a second loss

    def check_by_hand(self, given: Any) -> None:
        """Refuses a weight where hooks step: nothing would come of it.

        Raises:
            SetupError: ``train_step`` gave a loss and a weight.
        """
        if type(given) is not tuple or len(given) != 2 or self._backend.loss_problem(given[0]) is not None:
            return
        if self._readable(given[1]):
            raise SetupError(
                f"train_step gave a loss with the weight {given[1]!r:.80}, and with auto_optimize=False it "
                "differentiates its losses itself: nothing would come of the weight. Give trainer.backward the loss "
                "times its weight over the sum of the weights, and return the loss alone; or set auto_optimize=True."
            )

    # ---- what comes of it

    def backward(self, loss: Any, weight: Any, closing: int) -> None:
        """Adds the gradients of a loss that counts by its weight.

        Args:
            loss: the loss.
            weight: what ``split`` made of its weight.
            closing: how many batches the window has, if this one closes it, else 0.
        """
        self._stepper.check(loss)
        share = self._share(weight, closing)
        if isinstance(share, float):
            self._seen = loss if share else 0.0
            factor = share * self._stepper.scaler.scale
        else:
            factor = 1.0
            loss = self._seen = self._weights.times(loss, self._weights.ratio(share, 1.0, self._stepper.scaler.scale))
        with _AS_IT_IS if isinstance(share, float) and share else self._weights.masked(self._trained(), share):
            self._stepper.backward(loss, factor)

    def step(self, optimizer: Any, closing: int) -> bool:
        """Updates an optimizer's parameters at the end of a window, unless its gradients overflowed; whether it did."""
        if self.rest is None:
            return self._stepper.step(optimizer, closing)
        factor = self._weights.ratio(self.rest, 1.0, 1 / self._stepper.scaler.scale)
        return self._stepper.step(optimizer, factor=factor)

    def seen(self, loss: Any) -> Any:
        """What a look for losses that are not finite is to see: of one that doesn't count, nothing."""
        return loss if self._given is not True else self._seen

    def _share(self, weight: Any, closing: int) -> Any:
        """What the loss is multiplied by in its backward pass, but for the loss scale."""
        weights, processes = self._weights, self._backend.world_size
        if self._window == 1:
            self.rest = 1.0
            return weights.ratio(weight, weights.total([weight]), processes)
        if self.unit is None:
            self.unit = weights.power_of_two(weights.ratio(weights.total([weight]), 1.0, 1 / processes), 1.0)
        self._open.append(weight)
        share, unit = weights.ratio(weight, self.unit, 1 / self._window), self.unit
        if closing:
            total, self._open = weights.total(self._open), []
            self.rest = weights.ratio(unit, total, self._window * processes)
            self.unit = weights.power_of_two(weights.ratio(total, 1.0, 1 / (closing * processes)), unit)
        return share

    def _trained(self) -> list[Any]:
        parameters = (item for optimizer in self._parts.optimizers for item in self._optimized(optimizer))
        return list({id(item): item for item in parameters if self._backend.wants_gradient(item)}.values())

    def _optimized(self, optimizer: Any) -> Any:
        return self._backend.optimizer_parameters(optimizer)

    # ---- state

    def state(self) -> dict[str, float]:
        """What a run that goes on has to know, to be kept beside the loss scale; nothing without weights."""
        if self.unit is None:
            return {}
        return {"weight_unit": self.unit if isinstance(self.unit, float) else self._backend.to_float(self.unit)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes up what ``state`` gave.

        Raises:
            ValueError: it is no unit.
        """
        unit = state.get("weight_unit")
        if unit is not None and not (isinstance(unit, float) and 0 < unit < math.inf):
            raise ValueError(f"weight_unit={unit!r} is no unit of weights")
        self.unit = unit

"""An exponential moving average of the weights: what is averaged, when it moves, and when it takes their place."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dowdyboy_core._errors import CheckpointError, ConfigError, SetupError
from dowdyboy_core.backend.seam import Backend

from .assembly import Assembly
from .stepping import Stepper


class Averaging:
    """Keeps an average of the trained parameters of all models; without a decay it does nothing.

    A parameter belongs to it from the first epoch on in which it is trained, and stays in it: one that is frozen later
    is what its average comes to. The values of the average are exchanged with those of the parameters, in place, where
    something is to be computed or copied with them.

    Args:
        decay: how much of itself the average keeps at each step; None for no average.
        backend: the framework.
        parts: has the models.
        stepper: counts the steps of the optimizers.
        warn: says what the user should know.
    """

    def __init__(
        self,
        decay: float | None,
        backend: Backend,
        parts: Assembly,
        stepper: Stepper,
        warn: Callable[[str], None],
    ) -> None:
        self.decay = decay
        self._backend = backend
        self._parts = parts
        self._stepper = stepper
        self._warn = warn
        self._parameters: dict[str, Any] = {}  # by the number of their model and their path in it
        self._average: list[Any] = []  # in the same order; empty until an optimizer has stepped
        self._updates = 0
        self._seen = 0  # steps of optimizers that the average has taken note of
        self._in_place = False

    # ---- when it moves

    def restart(self) -> None:
        """Forgets all, the models as they are now being those that are trained."""
        self._put(False)
        self._parameters, self._average, self._updates = {}, [], 0

    def restart_from_weights(self) -> None:
        """Begins with the weights as they are, which count as those after a first step."""
        self.restart()
        if self.decay is not None:
            self.begin_epoch(resumed=False)
            self._average, self._updates = self._backend.copy_parameters(list(self._parameters.values())), 1

    def begin_epoch(self, *, resumed: bool) -> None:
        """Takes in what is trained by now, with the value that it has.

        Args:
            resumed: whether the epoch had begun before, and what is averaged in it is known.
        """
        self._seen = self._stepper.steps
        if self.decay is None or (resumed and self._parameters):
            return
        kept = dict(zip(self._parameters, self._average, strict=False))
        known, average = {}, []
        for name, parameter in self._all_parameters():
            if self._parameters.get(name) is not parameter:  # a layer that was exchanged is new, too
                if not self._backend.wants_gradient(parameter):
                    continue
                kept.pop(name, None)
            known[name] = parameter
            if self._updates:
                average.append(kept[name] if name in kept else self._backend.copy_parameters([parameter])[0])
        self._parameters, self._average = known, average

    def after_batch(self) -> None:
        """Moves the average if an optimizer has stepped since the last batch; the first time it is the weights."""
        if self.decay is None or self._stepper.steps == self._seen:
            return
        self._seen = self._stepper.steps
        live = list(self._parameters.values())
        if self._updates:
            self._backend.average_parameters(self._average, live, self.decay)
        else:
            self._average = self._backend.copy_parameters(live)
        self._updates += 1

    def end_training(self, ep: int) -> None:
        """Tells where there is no average after the training batches of an epoch."""
        if self.decay is not None and not self._updates:
            self._warn(
                f"ema_decay={self.decay} and no optimizer has stepped by the end of epoch {ep}: there is no average "
                "yet, and the weights themselves are used. With auto_optimize=False step by trainer.step(optimizer), "
                "which counts."
            )

    # ---- when it takes the weights' place

    def copies(self) -> list[Any]:
        """Copies of the models with the average; with the weights, as long as there is none.

        Raises:
            SetupError: no average is kept.
            ConfigError: a model can't be copied.
        """
        if self.decay is None:
            raise SetupError(
                "get_ema_models was called and no average of the weights is kept: ema_decay is None. Set "
                "TrainerConfig(ema_decay=0.999), say."
            )
        with self.applied():
            return [_copied(model) for model in self._parts.raw_models()]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Has the models hold the average, as soon as there is one."""
        before = self._in_place
        self._put(True)
        try:
            yield
        finally:
            self._put(before)

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Has the models hold what is trained."""
        before = self._in_place
        self._put(False)
        try:
            yield
        finally:
            self._put(before)

    def _put(self, wanted: bool) -> None:
        if self._in_place == wanted or not self._updates:
            return
        # In training mode, since a module may work its parameters into one another for evaluation, and out again after.
        put_back = self._parts.keep_modes()
        self._parts.set_training(True)
        try:
            self._backend.swap_parameters(self._average, list(self._parameters.values()))
            self._in_place = wanted
        finally:
            put_back()

    # ---- state

    def state(self) -> dict[str, Any]:
        """What a checkpoint says of it, besides the values."""
        return {"decay": self.decay, "updates": self._updates, "parameters": list(self._parameters)}

    def check(self, state: Mapping[str, Any]) -> None:
        """Refuses what is no state of an average of these models.

        Raises:
            CheckpointError: it isn't.
        """
        updates, names = state.get("updates"), state.get("parameters")
        known = {name for name, _ in self._all_parameters()}
        if type(updates) is not int or not 0 <= updates < 2**63 or not isinstance(names, list):
            raise CheckpointError("ema.json says nothing of the right kind. Use another checkpoint.")
        strangers = [name for name in names if not isinstance(name, str) or name not in known]
        if strangers:
            raise CheckpointError(
                f"ema.json names {strangers[0]!r:.80} as averaged, which no model has as a parameter ({len(strangers)} "
                "in all). Give set_models the models that were saved."
            )

    def load(self, state: Mapping[str, Any], put_average: Callable[[], None]) -> None:
        """Takes up such a state.

        Args:
            state: what ``state`` gave.
            put_average: gives the models the stored average; what is trained has to follow after this.
        """
        self.restart()
        self.check(state)
        names = set(state["parameters"])
        self._parameters = {name: parameter for name, parameter in self._all_parameters() if name in names}
        self._updates = int(state["updates"])
        if self._updates:
            put_average()
            self._average = self._backend.copy_parameters(list(self._parameters.values()))

    def _all_parameters(self) -> Iterator[tuple[str, Any]]:
        seen = set()
        for name, parameter in self._parts.named_parameters():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter


def _copied(model: Any) -> Any:
    try:
        return copy.deepcopy(model)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"get_ema_models can't copy a {type(model).__name__}: {error}. Keep what can't be copied out of the model, "
            "or read ema_I.safetensors of a checkpoint, which load_checkpoint(folder, weights_only=True, ema=True) "
            "loads."
        ) from error

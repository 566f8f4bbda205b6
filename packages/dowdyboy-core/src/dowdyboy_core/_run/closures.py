"""Steps of optimizers that compute the loss themselves, several times if they like: LBFGS, SAM and their kind."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from dowdyboy_core._config import TrainerConfig
from dowdyboy_core._errors import ConfigError, UnsupportedError
from dowdyboy_core.backend.seam import Backend

from .refused import problem_of_call
from .stepping import Stepper


def stepping_by_hand(
    config: TrainerConfig, backend: Backend, stepper: Stepper, optimizer: Any, closure: Callable[[], Any] | None
) -> Callable[[Any], bool]:
    """What steps an optimizer for a hook, and gives whether it did.

    Args:
        config: the settings.
        backend: the framework.
        stepper: steps.
        optimizer: which is to be stepped.
        closure: clears the gradients, computes the loss and its gradients, and gives the loss; None where the
            gradients are there.

    Raises:
        ConfigError: the optimizer wants a closure and there is none, or takes none; or the settings rule it out.
        UnsupportedError: there are several processes.
    """
    kind: Any = type(optimizer)
    if closure is None:
        wanted = None if optimizer is None else _refuses(kind, 0)
        if wanted is not None:
            raise ConfigError(
                f"step got {kind.__name__} and no closure, which its step{wanted} wants. Give closure=..., a "
                "function that clears the gradients, calls trainer.backward(loss) and gives the loss."
            )
        return stepper.step
    if optimizer is None or not callable(closure):
        raise ConfigError(
            f"step got closure={closure!r:.80} for {_named(optimizer)}. Give a function and an optimizer."
        )
    if config.auto_optimize:
        raise ConfigError("step got a closure with auto_optimize=True, which steps by itself. Set auto_optimize=False.")
    if config.mixed_precision == "fp16":
        raise ConfigError(
            "step got a closure with mixed_precision='fp16': what an optimizer computes within a step can't be "
            "unscaled. Use mixed_precision='bf16' or 'no'."
        )
    taken = _refuses(kind, 1)
    if taken is not None:
        raise ConfigError(f"step got a closure for {kind.__name__}, whose step{taken} takes none. Leave closure out.")
    if backend.world_size > 1:
        raise UnsupportedError(
            f"step got a closure in one of {backend.world_size} processes. Each would see the loss of its own data "
            "there, and take another path. Train in one process, or with an optimizer that needs no closure."
        )
    return partial(stepper.step_with, closure=closure)


@lru_cache(maxsize=64)
def _refuses(kind: Any, count: int) -> str | None:
    """The signature of a kind's ``step``, as text, if it can't be called with so many arguments."""
    problem = problem_of_call(getattr(kind, "step", None), None, *[None] * count)
    return None if problem is None else problem[0]


def _named(optimizer: Any) -> str:
    return "no optimizer" if optimizer is None else type(optimizer).__name__

"""What can't be right and is refused before any work is lost: schedulers, loaders and optimizers that are none."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dowdyboy_core._config import TrainerConfig
from dowdyboy_core._errors import ConfigError, SetupError
from dowdyboy_core.backend.seam import Backend


def check_scheduler(number: int, scheduler: Any, config: TrainerConfig, backend: Backend) -> None:
    """Refuses what is no scheduler, or none that the trainer can step.

    Raises:
        ConfigError: it is a class, has no ``step``, or one that wants something else than the trainer gives.
    """
    named = f"Scheduler {number}, {short(scheduler)},"
    advice = "Give a scheduler that was made for the optimizer, or None."
    if isinstance(scheduler, type):
        raise ConfigError(
            f"Scheduler {number} is the class {scheduler.__name__}. Make a scheduler of it, for the optimizer that it "
            "is to drive."
        )
    if isinstance(scheduler, (Sequence, Mapping)) and not isinstance(scheduler, str):
        raise ConfigError(
            f"{named} is no scheduler. Give one for each optimizer; several that follow or drive one another are "
            "joined by the framework's own, such as SequentialLR or LinearWarmup."
        )
    if backend.is_optimizer(scheduler) or backend.is_model(scheduler):
        raise ConfigError(f"{named} is no scheduler. {advice}")
    if not callable(getattr(scheduler, "step", None)):
        raise ConfigError(f"{named} is no scheduler: it has no step(). {advice}")
    follows = backend.plateau_mode(scheduler) is not None
    problem = problem_of_call(scheduler.step, *([0.0] if follows else []))
    if problem is not None and config.auto_schedule:
        called = "(value)" if follows else "()"
        raise ConfigError(
            f"{named} has step{problem[0]}, which can't be called with {called}, as the trainer does "
            "once an epoch. Set auto_schedule=False and step it yourself, for example in on_epoch_end."
        )


def check_optimizers(optimizers: Sequence[Any], config: TrainerConfig) -> None:
    """Refuses an optimizer that is there twice, and one that computes the loss itself where it can't.

    Raises:
        ConfigError: it is one of these.
    """
    for number, optimizer in enumerate(optimizers):
        before = next(place for place, other in enumerate(optimizers) if other is optimizer)
        if before != number:
            raise ConfigError(
                f"Optimizer {number} is optimizer {before} again, which would step twice. Give each optimizer once."
            )
        problem = problem_of_call(getattr(type(optimizer), "step", None), optimizer)
        if problem is None:
            continue
        named = f"Optimizer {number}, {short(optimizer)}, wants more than its gradients: step{problem[0]}."
        if config.mixed_precision == "fp16":
            raise ConfigError(
                f"{named} What it computes within a step can't be unscaled in fp16. Use mixed_precision='bf16' or 'no'."
            )
        if config.auto_optimize:
            raise ConfigError(
                f"{named} auto_optimize=True can't give it. Set auto_optimize=False, and call "
                "trainer.step(optimizer, closure=...) in train_step."
            )


def check_shared(optimizers: Sequence[Sequence[Any]], names: Mapping[int, str], config: TrainerConfig) -> None:
    """Refuses optimizers that share a parameter where its gradient would be rescaled for each of them.

    Args:
        optimizers: the parameters of each.
        names: of all parameters, by their ids.
        config: the settings.

    Raises:
        SetupError: they do.
    """
    causes = {
        "mixed_precision='fp16'": config.mixed_precision == "fp16",
        f"accumulate_steps={config.accumulate_steps}": config.accumulate_steps > 1,
        f"clip_grad_norm={config.clip_grad_norm}": config.clip_grad_norm is not None,
        f"clip_grad_value={config.clip_grad_value}": config.clip_grad_value is not None,
    }
    rescaling = [cause for cause, given in causes.items() if given]
    if not rescaling or not config.auto_optimize:
        return
    owners: dict[int, int] = {}
    for number, parameters in enumerate(optimizers):
        for key in {id(parameter): None for parameter in parameters}:
            if owners.setdefault(key, number) != number:
                raise SetupError(
                    f"Optimizers {owners[key]} and {number} share the parameter {names[key]!r}, whose gradient each of "
                    f"them would rescale for {rescaling[0]}. Give each parameter to one optimizer, or set "
                    "auto_optimize=False and clear, differentiate and step for each of them in turn."
                )


def check_loader(role: str, loader: Any, is_loader: Callable[[Any], bool]) -> None:
    """Refuses several loaders in the place of one.

    Raises:
        ConfigError: it is a mapping, or a list or tuple of the framework's loaders.
    """
    advice = (
        f"Give set_{role}_dataloader one object, for example one whose __iter__ yields the batches of all, or pairs of "
        "them by zip."
    )
    if isinstance(loader, Mapping):
        raise ConfigError(
            f"set_{role}_dataloader got a {type(loader).__name__} with the keys {list(loader)!r:.80}, which is what it "
            f"yields. {advice}"
        )
    if isinstance(loader, (list, tuple)) and any(is_loader(item) for item in loader[:8]):
        raise ConfigError(f"set_{role}_dataloader got a {type(loader).__name__} of loaders. {advice}")


def problem_of_call(function: Any, *given: Any) -> tuple[str] | None:
    """The signature of a function that can't be called with these, as text; None if it can, or nobody knows."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    try:
        signature.bind(*given)
    except TypeError:
        wanted = [str(item.replace(annotation=item.empty)) for item in signature.parameters.values()]
        return (f"({', '.join(wanted[len(wanted) and wanted[0] == 'self' :])})",)
    return None


def short(value: object) -> str:
    """A value for a message: its repr if that is one short line, and its type."""
    kind = type(value).__name__
    if not isinstance(value, (str, int, float, dict, list, tuple)):
        return f"an object of type {kind}"  # whose repr has an address in it, or many lines
    text = repr(value)
    return f"{text[:80]}{'…' if len(text) > 80 else ''} of type {kind}"

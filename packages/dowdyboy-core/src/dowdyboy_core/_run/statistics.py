"""The statistics of BatchNorm computed anew, for weights that no batch was ever computed with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dowdyboy_core._errors import ConfigError, SetupError
from dowdyboy_core.backend.together import in_step, meet
from dowdyboy_core.rand import derive_seed

from .assembly import check_hook
from .run import Run

_SAID = "trainer, bat"


def update_statistics(
    trainer: Any, loader: Any, step: Callable[[Any, Any], Any] | None, run: Run, phase: str | None
) -> None:
    """Runs the models over all of a loader in training mode, and has their statistics be the mean over its batches.

    Args:
        trainer: what ``step`` is called with.
        loader: the data; the same for every process, and so for no process another part.
        step: calls the models; None to call the one that there is.
        run: has the models.
        phase: what ``fit`` is at; None where none is under way.

    Raises:
        ConfigError: ``step`` can't be called, or the data can't be iterated over.
        SetupError: there is no model, or more than one without ``step``; there is no batch; or batches are under way.
    """
    backend, parts = run.backend, run.parts
    if step is not None:
        check_hook("step", step, _SAID)
    if phase not in (None, "between"):
        raise SetupError(
            "update_bn was called from train_step, val_step or test_step, whose batches need the statistics as they "
            "are. Call it in on_epoch_end or after fit."
        )
    if not parts.models:
        raise SetupError("update_bn needs a model. Call set_model or set_models first.")
    if step is None and len(parts.models) > 1:
        raise SetupError(
            f"update_bn can't tell which of the {len(parts.models)} models a batch is for. Give step(trainer, bat), "
            "which calls them."
        )
    if not hasattr(loader, "__iter__") or isinstance(loader, (str, bytes)):
        raise ConfigError(f"update_bn got {loader!r:.80}, which yields no batches. Give a DataLoader or a list.")
    meet(backend.gather, backend.rank, "update_bn")
    put_back = parts.keep_modes()
    seed = derive_seed(run.config.seed, "update_bn")
    try:
        with in_step(backend.world_size), run.averaging.applied(), run.streams.isolated(seed):
            parts.set_training(True)
            with backend.statistics_anew(parts.raw_models()):
                _run_over(trainer, loader, step, run)
            backend.align_untrained(parts.models)
    finally:
        put_back()


def _run_over(trainer: Any, loader: Any, step: Callable[[Any, Any], Any] | None, run: Run) -> None:
    batches = 0
    for bat in loader:
        moved = run.backend.to_device(bat)
        with run.backend.forward_context(False):
            if step is not None:
                step(trainer, moved)
            else:
                run.parts.models[0](moved[0] if isinstance(moved, (list, tuple)) else moved)
        batches += 1
    if not batches:
        raise SetupError("update_bn got data without a batch. Give a loader that yields some.")

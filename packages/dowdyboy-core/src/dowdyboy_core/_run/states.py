"""What every process of a run has alike: the states of models, optimizers and schedulers."""

from __future__ import annotations

from typing import Any

from dowdyboy_core._disk.files import Weights
from dowdyboy_core._errors import UnsupportedError
from dowdyboy_core.backend.seam import Backend

from . import frozen
from .assembly import Assembly
from .run import Run


def states_of(run: Run) -> tuple[dict[str, Weights], dict[str, Any]]:
    """What every process has alike, as it is in the models now: the weights, and the trees, by the names of files."""
    backend, parts = run.backend, run.parts
    weights, trees = model_states(backend, parts, "model"), dict[str, Any]()
    for place, component in parts.modules_of_components().items():
        buffers = backend.model_state(component)
        if buffers:
            weights[f"component_{place}"] = buffers
    names = parts.parameter_names()
    for place, (optimizer, scheduler) in enumerate(zip(parts.optimizers, parts.schedulers, strict=True)):
        trees[f"optimizer_{place}"] = backend.optimizer_state(optimizer, names)
        trees[f"lr_scheduler_{place}"] = None if scheduler is None else backend.scheduler_state(scheduler)
    trees["scaler"] = run.scale_state()
    trees["frozen"] = frozen.frozen_names(backend, parts)
    trees["script"] = run.script.state()
    return weights, trees


def model_states(backend: Backend, parts: Assembly, stem: str) -> dict[str, Weights]:
    """The weights of all models as they are now, by the names of files."""
    return {f"{stem}_{place}": backend.model_state(model) for place, model in enumerate(parts.raw_models())}


def check_resumable(run: Run) -> None:
    """Refuses what no checkpoint would bring back.

    Raises:
        UnsupportedError: an optimizer has state that can't be saved.
    """
    for number, optimizer in enumerate(run.parts.optimizers):
        problem = run.backend.unsaved_state(optimizer)
        if problem is not None:
            raise UnsupportedError(
                f"Optimizer {number}, a {type(optimizer).__name__}, can't be resumed: {problem}. Take another "
                "optimizer, or set enable_save_checkpoint=False to train without checkpoints."
            )

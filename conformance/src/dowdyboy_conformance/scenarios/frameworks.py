"""Long training in many ways, to be compared from framework to framework."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dowdyboy_conformance._problem import CLASSES, FEATURES, HIDDEN, Run, build, layers
from dowdyboy_conformance.harnesses.harness import Harness

STEPS = 200  # at least, of each process

WAYS: dict[str, dict[str, Any]] = {
    "sgd with a step schedule": {"lr": 0.5, "schedule": "step", "auto_schedule": False},
    "momentum, clipped": {"optimizer": "momentum", "lr": 0.05, "clip_grad_norm": 0.2},
    "adam with a plateau schedule": {"optimizer": "adam", "lr": 0.05, "schedule": "plateau", "val_interval": 1},
    "adamw in clipped windows": {"optimizer": "adamw", "lr": 0.05, "accumulate_steps": 3, "clip_grad_norm": 0.5},
    "two optimizers": {"optimizer": "momentum", "lr": 0.05, "clip_grad_norm": 0.3},
    "batch norm": {"lr": 0.1, "batch_norm": True, "batch_size": 8},
    "batch norm, adam": {"optimizer": "adam", "lr": 0.01, "batch_norm": True, "batch_size": 8},
}
"""Ways to train. (The step schedule is stepped by hand: it halves the rate, which each epoch would be too often.)"""

BY_THREE = ("momentum, clipped", "adamw in clipped windows", "batch norm, adam")
"""Those in which three processes train, too: rounds of three batches are what is new in them."""

_SAMPLES = 79  # 20 batches of 4 or 10 of 8, of which the last is smaller


def long_training(harness: Harness, out_dir: Path) -> Any:
    """Losses, records, learning rates and final parameters of every way to train."""
    ways = BY_THREE if build(harness, out_dir).trainer.world_size == 3 else WAYS
    return {way: _train(harness, out_dir, way) for way in ways}


def _train(harness: Harness, out_dir: Path, way: str) -> Any:
    settings = {"samples": _SAMPLES, "batch_size": 4, "shuffle": True, "val_interval": 5, **WAYS[way]}
    batches = -(-_SAMPLES // settings["batch_size"])
    rounds = -(-batches // build(harness, out_dir).trainer.world_size)
    run = build(harness, out_dir, epoch=-(-STEPS // rounds), **settings)
    models, optimizers = [run.model], [run.optimizer]
    if way == "two optimizers":
        models.append(harness.model(layers(FEATURES, HIDDEN, CLASSES, seed=2)))
        optimizers.append(harness.optimizer("adam", models[1:], 0.01).optimizer)
        run.trainer.set_models(models)
        run.trainer.set_optimizers(optimizers)
        _have_both_trained(run)
    run.trainer.set_save_best_calc_func(lambda trainer: _value(harness, trainer))
    seen: list[Any] = []

    def end(trainer: Any, ep: int) -> None:
        records = {name: harness.numpy(tensor).tolist() for name, tensor in trainer.get_records().items()}
        rates = [harness.learning_rate(item) for item in optimizers]
        steepest = [
            {name: float(abs(gradient).max()) for name, gradient in harness.gradients(model).items()}
            for model in models
        ]
        seen.append({"records": records, "rates": rates, "steepest": steepest})
        if not trainer.config.auto_schedule and ep % 4 == 0:
            trainer.step(lr_scheduler=run.scheduler)

    run.fit(on_epoch_end=end)
    weights = [{name: array.tolist() for name, array in harness.parameters(model).items()} for model in models]
    return {"losses": run.losses, "epochs": seen, "weights": weights}


def _value(harness: Harness, trainer: Any) -> float:
    """What a plateau schedule follows: the loss, which falls, but for a peak every six epochs."""
    loss = float(harness.numpy(trainer.get_records()["train_loss"]).mean())
    return loss + (1.0 if trainer.epoch % 6 == 0 else 0.0)


def _have_both_trained(run: Run) -> None:
    """Has a run train two models by the sum of a loss of each, of which the second follows the first."""

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        first, second = trainer.get_models()
        features, classes = bat
        scores = first(features)
        loss = run.loss(scores, classes) + run.loss(scores + second(features), classes) * 0.5
        trainer.set_records({"train_loss": loss})
        run.losses.append(float(run.harness.numpy(loss)))
        return loss

    run.train_step = step  # type: ignore[method-assign]

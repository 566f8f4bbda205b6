"""What each of several processes does, where batches have weights."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from dowdyboy_conformance._problem import CLASSES, FEATURES, HIDDEN, config, layers
from dowdyboy_conformance.harnesses.harness import Harness

SIZES = (3, 1, 2, 5, 2, 4, 1)
"""Samples in each batch."""

WEIGHTS = (30.0, 0.0, 2.5, 5000.0, 0.0, 41.0, 7.0)
"""Of each batch; the second one is spoilt."""

SPOILT = 1

KINDS = ("number", "tensor", "on a device")

CASES: list[tuple[int, dict[str, Any]]] = [(1, {}), (2, {}), (3, {"clip_grad_norm": 0.05}), (10, {"ema_decay": 0.9})]
"""Batches in a window, and what else is set."""

EPOCHS = 2


def batches(harness: Harness) -> list[Any]:
    """Features, classes, and the number of the batch."""
    draws = np.random.Generator(np.random.PCG64(3))
    return [
        (
            harness.tensor(draws.standard_normal((size, FEATURES)).astype(np.float32)),
            harness.tensor(draws.integers(0, CLASSES, size)),
            number,
        )
        for number, size in enumerate(SIZES)
    ]


def trained(harness: Harness, out_dir: Path, data: list[Any], make_loss: Callable[[Any, Any], Any], **set_: Any) -> Any:
    """Fits a small model; gives the trainer and its parameters."""
    asynchronous = set_.pop("asynchronous", False)
    trainer = harness.make_trainer(config(out_dir, epoch=EPOCHS, **set_))
    trainer._backend.asynchronous = asynchronous
    model = harness.model(layers(FEATURES, HIDDEN, CLASSES))
    trainer.set_train_dataloader(data)
    trainer.set_model(model)
    trainer.set_optimizer(*harness.optimizer("momentum", [model], 0.2))
    loss = harness.loss("cross_entropy")

    def loss_of(features: Any, classes: Any) -> Any:
        return loss(trainer.get_models()[0](features), classes)

    trainer.fit(lambda trainer, bat, *at: make_loss(loss_of, bat))
    return trainer, {path: array.tolist() for path, array in harness.parameters(model).items()}


def weighted(harness: Harness, out_dir: Path) -> Any:
    """Parameters after training with weights of each kind."""
    found: dict[str, Any] = {}
    for kind in KINDS:

        def with_weight(loss_of: Any, bat: Any, kind: str = kind) -> Any:
            features, classes, number = bat
            value = loss_of(features, classes) * (float("nan") if number == SPOILT else 1.0)
            given = WEIGHTS[number]
            return value, given if kind == "number" else harness.tensor(np.float32(given))

        for window, changed in CASES:
            settings = {"accumulate_steps": window, "asynchronous": kind == "on a device", **changed}

            name = f"{kind}, {window}"
            found[name] = trained(harness, out_dir / name, batches(harness), with_weight, nonfinite="stop", **settings)[
                1
            ]
    return found


def joined(harness: Harness, out_dir: Path, processes: int) -> dict[str, Any]:
    """The same by one process that trains on all batches of a window at once; without the one that is spoilt."""
    found: dict[str, Any] = {}
    parts = batches(harness)
    rounds = [parts[start : start + processes] for start in range(0, len(parts), processes)]
    rounds[-1] += parts[: processes - len(rounds[-1])]  # as in any last round
    for window, changed in CASES:
        windows = [list(chain(*rounds[start : start + window])) for start in range(0, len(rounds), window)]

        def mean(loss_of: Any, bat: Any) -> Any:
            total = sum(WEIGHTS[number] for _, _, number in bat)
            terms = [
                loss_of(features, classes) * (WEIGHTS[number] / total if total else 0.0)
                for features, classes, number in bat
            ]
            whole = terms[0]
            for term in terms[1:]:
                whole = whole + term
            return whole

        name = f"{window} of {processes}"
        found[str(window)] = trained(harness, out_dir / name, windows, mean, **changed)[1]
    return found


def some_only(harness: Harness, out_dir: Path) -> Any:
    """What is raised where the first process alone gives weights."""

    def first_only(loss_of: Any, bat: Any) -> Any:
        loss = loss_of(*bat[:2])
        return (loss, 1.0) if harness_rank == 0 else loss

    harness_rank = harness.make_trainer(config(out_dir)).rank
    try:
        trained(harness, out_dir, batches(harness), first_only, accumulate_steps=2)
    except Exception as error:
        return [type(error).__name__, str(error)]
    return None

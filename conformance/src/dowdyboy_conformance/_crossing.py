"""Runs that cross from one framework to another: the two, and how they are compared.

The other framework is the reference, and that of the reference one that keeps everything otherwise.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_conformance.harnesses.numpy import NumpyHarness
from dowdyboy_conformance.harnesses.turned import TurnedHarness

from ._problem import CLASSES, FEATURES, HIDDEN, Run, build, layers

WAYS = ("there", "back")
KINDS = [("sgd", None), ("momentum", "cosine"), ("adam", "step"), ("adamw", "plateau")]


def pair(harness: Harness, way: str) -> tuple[Harness, Harness]:
    """The framework that gives and the one that takes up."""
    other = TurnedHarness() if isinstance(harness, NumpyHarness) else NumpyHarness()
    return (harness, other) if way == "there" else (other, harness)


def begin(harness: Harness, out_dir: Path, epoch: int, schedule: str | None = None, **changed: Any) -> Run:
    """A run that decides the best by what it trains on, with BatchNorm and in an order of its own."""
    settings: dict[str, Any] = {
        "samples": 20,
        "shuffle": True,
        "batch_norm": True,
        "lr": 0.05,
        "enable_save_checkpoint": True,
        "save_best": True,
        "save_best_rec": "train_loss",
        "save_interval": 1,
        **changed,
    }
    if schedule == "plateau":  # which a loss that falls lets fall at each epoch
        settings |= {"mode": "max", "save_best_type": "max"}
    return build(harness, out_dir, epoch=epoch, schedule=schedule, **settings)


def elsewhere(harness: Harness, out_dir: Path, epoch: int, schedule: str | None = None, **changed: Any) -> Run:
    """The same with other weights, which are to be replaced."""
    return begin(harness, out_dir, epoch, schedule, **{"initial": layers(FEATURES, HIDDEN, CLASSES, seed=9), **changed})


def statistics(harness: Harness, model: Any) -> NDArray[Any]:
    """The running mean and variance of a model with BatchNorm."""
    mean = harness.running_variance.replace("variance", "mean").replace("running_var", "running_mean")
    return np.stack([harness.state(model)[name] for name in (mean, harness.running_variance)])


def said_in(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of its tensors."""
    found: dict[str, Any] = json.loads((folder / "exchange.json").read_text())
    return found


def assert_close(found: Any, expected: Any, tolerance: float, what: str = "") -> None:
    """Refuses arrays that differ by more than so much."""
    assert np.shape(found) == np.shape(expected), what
    assert np.abs(np.subtract(found, expected)).max() <= tolerance, what


def assert_alike(one: Harness, model: Any, other: Harness, other_model: Any, tolerance: float = 0.0) -> None:
    """Refuses models whose parameters differ in the common layout."""
    found, expected = (
        {name: array for name, array in of.parameters(given).items() if not name.endswith(("_mean", "_variance"))}
        for of, given in ((one, model), (other, other_model))  # statistics count as parameters in some frameworks
    )
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        if not tolerance or name != "fc0.bias":  # without influence before BatchNorm: its gradient is rounding
            assert_close(found[name], array, tolerance, name)

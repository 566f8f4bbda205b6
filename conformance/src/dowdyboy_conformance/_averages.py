"""The average of the weights: what it has to be, and the run that is compared with that."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._problem import Run

DECAY = 0.75
Values = dict[str, NDArray[Any]]


def averaged(series: list[Values], decay: float = DECAY) -> Values:
    """The average of the weights after each step, in float64."""
    average = {name: array.astype(np.float64) for name, array in series[0].items()}
    for weights in series[1:]:
        average = {name: decay * mean + (1 - decay) * weights[name] for name, mean in average.items()}
    return average


def trained(values: Values) -> Values:
    """What is trained among them: one framework counts running statistics as parameters."""
    return {name: array for name, array in values.items() if name.rpartition(".")[2] in ("weight", "bias")}


def close(found: Values, expected: Values) -> bool:
    """Whether all arrays are equal but for rounding."""
    found, expected = trained(found), trained(expected)
    assert found.keys() == expected.keys() != set()
    return all(np.allclose(found[name], expected[name], rtol=1e-6, atol=1e-7) for name in expected)


def equal(found: Values, expected: Values) -> bool:
    """Whether all arrays are equal to the last bit."""
    return found.keys() == expected.keys() and all(np.array_equal(found[name], expected[name]) for name in expected)


def of_average(run: Run) -> Values:
    """The parameters of a copy with the average."""
    [model] = run.trainer.get_ema_models()
    return run.harness.parameters(model)


def train(run: Run, **hooks: Any) -> list[Values]:
    """Fits, and gives the weights after each step of the optimizer."""
    series: list[Values] = []

    def note(trainer: Any) -> None:
        now = run.parameters()
        if not series or not equal(series[-1], now):
            series.append(now)

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        note(trainer)
        return run.train_step(trainer, bat, bat_idx, global_step)

    run.trainer.fit(step, **hooks)
    note(run.trainer)
    return series[1:]

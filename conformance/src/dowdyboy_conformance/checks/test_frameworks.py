"""N: what is equal from framework to framework over hundreds of steps, and by how much the rest differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance._oracle import cut
from dowdyboy_conformance._problem import FEATURES, HIDDEN, build, config, data, layers
from dowdyboy_conformance._together import Together, spec_of
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_conformance.scenarios.frameworks import BY_THREE, STEPS, WAYS


@pytest.mark.clause("N-4", "W-6", "O-2", "O-3", "L-4", "L-5")
@pytest.mark.parametrize(
    ("way", "processes"), [(way, number) for way in WAYS for number in (1, 2, 3) if number < 3 or way in BY_THREE]
)
def test_long_training_is_that_of_the_reference(
    harness: Harness, together: Together, reference: Together, processes: int, way: str
) -> None:
    if spec_of(harness) == spec_of(reference.harness):
        pytest.skip("not applicable: N-4 compares other backends with this one")
    found, expected = ([seen[way] for seen in runs(processes, "long_training")] for runs in (together, reference))
    if processes == 1 and "schedule" in WAYS[way]:
        assert expected[0]["epochs"][-1]["rates"] != expected[0]["epochs"][0]["rates"], "the schedule must matter"
    for got, wanted in zip(found, expected, strict=True):
        assert len(got["losses"]) == len(wanted["losses"]) >= STEPS
        assert _close(got["losses"], wanted["losses"], 2e-5)
        for number, (weights, wanted_weights) in enumerate(zip(got["weights"], wanted["weights"], strict=True)):
            idle = {name for name in wanted_weights if _steepest(wanted, number, name) < 1e-6}
            assert idle == ({"fc0.bias"} if "batch_norm" in WAYS[way] else set()), "all others must have an influence"
            assert all(_steepest(got, number, name) < 1e-6 for name in idle)
            for name in wanted_weights.keys() - idle:
                assert _close(weights[name], wanted_weights[name], 5e-5), name
        assert [epoch["rates"] for epoch in got["epochs"]] == [epoch["rates"] for epoch in wanted["epochs"]]
        for epoch, wanted_epoch in zip(got["epochs"], wanted["epochs"], strict=True):
            assert epoch["records"].keys() == wanted_epoch["records"].keys()
            for name, values in wanted_epoch["records"].items():
                if "batch_norm" not in WAYS[way] or name != "val_loss":  # where the running variance counts
                    assert _close(epoch["records"][name], values, 2e-5), name


def _steepest(seen: Any, model: int, name: str) -> float:
    """The largest gradient of a parameter at the ends of the epochs: that of one without influence is rounding."""
    return float(max(epoch["steepest"][model][name] for epoch in seen["epochs"]))


def _close(found: Any, wanted: Any, tolerance: float) -> bool:
    return np.shape(found) == np.shape(wanted) and bool(np.abs(np.subtract(found, wanted)).max() <= tolerance)


@pytest.mark.clause("N-3")
@pytest.mark.parametrize("batch_size", [2, 4])
def test_the_running_variance_is_biased_or_not_as_the_framework_has_it(
    harness: Harness, tmp_path: Path, batch_size: int
) -> None:
    initial = layers(FEATURES, HIDDEN, 3)
    run = build(harness, tmp_path, batch_norm=True, lr=0.0, batch_size=batch_size, initial=initial).fit(val=False)
    (weight, bias), _ = initial
    biased, unbiased = np.ones(HIDDEN), np.ones(HIDDEN)
    for features, _ in cut(batch_size, *data()):
        variance = (features.astype(np.float64) @ weight.T + bias).var(axis=0)
        biased = 0.9 * biased + 0.1 * variance
        unbiased = 0.9 * unbiased + 0.1 * variance * batch_size / (batch_size - 1)
    expected, other = (biased, unbiased) if harness.running_variance_is_biased else (unbiased, biased)
    found = harness.state(run.model)[harness.running_variance]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.abs(other - expected).min() > 1e-3, "the difference must be seen"


@pytest.mark.clause("O-3")
def test_clipping_divides_by_the_norm_plus_a_millionth(harness: Harness, tmp_path: Path) -> None:
    trainer = harness.make_trainer(config(tmp_path, clip_grad_norm=1e-3))
    model = harness.model([(np.zeros((1, 2), np.float32), np.zeros(1, np.float32))])
    trainer.set_model(model)
    trainer.set_optimizer(harness.optimizer("sgd", [model], 1000.0).optimizer)
    trainer.set_train_dataloader(harness.loader(harness.dataset(np.array([[3.0, 0.0]], np.float32)), 1))
    trainer.fit(lambda trainer, bat, *_: trainer.get_models()[0](bat[0]).sum() * 1e-3)
    norm = 1e-3 * np.sqrt(10)  # of (3, 0) and 1 times 1e-3: small, so that 1e-6 beside it can be seen
    found = float(harness.parameters(model)["fc0.weight"][0, 0])
    assert found == pytest.approx(-3 * 1e-3 / (norm + 1e-6), rel=1e-5)
    assert found != pytest.approx(-3 * 1e-3 / norm, rel=1e-4)

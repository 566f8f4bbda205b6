"""N-3: how the default initial weights of the frameworks differ, as the spec says."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import paddle
import pytest
import torch
from numpy.typing import NDArray

from dowdyboy_conformance.reference.framework import layers, random

INPUTS, OUTPUTS = 100, 400


def torch_linear() -> list[NDArray[Any]]:
    torch.manual_seed(1)
    layer = torch.nn.Linear(INPUTS, OUTPUTS)
    return [layer.weight.detach().numpy(), layer.bias.detach().numpy()]


def paddle_linear() -> list[NDArray[Any]]:
    paddle.seed(1)
    layer = paddle.nn.Linear(INPUTS, OUTPUTS)
    return [np.array(layer.weight.numpy()), np.array(layer.bias.numpy())]


def numpy_linear() -> list[NDArray[Any]]:
    random.seed(1)
    layer = layers.Linear(INPUTS, OUTPUTS)
    return [layer.weight.data, layer.bias.data]


BY_INPUTS, BY_BOTH = 1 / math.sqrt(INPUTS), math.sqrt(6 / (INPUTS + OUTPUTS))


@pytest.mark.parametrize(
    ("make", "weight_bound", "bias_bound"),
    [(torch_linear, BY_INPUTS, BY_INPUTS), (numpy_linear, BY_INPUTS, BY_INPUTS), (paddle_linear, BY_BOTH, 0.0)],
)
def test_a_linear_layer_begins_as_the_spec_says(
    make: Callable[[], list[NDArray[Any]]], weight_bound: float, bias_bound: float
) -> None:
    for values, bound in zip(make(), (weight_bound, bias_bound), strict=True):
        assert np.abs(values).max() <= bound
        # Of a uniform distribution: the extremes come near the bounds, and the deviation is bound / √3.
        assert min(values.max(), -values.min()) >= 0.97 * bound
        assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)

"""What the examples share and no framework has a part in: the images, how they are split, and initial weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_digits

CLASSES = 10
SIZE = 8
"""An image has SIZE x SIZE pixels."""

Array = np.ndarray[Any, Any]


class Part(NamedTuple):
    """Some of the images.

    Attributes:
        images: float32 of shape (number, 1, SIZE, SIZE), from 0 (paper) to 1 (ink).
        labels: int64 of shape (number,), the digits 0 to 9.
    """

    images: Array
    labels: Array


def load_parts(seed: int = 0) -> tuple[Part, Part, Part]:
    """The 1,797 handwritten digits that come with scikit-learn, in an order that the seed alone decides.

    Returns:
        1,047 images to train on, 300 to choose the best epoch by, and 450 that only the final test sees.
    """
    bunch = load_digits()
    # PCG64 by name: np.random.default_rng may mean another generator one day, and so another split.
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(bunch.target))
    images = (bunch.images[order, None] / 16).astype(np.float32)
    labels = bunch.target[order].astype(np.int64)
    train, val, test = (Part(images[part], labels[part]) for part in np.split(np.arange(len(order)), [1047, 1347]))
    return train, val, test


def initial_weights(seed: int = 0) -> dict[str, Array]:
    """Weights for a network of two convolutions and a linear layer, as PyTorch lays them out.

    Each framework draws its own initial weights in its own way. Two runs that are to give the same numbers have to
    start from the same ones, and so these are drawn here.

    Returns:
        float32 arrays by the names of the parameters.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    shapes = {"conv1": (16, 1, 3, 3), "conv2": (32, 16, 3, 3), "head": (CLASSES, 32 * 2 * 2)}
    weights = {}
    for name, shape in shapes.items():
        spread = np.sqrt(2 / np.prod(shape[1:]))  # He et al. 2015: keeps the signal's size from layer to layer
        weights[f"{name}.weight"] = generator.normal(0, spread, shape).astype(np.float32)
        weights[f"{name}.bias"] = np.zeros(shape[0], np.float32)
    return weights

"""Small data, made by a seed."""

from __future__ import annotations

from typing import Any

import numpy as np

SAMPLES = 16
BATCH = 4


def vectors(features: int = 6, classes: int = 3, samples: int = SAMPLES, seed: int = 0) -> tuple[Any, Any]:
    """Float32 vectors, and labels that a linear map of them gives."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((samples, features)).astype(np.float32)
    y = (x @ random.standard_normal((features, classes))).argmax(1)
    return x, y.astype(np.int64)


def images(
    size: int = 32, classes: int = 3, samples: int = SAMPLES, channels: int = 3, seed: int = 0
) -> tuple[Any, Any]:
    """Float32 images, and labels."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((samples, channels, size, size)).astype(np.float32)
    return x, random.integers(0, classes, samples)


def tokens(length: int = 8, vocabulary: int = 32, samples: int = SAMPLES, seed: int = 0) -> Any:
    """Sequences of numbers of tokens, of one length."""
    return np.random.default_rng(seed).integers(5, vocabulary, (samples, length))


def sentences(samples: int = SAMPLES, seed: int = 0) -> list[list[int]]:
    """Sequences of numbers of tokens, of different lengths."""
    random = np.random.default_rng(seed)
    return [random.integers(5, 32, random.integers(3, 9)).tolist() for _ in range(samples)]

"""What the tutorials' programs of both frameworks share: small data that a seed makes, and what has to be equal.

Each package has them in its own terms in ``tests/test_tutorials.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

WORDS = 20
"""How many words there are; 0 stands for none."""

EPOCHS = 3


class Killed(Exception):
    """Ends a run where a kill would have."""


class Trained(NamedTuple):
    """What a program came to.

    Attributes:
        losses: of each training step, by its number.
        weights: of each model, parameters and buffers by their paths.
        batches: those of each epoch, as they were trained on.
    """

    losses: dict[int, list[float]]
    weights: list[dict[str, NDArray[Any]]]
    batches: list[list[Any]]


def waves() -> tuple[Floats, Floats]:
    """Pieces of noisy waves, (32, 10, 1), and what comes next, (32, 1)."""
    rng = np.random.Generator(np.random.PCG64(1))
    time = rng.uniform(0, 6, (32, 1)) + 0.3 * np.arange(11)
    values = (np.sin(time) + 0.05 * rng.standard_normal(time.shape)).astype(np.float32)
    return values[:, :10, None], values[:, 10:]


def reviews() -> list[tuple[Ints, int]]:
    """Texts of 2 to 9 words, and whether most of the words are from the second half."""
    rng = np.random.Generator(np.random.PCG64(2))
    texts = [rng.integers(1, WORDS, rng.integers(2, 10)) for _ in range(24)]
    return [(words, int((words >= WORDS // 2).mean() > 0.5)) for words in texts]


def padded(reviews: list[tuple[Ints, int]]) -> tuple[Ints, Ints, Ints]:
    """A batch of them: words with zeros behind, how many words each has, and what each is."""
    lengths = np.array([len(words) for words, _ in reviews])
    words = np.zeros((len(reviews), lengths.max()), np.int64)
    for row, (text, _) in zip(words, reviews, strict=True):
        row[: len(text)] = text
    return words, lengths, np.array([label for _, label in reviews])


def digits() -> tuple[Floats, Ints]:
    """Handwritten digits, (40, 1, 8, 8), and which they are."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return (found.images[:40, None] / 16).astype(np.float32), found.target[:40].astype(np.int64)


def small_digits() -> tuple[Floats, Floats]:
    """Digits at half the size, (40, 1, 4, 4), and as they are."""
    images, _ = digits()
    return images.reshape(40, 1, 4, 2, 4, 2).mean((3, 5)), images


def text() -> list[tuple[Ints, Ints]]:
    """Four texts at once, piece by piece, six words each, and for every word the one that follows it."""
    rng = np.random.Generator(np.random.PCG64(3))
    words = np.cumsum(rng.integers(1, 4, (4, 37)), axis=1) % WORDS
    return [(words[:, start : start + 6], words[:, start + 1 : start + 7]) for start in range(0, 36, 6)]


def check(train: Callable[..., Trained], by_hand: Callable[[list[list[Any]]], Trained], out_dir: Path) -> None:
    """Compares a program under the trainer with one by hand, and with itself killed and resumed, bit by bit.

    Args:
        train: ``train(out_dir, kill_at=None, **settings)`` trains with a trainer; at step ``kill_at`` it is killed.
        by_hand: trains on batches in the framework's own terms.
        out_dir: where to write.
    """
    whole = train(out_dir / "whole")
    assert len(whole.batches) == EPOCHS
    hand = by_hand(whole.batches)
    assert hand.losses == whole.losses
    assert_equal(hand.weights, whole.weights)
    steps = len(whole.losses)
    for kill_at in (steps // EPOCHS + 2, steps - 1):  # within the second epoch, and before the last step
        assert_resumed(train, whole, out_dir / str(kill_at), kill_at)


def assert_resumed(train: Callable[..., Trained], whole: Trained, out_dir: Path, kill_at: int) -> None:
    """Kills a program, and sees whether it goes on to where the whole one came."""
    killed = train(out_dir, kill_at)
    assert list(killed.losses) == list(range(kill_at))
    resumed = train(out_dir, resume="auto")
    assert 0 < min(resumed.losses) <= kill_at
    assert {**killed.losses, **resumed.losses} == whole.losses
    assert_equal(resumed.weights, whole.weights)


def assert_equal(found: list[dict[str, NDArray[Any]]], expected: list[dict[str, NDArray[Any]]]) -> None:
    """Compares weights to the last bit."""
    for own, other in zip(found, expected, strict=True):
        assert own.keys() == other.keys()
        different = [name for name in own if not np.array_equal(own[name], other[name])]
        assert different == []

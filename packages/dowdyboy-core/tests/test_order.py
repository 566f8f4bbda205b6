"""The order of an epoch: pinned for ever, a permutation, and drawn without touching any global stream."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dowdyboy_core.backend.orders import (
    FixedSizeBatches,
    SampledBatches,
    SamplerOrder,
    SequentialOrder,
    ShuffledOrder,
    SingleIndices,
    WeightedOrder,
)
from dowdyboy_core.backend.random_streams import RandomStreams
from dowdyboy_core.rand import derive_seed


class NoStreams:
    """A framework without generators."""

    def seed(self, seed: int) -> None: ...

    def get_rng_state(self) -> Any:
        return None

    def set_rng_state(self, state: Any) -> None: ...

    def set_rng_aside(self, seed: int) -> Callable[[], None]:
        return lambda: None


STREAMS = RandomStreams(NoStreams())


def reseed(sampler: Any, seed: int) -> None:
    sampler.reseeded = seed


@pytest.mark.parametrize(
    ("seed", "epoch", "expected"),
    [
        (0, 1, [0, 3, 2, 5, 4, 7, 1, 6]),
        (0, 2, [3, 5, 1, 6, 2, 7, 0, 4]),
        (1, 1, [6, 3, 1, 0, 7, 4, 5, 2]),
        (1024, 1, [7, 6, 0, 3, 4, 5, 2, 1]),
        (9223372036854775807, 100, [4, 3, 7, 6, 2, 0, 1, 5]),
    ],
)
def test_pinned_permutations(seed: int, epoch: int, expected: list[int]) -> None:
    assert ShuffledOrder(8).indices(seed, epoch).tolist() == expected


def test_pinned_draws() -> None:
    assert ShuffledOrder(8, 8, replacement=True).indices(0, 1).tolist() == [5, 0, 2, 4, 2, 5, 5, 5]
    assert ShuffledOrder(3, 8).indices(0, 1).tolist() == [0, 1, 2, 2, 0, 1, 0, 2]
    assert WeightedOrder([1, 2, 3, 4], 8).indices(0, 1).tolist() == [0, 2, 3, 3, 3, 3, 2, 2]


@given(st.integers(0, 60), st.integers(0, 2**70), st.integers(0, 1000))
def test_a_shuffle_is_a_permutation_and_pure(size: int, seed: int, epoch: int) -> None:
    order = ShuffledOrder(size)
    drawn = order.indices(seed, epoch).tolist()
    assert sorted(drawn) == list(range(size))
    assert order.indices(seed, epoch).tolist() == drawn
    assert len(order) == size


def test_epochs_and_seeds_differ() -> None:
    drawn = [tuple(ShuffledOrder(50).indices(seed, epoch)) for seed in range(3) for epoch in range(1, 4)]
    assert len(set(drawn)) == 9


@given(st.integers(1, 9), st.integers(0, 40), st.booleans())
def test_counts(size: int, count: int, replacement: bool) -> None:
    order = ShuffledOrder(size, count, replacement)
    drawn = order.indices(3, 1)
    assert len(order) == len(drawn) == count
    assert drawn.dtype == np.int64
    assert set(drawn.tolist()) <= set(range(size))
    if not replacement:
        seen = Counter(drawn.tolist())
        assert max(seen.values(), default=0) - min((seen[index] for index in range(size)), default=0) <= 1


@pytest.mark.parametrize(("size", "count"), [(0, 0), (5, 3), (5, 5), (5, 8), (5, 10), (5, 11)])
def test_more_draws_than_indices_are_further_passes(size: int, count: int) -> None:
    drawn = ShuffledOrder(size, count).indices(0, 1)
    assert drawn.dtype == np.int64
    assert drawn.shape == (count,)
    for start in range(0, count, max(size, 1)):
        assert len(set(drawn[start : start + size].tolist())) == min(size, count - start)


def test_weighted_frequencies() -> None:
    drawn = WeightedOrder([0, 1, 2, 7], 20_000).indices(5, 1).tolist()
    shares = [drawn.count(index) / len(drawn) for index in range(4)]
    assert shares[0] == 0
    assert shares[1:] == pytest.approx([0.1, 0.2, 0.7], abs=0.015)
    halves = WeightedOrder(np.array([30_000, 30_000, 60_000], np.float16), 1000).indices(5, 1).tolist()
    assert halves == WeightedOrder([30_000, 30_000, 60_000], 1000).indices(5, 1).tolist(), "whose sum no half can hold"
    without = WeightedOrder([0.1, 5, 1], 3, replacement=False).indices(5, 1).tolist()
    assert sorted(without) == [0, 1, 2]


class Drawing:
    """A sampler that draws from the global streams."""

    reseeded: int | None = None

    def __init__(self, size: int = 5) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        for _ in range(self.size):
            yield random.randrange(1000) * 1000 + int(np.random.randint(1000))


def test_a_sampler_is_seeded_and_the_streams_put_back() -> None:
    sampler = Drawing()
    order = SamplerOrder(sampler, STREAMS.isolated, reseed)
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist()
    first = order.indices(0, 1)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    random.random()
    np.random.rand()
    assert order.indices(0, 1) == first != order.indices(0, 2)
    assert sampler.reseeded == derive_seed(0, "order", 2)
    assert len(order) == len(first) == 5


def test_the_streams_are_put_back_after_an_error_too() -> None:
    class Broken(Drawing):
        def __iter__(self) -> Iterator[int]:
            random.random()
            raise RuntimeError("broken")

    before = random.getstate()
    with pytest.raises(RuntimeError, match="broken"):
        SamplerOrder(Broken(), STREAMS.isolated, reseed).indices(0, 1)
    assert random.getstate() == before


@given(st.integers(0, 40), st.integers(1, 9), st.booleans())
def test_batches_of_a_fixed_size(size: int, batch_size: int, drop_last: bool) -> None:
    batching = FixedSizeBatches(SequentialOrder(size), batch_size, drop_last)
    batches = list(batching.batches(0, 1))
    assert batching.count() == len(batches)
    kept = size - size % batch_size if drop_last else size
    assert [index for batch in batches for index in batch] == list(range(kept))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert all(type(index) is int for batch in batches for index in batch)


def test_indices_are_plain_ints() -> None:
    for batch in FixedSizeBatches(ShuffledOrder(4), 2, False).batches(0, 1):
        assert all(type(index) is int for index in batch)
    assert all(type(index) is int for index in SingleIndices(ShuffledOrder(4)).batches(0, 1))
    assert list(SingleIndices(SequentialOrder(3)).batches(0, 1)) == [0, 1, 2]
    assert SingleIndices(SequentialOrder(3)).count() == 3


def test_batch_samplers_of_any_kind() -> None:
    sized = SampledBatches([[0, 2], (1,)], STREAMS.isolated, lambda sampler, seed: None)
    assert sized.count() == 2
    assert list(sized.batches(0, 1)) == [[0, 2], [1]]

    class Unsized:
        def __iter__(self) -> Iterator[list[int]]:
            return iter([[0]])

    class Unwilling(Unsized):
        def __len__(self) -> int:
            raise NotImplementedError

    for sampler in (Unsized(), Unwilling()):
        batching = SampledBatches(sampler, STREAMS.isolated, lambda sampler, seed: None)
        assert batching.count() is None
        assert list(batching.batches(0, 1)) == [[0]]

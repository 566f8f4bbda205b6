"""Dealing out batches: each once, or equally many for all, and nothing read that is not needed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dowdyboy_core._data import MapParts, Share, StreamParts, _share_of, deal, open_loader
from dowdyboy_core._order import FixedSizeBatches, SequentialOrder, ShuffledOrder, SingleIndices
from dowdyboy_core._rng import RandomStreams


class NoStreams:
    """A framework without generators."""

    def seed(self, seed: int) -> None: ...

    def get_rng_state(self) -> Any:
        return None

    def set_rng_state(self, state: Any) -> None: ...

    def set_rng_aside(self, seed: int) -> Callable[[], None]:
        return lambda: None


STREAMS = RandomStreams(NoStreams())


class Counting:
    """The samples 0 … size-1, which notes what is read."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[int, float]:
        self.read.append(index)
        return index, random.random()


def parts_of(dataset: Any, *, batch_size: int = 3, shuffled: bool = False, **changes: Any) -> MapParts:
    order = ShuffledOrder(len(dataset)) if shuffled else SequentialOrder(len(dataset))

    def no_workers(*args: Any) -> Any:
        raise AssertionError("no workers were asked for")

    settings: dict[str, Any] = {
        "dataset": dataset,
        "batching": FixedSizeBatches(order, batch_size, drop_last=False),
        "collate": list,
        "batched": True,
        "workers": 0,
        "with_workers": no_workers,
        **changes,
    }
    return MapParts(**settings)


def run(parts: Any, share: Share = Share(), fill_up: bool = True, epoch: int = 1, start: int = 0) -> list[Any]:  # noqa: B008
    loader = open_loader(parts, STREAMS, 5, share, fill_up=fill_up)
    return list(loader.epoch(epoch, start))


@given(st.integers(0, 17), st.integers(1, 4), st.booleans())
def test_dealing(size: int, world: int, fill_up: bool) -> None:
    dealt = [list(deal(range(size), Share(rank, world), fill_up)) for rank in range(world)]
    counts = [_share_of(size, Share(rank, world), fill_up) for rank in range(world)]
    assert counts == [len(part) for part in dealt]
    # Interleaved, the parts are the sequence again, and with fill_up then its start, over and over if it is short.
    rounds = [[part[number] for part in dealt if number < len(part)] for number in range(max(counts))]
    together = [item for row in rounds for item in row]
    assert together[:size] == list(range(size))
    if fill_up:
        assert len(set(counts)) == 1
        extra = together[size:]
        assert len(extra) < world
        assert extra == [number % size for number in range(len(extra))]
    else:
        assert len(together) == size


def test_unknown_counts_stay_unknown() -> None:
    assert _share_of(None, Share(1, 3), True) is None


@pytest.mark.parametrize("start", range(6))
def test_skipped_batches_are_not_read(start: int) -> None:
    data = Counting(13)
    whole = run(parts_of(data, shuffled=True))
    assert len(whole) == 5
    data.read.clear()
    assert run(parts_of(data, shuffled=True), start=start) == whole[start:]
    assert data.read == [index for batch in whole[start:] for index, _ in batch]


def test_a_share_reads_only_what_is_its_own() -> None:
    data = Counting(14)
    batches = run(parts_of(data), Share(1, 3), fill_up=False)
    assert [index for batch in batches for index, _ in batch] == [3, 4, 5, 12, 13]
    assert data.read == [3, 4, 5, 12, 13]


def test_what_is_drawn_depends_on_the_batch_alone() -> None:
    data = Counting(12)
    alone = run(parts_of(data))
    by_rank = [run(parts_of(data), Share(rank, 2), fill_up=False) for rank in range(2)]
    assert [by_rank[number % 2][number // 2] for number in range(4)] == alone
    random.seed(11)
    assert run(parts_of(data)) == alone != run(parts_of(data), epoch=2)


def test_filled_up_batches_are_the_same_batches() -> None:
    data = Counting(9)
    first, last = run(parts_of(data), Share(0, 2)), run(parts_of(data), Share(1, 2))
    assert last[-1] == first[0]


def test_the_global_streams_are_left_alone() -> None:
    random.seed(1)
    before = random.getstate()
    run(parts_of(Counting(5)))
    assert random.getstate() == before


def test_data_that_comes_batched() -> None:
    data = Counting(3)
    single = parts_of(data, batching=SingleIndices(SequentialOrder(3)), batched=False)
    assert [index for index, _ in run(single)] == [0, 1, 2]


def test_datasets_asked_for_a_batch_at_once() -> None:
    class Bulk(Counting):
        def __getitems__(self, indices: list[int]) -> list[int]:
            return [-index for index in indices]

    assert run(parts_of(Bulk(4))) == [[0, -1, -2], [-3]]


def test_an_epoch_of_nothing() -> None:
    for world in (1, 2):
        loader = open_loader(parts_of(Counting(0)), STREAMS, 5, Share(0, world), fill_up=True)
        assert loader.count() == 0
        assert list(loader.epoch(1)) == []


def stream(function: Callable[[], Iterator[Any]], count: int | None = None) -> StreamParts:
    return StreamParts(function, count)


@given(st.integers(0, 9), st.integers(1, 3), st.booleans(), st.booleans())
def test_streams_are_dealt_like_anything_else(size: int, world: int, fill_up: bool, known: bool) -> None:
    source = stream(lambda: iter(range(size)), size if known else None)
    for rank in range(world):
        share = Share(rank, world)
        loader = open_loader(source, STREAMS, 5, share, fill_up=fill_up)
        expected = list(deal(range(size), share, fill_up))
        assert list(loader.epoch(1)) == expected
        assert list(loader.epoch(1, 2)) == expected[2:]
        assert loader.count() == (len(expected) if known else None)


def test_a_stream_draws_by_epoch_and_batch() -> None:
    def draw() -> Iterator[float]:
        for _ in range(4):
            yield random.random()

    whole = run(stream(draw))
    assert len(set(whole)) == 4
    random.seed(3)
    assert run(stream(draw)) == whole
    assert run(stream(draw), start=2) == whole[2:]
    assert not set(run(stream(draw), epoch=2)) & set(whole)


def test_a_stream_that_fails_puts_the_global_streams_back() -> None:
    def broken() -> Iterator[int]:
        yield random.randrange(5)
        random.random()
        raise ValueError("broken")

    random.seed(1)
    before = random.getstate()
    with pytest.raises(ValueError, match="broken"):
        run(stream(broken))
    assert random.getstate() == before


def test_a_stream_is_read_only_as_far_as_it_is_used() -> None:
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    batches = open_loader(stream(numbers), STREAMS, 5, Share(), fill_up=True).epoch(1)
    assert [next(batches), next(batches)] == [0, 1]
    assert read == [0, 1]

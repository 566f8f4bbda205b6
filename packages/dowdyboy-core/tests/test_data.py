"""Dealing out batches: each once, or equally many for all, and nothing read that is not needed."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dowdyboy_core.backend.loaders import EpochLoader, MapParts, StreamParts, open_loader
from dowdyboy_core.backend.orders import FixedSizeBatches, SequentialOrder, ShuffledOrder, SingleIndices
from dowdyboy_core.backend.random_streams import RandomStreams
from dowdyboy_core.backend.shares import Share, deal, share_of
from dowdyboy_core.backend.workers import Workers
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

    settings: dict[str, Any] = {
        "dataset": dataset,
        "batching": FixedSizeBatches(order, batch_size, drop_last=False),
        "collate": list,
        "batched": True,
        **changes,
    }
    return MapParts(**settings)


def run(parts: Any, share: Share = Share(), fill_up: bool = True, epoch: int = 1, start: int = 0) -> list[Any]:  # noqa: B008
    loader = open_loader(parts, STREAMS, 5, share, fill_up=fill_up)
    return list(loader.epoch(epoch, start))


@given(st.integers(0, 17), st.integers(1, 4), st.booleans())
def test_dealing(size: int, world: int, fill_up: bool) -> None:
    dealt = [list(deal(range(size), Share(rank, world), fill_up)) for rank in range(world)]
    counts = [share_of(size, Share(rank, world), fill_up) for rank in range(world)]
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
    assert share_of(None, Share(1, 3), True) is None


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


class Seeds:
    """Random streams that only note what they are seeded with, and whether they were put back."""

    def __init__(self) -> None:
        self.noted: list[Any] = []

    def seed(self, seed: int) -> None:
        self.noted.append(seed)

    def set_aside(self, seed: int) -> Callable[[], None]:
        self.noted.append(seed)
        return lambda: self.noted.append("put back")

    @contextmanager
    def isolated(self, seed: int) -> Iterator[None]:
        put_back = self.set_aside(seed)
        yield
        put_back()


def loader_of(parts: Any, share: Share = Share(), fill_up: bool = True) -> tuple[EpochLoader, list[Any]]:  # noqa: B008
    """A loader, and what its random streams note."""
    streams: Any = Seeds()
    return open_loader(parts, streams, 5, share, fill_up=fill_up), streams.noted


def seeds_of(epoch: int, *numbers: int) -> list[Any]:
    return [item for number in numbers for item in (derive_seed(5, "batch", epoch, number), "put back")]


def test_every_batch_has_the_seed_of_its_number() -> None:
    loader, noted = loader_of(parts_of(Counting(14)), Share(1, 2))
    list(loader.epoch(2, 1))
    assert noted == seeds_of(2, 3, 0), "the last one is the first one again"


@pytest.mark.parametrize("lazy", [True, False])
def test_a_stream_has_a_seed_to_begin_with_and_one_for_each_batch(lazy: bool) -> None:
    loader, noted = loader_of(StreamParts(lambda: iter("abc"), None, lazy), Share(0, 2))
    assert list(loader.epoch(3)) == ["a", "c"]
    begin = [derive_seed(5, "stream", 3), "put back"]
    assert noted == begin + (seeds_of(3, 0, 1, 2, 3) if lazy else [])


def test_a_batch_of_a_stream_may_be_anything() -> None:
    batches: list[Any] = [None, 0, [], None]
    assert run(stream(lambda: iter(batches))) == batches


class WithWorkers:
    """A native loader that has workers, which run here."""

    def __init__(
        self, dataset: Any, sampler: Any, read: Callable[[Any], Any], begin: Callable[[int], None] | None = None
    ) -> None:
        self.dataset, self.sampler, self.read, self.begin = dataset, sampler, read, begin
        self.ended: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        return iter([self.read([self.dataset[key] for key in keys]) for keys in self.sampler])


class Here(Workers):
    """Two workers that are none."""

    count = 2

    def __init__(self, made: list[WithWorkers]) -> None:
        self.made = made

    def build(self, *given: Any) -> WithWorkers:
        self.made.append(WithWorkers(*given))
        return self.made[-1]

    @classmethod
    def tell(cls, dataset: Any) -> None:
        raise AssertionError("there is no worker to be told")

    def end(self, batches: Iterator[Any], *, now: bool) -> None:
        self.made[-1].ended.append(next(batches))  # the one that would have come next

    def processes(self, batches: Any) -> list[Any]:
        return []


def with_workers(made: list[WithWorkers]) -> dict[str, Any]:
    return {"workers": Here(made)}


def test_a_loader_with_workers_is_made_once_and_reads_the_batches_of_each_epoch() -> None:
    made: list[WithWorkers] = []
    loader, noted = loader_of(parts_of(Counting(14), **with_workers(made)), Share(1, 2))
    assert [index for batch in loader.epoch(2, 1) for index, _ in batch] == [9, 10, 11, 0, 1, 2]
    assert [index for batch in loader.epoch(4) for index, _ in batch] == [3, 4, 5, 9, 10, 11, 0, 1, 2]
    [native] = made
    assert [len(native.dataset), len(native.sampler)] == [14, 3]
    around = [[derive_seed(5, "workers", epoch), "put back"] for epoch in (2, 4)]
    within = [seeds_of(2, 3, 0), seeds_of(4, 1, 3, 0)]
    assert noted == [note for outer, inner in zip(around, within, strict=True) for note in (outer[0], *inner, outer[1])]


def test_the_workers_of_an_epoch_that_was_left_are_ended_and_others_read_the_next() -> None:
    made: list[WithWorkers] = []
    loader, _ = loader_of(parts_of(Counting(9), **with_workers(made)))
    loader.close()
    next(loader.epoch(1))
    loader.close()
    loader.close()
    assert [[index for index, _ in batch] for batch in made[0].ended] == [[3, 4, 5]]
    assert len(list(loader.epoch(1))) == 3
    loader.close()
    list(loader.epoch(2))
    assert [native.ended for native in made] == [made[0].ended, []], "those that read to the end may persist"


def test_an_epoch_that_is_read_on_after_another_one_began_does_not_count_as_that_one() -> None:
    made: list[WithWorkers] = []
    loader, _ = loader_of(parts_of(Counting(6), **with_workers(made)))
    first, second = loader.epoch(1), loader.epoch(2)
    next(second)
    list(first)
    loader.close()
    assert len(made[0].ended) == 1


def test_the_workers_of_a_stream_that_was_left_are_ended() -> None:
    ended: list[str] = []
    parts = StreamParts(lambda: iter("abc"), None, lazy=False, end_workers=lambda batches: ended.append(next(batches)))
    loader, _ = loader_of(parts)
    next(loader.epoch(1))
    loader.close()
    assert ended == ["b"]
    assert list(loader.epoch(2)) == ["a", "b", "c"]
    loader.close()
    assert ended == ["b"]


def test_a_stream_without_workers_has_none_to_end() -> None:
    loader, _ = loader_of(stream(lambda: iter("abc")))
    next(loader.epoch(1))
    loader.close()
    assert list(loader.epoch(2)) == ["a", "b", "c"]


def test_a_worker_seeds_its_streams_and_has_nothing_to_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    loader, noted = loader_of(parts_of(Counting(6)))
    with monkeypatch.context() as patched:
        patched.setattr(os, "getpid", lambda: -1)
        batches = list(loader.epoch(1))
    assert [index for batch in batches for index, _ in batch] == list(range(6))
    assert noted == [derive_seed(5, "batch", 1, 0), derive_seed(5, "batch", 1, 1)]


@pytest.mark.parametrize("workers", [False, True])
def test_what_is_read_at_once_needs_no_seed(workers: bool) -> None:
    made: list[WithWorkers] = []
    data = Counting(6)
    several = with_workers(made) if workers else {}
    loader, noted = loader_of(parts_of(data, read_at_once=lambda indices: tuple(indices), **several))
    assert list(loader.epoch(1)) == [(0, 1, 2), (3, 4, 5)]
    assert noted == ([derive_seed(5, "workers", 1), "put back"] if workers else [])
    assert data.read == []


def test_a_native_loader_may_know_neither_the_size_of_the_data_nor_the_number_of_batches() -> None:
    class Unsized:
        def __getitem__(self, index: int) -> tuple[int, int]:
            return index, 0

    class Endless:
        def count(self) -> None:
            return None

        def batches(self, seed: int, epoch: int) -> Iterator[list[int]]:
            return iter([[1], [2]])

    made: list[WithWorkers] = []
    parts = MapParts(Unsized(), Endless(), list, True, **with_workers(made))  # type: ignore[arg-type]
    loader, _ = loader_of(parts)
    assert list(loader.epoch(1)) == [[(1, 0)], [(2, 0)]]
    assert loader.count() is None
    assert len(made[0].dataset) == 0
    with pytest.raises(TypeError, match="no length"):
        len(made[0].sampler)


@pytest.mark.parametrize(("fill_up", "counts"), [(True, [2, 2, 2]), (False, [2, 1, 1])])
def test_how_many_batches_each_process_gets(fill_up: bool, counts: list[int]) -> None:
    loaders = [loader_of(parts_of(Counting(10)), Share(rank, 3), fill_up)[0] for rank in range(3)]
    assert [loader.count() for loader in loaders] == counts == [len(list(loader.epoch(1))) for loader in loaders]


@pytest.mark.parametrize(("fill_up", "most"), [(True, 3), (False, 1)])
def test_no_more_batches_are_kept_than_may_be_needed_again(fill_up: bool, most: int) -> None:
    class Batch:
        pass

    there: WeakSet[Batch] = WeakSet()

    def batches() -> Iterator[Batch]:
        for _ in range(20):
            batch = Batch()
            there.add(batch)
            yield batch
            del batch

    for _ in deal(batches(), Share(1, 3), fill_up):
        assert len(there) <= most

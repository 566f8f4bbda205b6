"""Every kind of DataLoader, taken apart: the same batches in any process count, worker count and after a restart."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import pickle
import random
import signal
import threading
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import numpy as np
import paddle
import pytest
from paddle.io import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedBatchSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from dowdyboy_core import SetupError
from dowdyboy_core.backend import (
    BatchKey,
    MapParts,
    RandomStreams,
    ReadBatch,
    Share,
    StreamParts,
    map_leaves,
    open_loader,
)
from dowdyboy_paddle._backend import PaddleBackend

BACKEND = PaddleBackend()
STREAMS = RandomStreams(BACKEND)


class Numbers(Dataset):
    """The samples 0, 1, …, size-1."""

    def __init__(self, size: int = 10) -> None:
        self.size = size
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < self.size:
            raise IndexError(index)
        self.read.append(index)
        return index


class Augmented(Numbers):
    """Samples that draw from global streams; not the framework's, whose operators hang in a forked worker."""

    def __getitem__(self, index: int) -> Any:
        return index, random.random(), np.random.rand(), np.random.rand(2)


class Stream(IterableDataset):
    """The samples of Numbers, as a stream."""

    def __init__(self, size: int = 10) -> None:
        self.size = size

    def __iter__(self) -> Iterator[Any]:
        return iter(range(self.size))


class SizedStream(Stream):
    def __len__(self) -> int:
        return self.size


def opened(loader: Any, share: Share = Share(), fill_up: bool = True) -> Any:  # noqa: B008
    parts = BACKEND.split_loader(loader, STREAMS.isolated)
    assert isinstance(parts, (MapParts, StreamParts))
    return open_loader(parts, STREAMS, 7, share, fill_up=fill_up)


def plain(batch: Any) -> Any:
    return map_leaves(lambda leaf: leaf.tolist() if hasattr(leaf, "tolist") else leaf, batch)


def run(loader: Any, epoch: int = 1, start: int = 0) -> list[Any]:
    return [plain(BACKEND.to_device(batch)) for batch in opened(loader).epoch(epoch, start)]


def flat(batches: list[Any]) -> list[Any]:
    return [item for batch in batches for item in batch]


def test_only_a_dataloader_is_taken_apart() -> None:
    assert BACKEND.split_loader([1, 2], STREAMS.isolated) is None


def test_in_order() -> None:
    assert run(DataLoader(Numbers(), batch_size=4)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert run(DataLoader(Numbers(), batch_size=4, drop_last=True)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert run(DataLoader(Numbers(1), batch_size=4)) == [[0]]
    assert run(DataLoader(Numbers(0), batch_size=4)) == []


def test_shuffled_is_a_function_of_the_epoch() -> None:
    loader = DataLoader(Numbers(), batch_size=4, shuffle=True)
    first = run(loader)
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert sorted(flat(first)) == list(range(10)) != flat(first)
    paddle.seed(99)
    np.random.seed(99)
    assert run(loader) == first
    assert run(loader, epoch=2) != first
    # Pinned: the same on the other framework, and in every version.
    assert flat(first) == [7, 4, 1, 9, 5, 0, 8, 3, 6, 2]


def test_drawing_batches_leaves_the_global_streams_alone() -> None:
    for loader in (
        DataLoader(Augmented(), batch_size=4, shuffle=True),
        sampled(Augmented(), SubsetRandomSampler(range(10)), 4),
        DataLoader(Augmented(), batch_size=4, num_workers=1),
        DataLoader(SizedStream(), batch_size=4),
    ):
        STREAMS.seed(3)
        run(loader)
        drawn = random.random(), np.random.rand(), paddle.rand([1]).item()
        STREAMS.seed(3)
        assert drawn == (random.random(), np.random.rand(), paddle.rand([1]).item())


class Backwards(Sampler):
    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.size - 1, -1, -1))

    def __len__(self) -> int:
        return self.size


def sampled(dataset: Any, sampler: Any, batch_size: int, **settings: Any) -> DataLoader:
    return DataLoader(dataset, batch_sampler=BatchSampler(sampler=sampler, batch_size=batch_size), **settings)


def test_samplers() -> None:
    assert run(sampled(Numbers(5), Backwards(5), 2)) == [[4, 3], [2, 1], [0]]
    subset = sampled(Numbers(), SubsetRandomSampler([2, 4, 6]), 2)
    assert sorted(flat(run(subset))) == [2, 4, 6]
    assert run(subset) == run(subset)
    fewer = run(sampled(Numbers(4), RandomSampler(Numbers(4), num_samples=3), 2))
    assert [len(batch) for batch in fewer] == [2, 1]
    assert len(set(flat(fewer))) == 3
    again = run(sampled(Numbers(4), RandomSampler(Numbers(4), True, 50), 50))
    assert set(flat(again)) == {0, 1, 2, 3}
    weighted = WeightedRandomSampler([0.0, 1.0, 0.0, 3.0], 40)
    assert set(flat(run(sampled(Numbers(4), weighted, 40)))) == {1, 3}
    dealt = DistributedBatchSampler(Numbers(), 4, num_replicas=2, rank=1)
    assert flat(run(DataLoader(Numbers(), batch_sampler=dealt))) == list(range(10))


def test_a_sampler_with_a_generator_of_its_own_is_asked() -> None:
    sampler = RandomSampler(Numbers(), generator=iter([3, 1, 2]), num_samples=3, replacement=True)
    assert run(sampled(Numbers(), sampler, 2)) == [[3, 1], [2]]


def test_batch_samplers() -> None:
    assert run(DataLoader(Numbers(5), batch_sampler=[[0, 4], [1], [2, 3]])) == [[0, 4], [1], [2, 3]]
    own = DataLoader(Numbers(5), batch_sampler=BatchSampler(sampler=Backwards(5), batch_size=2, drop_last=True))
    assert run(own) == [[4, 3], [2, 1]]

    class Unsized:
        def __iter__(self) -> Iterator[list[int]]:
            yield [random.randrange(5), paddle.randint(5, shape=[1]).item()]

    loader = DataLoader(Numbers(5), batch_sampler=Unsized())
    assert opened(loader).count() is None
    assert run(loader) == run(loader)
    assert len({str(run(loader, epoch)) for epoch in range(8)}) > 1


def test_data_that_comes_batched() -> None:
    assert run(DataLoader(Numbers(3), batch_size=None)) == [0, 1, 2]

    class Bulk(Numbers):
        def __getitem__(self, index: int) -> Any:
            return np.array([index, index]) * 10

    assert run(DataLoader(Bulk(2), batch_size=None)) == [[0, 0], [10, 10]]


def test_collate_functions() -> None:
    assert run(DataLoader(Numbers(3), batch_size=2, collate_fn=sum)) == [1, 2]
    assert run(DataLoader(Numbers(3), batch_size=None, collate_fn=str)) == ["0", "1", "2"]


@pytest.mark.parametrize("workers", [0, 1])
def test_datasets_are_asked_for_samples_as_by_their_own_loader(workers: int) -> None:
    class Bulk(Numbers):
        def __getitems__(self, indices: list[int]) -> list[int]:
            raise AssertionError("PyTorch's loader calls this, and PaddlePaddle's doesn't")

    assert run(DataLoader(Bulk(3), batch_size=2, num_workers=workers)) == [[0, 1], [2]]
    subset = paddle.io.Subset(Numbers(), [7, 8, 9])
    assert run(DataLoader(subset, batch_size=2, num_workers=workers)) == [[7, 8], [9]]


@pytest.mark.parametrize("kind", [Stream, SizedStream])
@pytest.mark.parametrize("workers", [0, 1])
def test_streams(kind: Any, workers: int) -> None:
    def loader(size: int, **settings: Any) -> DataLoader:
        return DataLoader(kind(size), num_workers=workers, **settings)

    assert run(loader(5, batch_size=2)) == [[0, 1], [2, 3], [4]]
    assert run(loader(5, batch_size=2, drop_last=True)) == [[0, 1], [2, 3]]
    assert run(loader(3, batch_size=None)) == [0, 1, 2]
    assert run(loader(3, batch_size=2, collate_fn=sum)) == [1, 2]
    assert run(loader(5, batch_size=2), start=1) == [[2, 3], [4]]
    counts = [
        opened(loader(5, batch_size=2)).count(),
        opened(loader(5, batch_size=2, drop_last=True)).count(),
        opened(loader(3, batch_size=None)).count(),
    ]
    assert counts == ([3, 2, 3] if kind is SizedStream else [None] * 3)


def test_a_stream_draws_as_a_function_of_epoch_and_batch() -> None:
    class Drawing(Stream):
        def __iter__(self) -> Iterator[Any]:
            for _ in range(self.size):
                yield random.random(), np.random.rand(), paddle.rand([1])

    loader = DataLoader(Drawing(6), batch_size=2)
    first = run(loader)
    assert run(loader) == first != run(loader, epoch=2)
    assert run(loader, start=1) == first[1:]


def without_time(batches: list[Any]) -> list[Any]:
    return [plain(batch) for batch in batches]


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_change_nothing_over_epochs_and_restarts(persistent: bool) -> None:
    def epochs(workers: int, start: int = 0) -> list[Any]:
        settings = {"persistent_workers": True} if workers and persistent else {}
        loader = DataLoader(Augmented(), batch_size=3, shuffle=True, num_workers=workers, **settings)
        source = opened(loader)
        return [without_time(list(source.epoch(epoch, start))) for epoch in (1, 2, 3)]

    alone = epochs(0)
    assert [len(batches) for batches in alone] == [4, 4, 4]
    assert alone[0] != alone[1] != alone[2]
    assert epochs(2) == alone
    assert epochs(2, start=3) == [batches[3:] for batches in alone]


def test_an_epoch_left_half_way_does_not_leak_into_the_next() -> None:
    # Without persistent workers: the framework's own can't be left half-way.
    source = opened(DataLoader(Augmented(), batch_size=2, shuffle=True, num_workers=2))
    half = source.epoch(1)
    next(half)
    expected = run(DataLoader(Augmented(), batch_size=2, shuffle=True), epoch=2)
    assert without_time(list(source.epoch(2))) == expected


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("kind", [Augmented, Stream])
def test_workers_of_an_epoch_that_was_left_end_and_others_read_the_next(kind: type, persistent: bool) -> None:
    def load(**settings: Any) -> Any:
        return opened(DataLoader(kind(), batch_size=2, num_workers=2, **settings))

    def started() -> set[Any]:
        return set(multiprocessing.active_children()) - others

    source, others = load(persistent_workers=persistent), set(multiprocessing.active_children())
    half = source.epoch(1)
    next(half)
    workers = started()
    assert len(workers) == 2
    source.close()
    for worker in workers:
        worker.join(10)
    assert not any(worker.is_alive() for worker in workers)
    assert without_time(list(source.epoch(2))) == without_time(list(load().epoch(2)))
    source.close()
    assert len(started()) == (2 if persistent else 0)
    half = source.epoch(3)
    next(half)
    source.close()
    assert started() == set()


class Named(NamedTuple):
    image: Any
    label: Any


@dataclasses.dataclass
class Boxed:
    image: Any
    name: str


class Structured(Numbers):
    def __init__(self, kind: str) -> None:
        super().__init__(4)
        self.kind = kind

    def __getitem__(self, index: int) -> Any:
        image = np.full(2, index, np.float32)
        return {
            "named": Named(image, index),
            "dataclass": Boxed(image, f"n{index}"),
            "dict": {"image": image, "name": f"n{index}", "nested": [index, (image, "x")]},
            "strings": f"n{index}",
        }[self.kind]


def first_sample(samples: list[Any]) -> Any:
    return samples[0]


@pytest.mark.parametrize("kind", ["named", "dataclass", "dict", "strings"])
def test_batches_of_any_kind_go_through_workers(kind: str) -> None:
    def batches(workers: int) -> list[Any]:
        collate = first_sample if kind == "dataclass" else None
        loader = DataLoader(Structured(kind), batch_size=2, num_workers=workers, collate_fn=collate)
        return list(opened(loader).epoch(1))

    alone, worked = batches(0), batches(2)
    assert [type(batch) for batch in worked] == [type(batch) for batch in alone]
    expected = {
        "named": list,  # so the framework's own collate function has it
        "dataclass": Boxed,
        "dict": dict,
        "strings": list,
    }
    assert all(isinstance(batch, expected[kind]) for batch in worked)
    assert without_time(worked) == without_time(alone)


class Tensors(Numbers):
    """Samples that are tensors, as PaddlePaddle's own transforms give them."""

    def __getitem__(self, index: int) -> Any:
        image = paddle.full([3, 16, 16], float(index))
        return {"image": image, "half": image.astype("bfloat16"), "none": paddle.zeros([0, 3], "int32"), "at": index}


def described(batch: Any) -> Any:
    tensors = {key: (str(item.dtype), list(item.shape), item.astype("float64").tolist()) for key, item in batch.items()}
    return tensors | {"frozen": all(item.stop_gradient for item in batch.values())}


@pytest.mark.parametrize(("epochs", "persistent"), [(4, False), (2, True)])
def test_tensors_leave_a_worker_as_they_are(epochs: int, persistent: bool) -> None:
    here = [described(BACKEND.to_device(batch)) for batch in opened(DataLoader(Tensors(12), batch_size=2)).epoch(1)]
    source = opened(DataLoader(Tensors(12), batch_size=2, num_workers=2, persistent_workers=persistent))
    for epoch in range(1, epochs + 1):
        assert [described(batch) for batch in source.epoch(epoch)] == here, epoch
    assert here[0]["half"][0] == "paddle.bfloat16" and here[0]["none"][:2] == ("paddle.int32", [2, 0, 3])


@pytest.mark.long
@pytest.mark.timeout(900)
def test_tensors_leave_a_worker_as_they_are_200_times() -> None:
    test_tensors_leave_a_worker_as_they_are(200, False)


FLOAT8 = ["float8_e4m3fn", "float8_e5m2"]


def test_a_batch_of_anything_comes_from_a_worker_as_it_was_made() -> None:
    def collate(samples: list[int]) -> Any:
        learnt = paddle.ones([2])
        learnt.stop_gradient = False
        return {
            **{kind: paddle.arange(6).reshape([2, 3]).T.astype(kind) for kind in KINDS},
            **{kind: paddle.arange(4).astype("float32").astype(kind) for kind in FLOAT8},
            "scalar": paddle.to_tensor(2.5),
            "learnt": learnt,
            "texts": np.array(["a", "b"]),
            "objects": np.array([None, {}], dtype=object),
            "large": np.array([2**40], np.uint64),
        }

    [here], [there] = (
        list(opened(DataLoader(Numbers(2), batch_size=2, collate_fn=collate, num_workers=workers)).epoch(1))
        for workers in (0, 1)
    )
    assert here.keys() == there.keys()
    for key, item in here.items():
        found = there[key]
        assert type(found) is type(item) and found.dtype == item.dtype and list(found.shape) == list(item.shape), key
        if isinstance(item, paddle.Tensor):
            assert found.stop_gradient == item.stop_gradient
            item, found = item.detach(), found.detach()
        values = (
            (item.numpy().tolist(), found.numpy().tolist())
            if isinstance(item, paddle.Tensor)
            else (
                item.tolist(),
                found.tolist(),
            )
        )
        assert values[0] == values[1], key


def test_reading_begins_where_the_run_stopped() -> None:
    data = Numbers()
    assert run(DataLoader(data, batch_size=3), start=2) == [[6, 7, 8], [9]]
    assert data.read == [6, 7, 8, 9]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_dealt_out(workers: int) -> None:
    def dealt(rank: int, fill_up: bool) -> list[Any]:
        loader = DataLoader(Numbers(5), batch_size=1, num_workers=workers)
        return without_time(list(opened(loader, Share(rank, 3), fill_up).epoch(1)))

    assert [dealt(rank, False) for rank in range(3)] == [[[0], [3]], [[1], [4]], [[2]]]
    assert [dealt(rank, True) for rank in range(3)] == [[[0], [3]], [[1], [4]], [[2], [0]]]


KINDS = ["float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64"]
TENSORS = [paddle.arange(4), *(paddle.arange(24).reshape([4, 2, 3]).astype(kind) for kind in KINDS)]


@pytest.mark.parametrize("indices", [[2, 0], [3], [-1, 1, 1]])
def test_tensors_alone_are_read_at_once_and_come_as_they_would(indices: list[int]) -> None:
    parts = BACKEND.split_loader(DataLoader(TensorDataset(TENSORS)), STREAMS.isolated)
    assert isinstance(parts, MapParts) and parts.read_at_once is not None
    found = parts.read_at_once(indices)
    assert type(found) is list and len(found) == len(TENSORS)
    expected = parts.collate([parts.dataset[index] for index in indices])
    for item, wanted in zip(found, expected, strict=True):
        assert (item.dtype, item.shape) == (wanted.dtype, wanted.shape)
        assert item.astype("float64").tolist() == wanted.astype("float64").tolist()


class OwnTensors(TensorDataset):
    """May do anything in __getitem__."""


def test_what_may_draw_random_numbers_is_not_read_at_once() -> None:
    data = TensorDataset([paddle.arange(4)])
    for loader in (
        DataLoader(data, collate_fn=first_sample),
        DataLoader(OwnTensors([paddle.arange(4)])),
        DataLoader(data, batch_size=None),
    ):
        parts = BACKEND.split_loader(loader, STREAMS.isolated)
        assert isinstance(parts, MapParts)
        assert parts.read_at_once is None


def test_an_error_while_reading_is_raised_with_its_text() -> None:
    class Broken(Numbers):
        def __getitem__(self, index: int) -> int:
            raise ValueError(f"sample {index} is broken")

    with pytest.raises(ValueError, match="sample 0 is broken"):
        run(DataLoader(Broken(3)))


def test_what_a_spawned_worker_gets_can_be_sent() -> None:
    parts = BACKEND.split_loader(DataLoader(Augmented(4), batch_size=2), STREAMS.isolated)
    assert isinstance(parts, MapParts)
    read = ReadBatch(parts, STREAMS)
    sent = pickle.loads(ForkingPickler.dumps(read))
    keys = [BatchKey(5, [1, 3])]
    assert plain(sent(keys)) == plain(read(keys))


class InPair(Dataset):
    """Samples that are numbers, from one on."""

    def __init__(self, first: int, size: int) -> None:
        self.first, self.size = first, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> np.float32:
        if not 0 <= index < self.size:
            raise IndexError(index)
        return np.float32(self.first + index)


class ByClass(BatchSampler):
    """A batch sampler that gives each batch one sample of either half."""

    def __init__(self, size: int) -> None:  # not calling super's: it wants a dataset
        self.half = size // 2

    def __iter__(self) -> Iterator[list[int]]:
        low, high = (np.random.permutation(self.half).tolist() for _ in range(2))
        return iter([[one, self.half + other] for one, other in zip(low, high, strict=True)])

    def __len__(self) -> int:
        return self.half


def loaders_of_every_kind(**settings: Any) -> dict[str, Any]:
    """Loaders over 8 samples by what they are made of."""
    whole, parts = InPair(0, 8), [InPair(0, 3), InPair(3, 5)]
    STREAMS.seed(1)  # which the split draws from
    split = paddle.io.random_split(whole, [6, 2])
    composed = paddle.io.ComposeDataset([Pairs(0, 8), Pairs(10, 8)])
    subset = paddle.io.Subset(whole, [7, 1, 3])
    return {
        "subset": DataLoader(subset, batch_size=2, shuffle=True, **settings),
        "put together": DataLoader(paddle.io.ConcatDataset(parts), batch_size=3, shuffle=True, **settings),
        "split": DataLoader(paddle.io.Subset(whole, split[0].indices), batch_size=4, **settings),
        "composed": DataLoader(composed, batch_size=3, **settings),
        "weighted": sampled(whole, WeightedRandomSampler([1.0] * 8, 8, False), 3, **settings),
        "some": sampled(whole, SubsetRandomSampler([1, 3, 5]), 2, **settings),
        "by class": DataLoader(whole, batch_sampler=ByClass(8), **settings),
        "backwards": sampled(whole, Backwards(8), 3, **settings),
        "items": DataLoader(Pairs(0, 8), batch_size=None, **settings),
    } | ({} if settings else {"chained": DataLoader(paddle.io.ChainDataset([Stream(3), Stream(5)]), batch_size=3)})


class Pairs(InPair):
    def __getitem__(self, index: int) -> Any:
        return (np.full(1, self.first + index, np.float32),)


def values(batch: Any) -> list[Any]:
    return np.ravel(np.asarray(plain(batch))).tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_of_any_kind_gives_what_it_gives_by_hand(workers: int) -> None:
    settings = {"num_workers": workers} if workers else {}
    for name, loader in loaders_of_every_kind(**settings).items():
        seen = [values(batch) for batch in run(loader)]
        by_hand = [values(batch) for batch in loaders_of_every_kind()[name]]
        assert [len(batch) for batch in seen] == [len(batch) for batch in by_hand], name
        if name != "backwards" or seen != by_hand:
            assert sorted(flat(seen)) == sorted(flat(by_hand)), name


def test_what_changes_between_epochs_is_seen() -> None:
    sampler = WeightedRandomSampler([1.0, 0.0, 0.0, 0.0], 6)
    batch_sampler = BatchSampler(sampler=sampler, batch_size=2)
    loader = DataLoader(Numbers(4), batch_sampler=batch_sampler)
    assert run(loader) == [[0, 0]] * 3
    sampler.weights, sampler.num_samples, batch_sampler.batch_size = np.array([0.0, 0.0, 0.0, 1.0]), 4, 4
    assert run(loader) == [[3, 3, 3, 3]]
    loader.collate_fn, loader.dataset = sum, Numbers(5)
    assert run(loader) == [12]


@pytest.mark.gpu
@pytest.mark.skipif(not paddle.is_compiled_with_cuda(), reason="needs a GPU")
def test_batches_move_to_the_gpu() -> None:
    from dowdyboy_core.backend import DeviceRequest

    backend = PaddleBackend()
    backend.open(DeviceRequest("gpu"))
    loader = DataLoader(Structured("dict"), batch_size=2, num_workers=1)
    parts = backend.split_loader(loader, STREAMS.isolated)
    assert parts is not None
    batch = backend.to_device(next(open_loader(parts, STREAMS, 7, Share(), fill_up=True).epoch(1)))
    assert batch["image"].place.is_gpu_place()
    assert batch["nested"][1][0].place.is_gpu_place()
    assert batch["name"] == ["n0", "n1"]


class OwnReading(DataLoader):
    def __iter__(self) -> Iterator[Any]:
        yield from super().__iter__()


class Fatal(Numbers):
    """Ends or keeps waiting the process that reads its sixth sample."""

    def __init__(self, what: str) -> None:
        super().__init__(12)
        self.what = what

    def __getitem__(self, index: int) -> Any:
        if index == 5:
            if self.what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            threading.Event().wait(60)
        return super().__getitem__(index)


def fail(worker: int) -> None:
    raise LookupError("nothing", worker)


@pytest.mark.parametrize(
    ("what", "settings", "error", "said"),
    [
        ("kill", {}, SetupError, "of 2 of the OwnReading loader .* was killed by SIGKILL"),
        ("wait", {"timeout": 1}, SetupError, "of 2 of the OwnReading loader .* for 1 seconds"),
        ("none", {"worker_init_fn": fail}, LookupError, "nothing"),
    ],
)
def test_workers_of_a_loader_that_reads_for_itself_are_watched(
    what: str, settings: dict[str, Any], error: type[Exception], said: str
) -> None:
    loader = OwnReading(Fatal(what), batch_size=2, num_workers=2, **settings)
    parts = BACKEND.split_loader(loader, STREAMS.isolated)
    assert isinstance(parts, StreamParts)
    with pytest.raises(error, match=said):
        list(parts.batches())


class WithoutLength(Dataset):
    """Only its batch sampler knows what there is; PaddlePaddle's base class has a __len__ that raises."""

    def __getitem__(self, index: int) -> Any:
        return np.float32(index)


def test_workers_read_data_that_does_not_know_its_length() -> None:
    loader = DataLoader(WithoutLength(), batch_sampler=[[0, 1], [7]], num_workers=1)
    parts = BACKEND.split_loader(loader, STREAMS.isolated)
    assert isinstance(parts, MapParts)
    batches = open_loader(parts, STREAMS, 0, Share(), fill_up=True).epoch(1)
    assert [batch.tolist() for batch in batches] == [[0, 1], [7]]

"""Every kind of DataLoader, taken apart: the same batches in any process count, worker count and after a restart."""

from __future__ import annotations

import dataclasses
import multiprocessing
import pickle
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

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
from dowdyboy_torch._backend import TorchBackend

BACKEND = TorchBackend()
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
    """Samples that draw from all three global streams."""

    def __getitem__(self, index: int) -> Any:
        return index, random.random(), np.random.rand(), torch.rand(2)


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
    torch.manual_seed(99)
    np.random.seed(99)
    assert run(loader) == first
    assert run(loader, epoch=2) != first
    # Pinned: the same on the other framework, and in every version.
    assert flat(first) == [7, 4, 1, 9, 5, 0, 8, 3, 6, 2]


def test_drawing_batches_leaves_the_global_streams_alone() -> None:
    for loader in (
        DataLoader(Augmented(), batch_size=4, shuffle=True),
        DataLoader(Augmented(), batch_size=4, sampler=SubsetRandomSampler(range(10))),
        DataLoader(Augmented(), batch_size=4, num_workers=1),
        DataLoader(SizedStream(), batch_size=4),
    ):
        STREAMS.seed(3)
        run(loader)
        drawn = random.random(), np.random.rand(), torch.rand(1).item()
        STREAMS.seed(3)
        assert drawn == (random.random(), np.random.rand(), torch.rand(1).item())


class Backwards(Sampler):
    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.size - 1, -1, -1))

    def __len__(self) -> int:
        return self.size


def test_samplers() -> None:
    assert run(DataLoader(Numbers(5), batch_size=2, sampler=Backwards(5))) == [[4, 3], [2, 1], [0]]
    subset = DataLoader(Numbers(), batch_size=2, sampler=SubsetRandomSampler([2, 4, 6]))
    assert sorted(flat(run(subset))) == [2, 4, 6]
    assert run(subset) == run(subset)
    more = run(DataLoader(Numbers(4), batch_size=3, sampler=RandomSampler(Numbers(4), num_samples=9)))
    assert [len(batch) for batch in more] == [3, 3, 3]
    assert Counter(flat(more)[:4]) == Counter(flat(more)[4:8]) == Counter(range(4))
    again = run(DataLoader(Numbers(4), batch_size=50, sampler=RandomSampler(Numbers(4), True, num_samples=50)))
    assert set(flat(again)) == {0, 1, 2, 3}
    weighted = WeightedRandomSampler([0.0, 1.0, 0.0, 3.0], 40)
    assert set(flat(run(DataLoader(Numbers(4), batch_size=40, sampler=weighted)))) == {1, 3}
    dealt = DistributedSampler(Numbers(), num_replicas=2, rank=1, shuffle=False)
    assert flat(run(DataLoader(Numbers(), batch_size=4, sampler=dealt))) == list(range(10))


def test_a_sampler_with_a_generator_of_its_own_repeats_its_epochs() -> None:
    def build() -> Any:
        generator = torch.Generator()
        return DataLoader(Numbers(), batch_size=4, sampler=SubsetRandomSampler(range(10), generator=generator))

    loader = build()
    first, second = run(loader, 1), run(loader, 2)
    assert first != second
    assert run(build(), 2) == second


def test_batch_samplers() -> None:
    assert run(DataLoader(Numbers(5), batch_sampler=[[0, 4], [1], [2, 3]])) == [[0, 4], [1], [2, 3]]
    own = DataLoader(Numbers(5), batch_sampler=BatchSampler(Backwards(5), 2, drop_last=True))
    assert run(own) == [[4, 3], [2, 1]]

    class Unsized:
        def __iter__(self) -> Iterator[list[int]]:
            yield [random.randrange(5), int(torch.randint(5, ()))]

    loader = DataLoader(Numbers(5), batch_sampler=Unsized())
    assert opened(loader).count() is None
    assert run(loader) == run(loader)
    assert len({str(run(loader, epoch)) for epoch in range(8)}) > 1


def test_data_that_comes_batched() -> None:
    assert run(DataLoader(Numbers(3), batch_size=None)) == [0, 1, 2]
    shuffled = run(DataLoader(Numbers(6), batch_size=None, shuffle=True))
    assert sorted(shuffled) == list(range(6))

    class Bulk(Numbers):
        def __getitem__(self, index: Any) -> Any:
            return torch.tensor(index) * 10

    bulk = DataLoader(Bulk(5), batch_size=None, sampler=BatchSampler(Backwards(5), 2, drop_last=False))
    assert run(bulk) == [[40, 30], [20, 10], [0]]


def test_collate_functions() -> None:
    assert run(DataLoader(Numbers(3), batch_size=2, collate_fn=sum)) == [1, 2]
    assert run(DataLoader(Numbers(3), batch_size=None, collate_fn=str)) == ["0", "1", "2"]


def test_datasets_that_are_asked_for_a_batch_at_once() -> None:
    class Bulk(Numbers):
        def __getitems__(self, indices: list[int]) -> list[int]:
            assert all(type(index) is int for index in indices)
            return [index * 10 for index in indices]

    assert run(DataLoader(Bulk(3), batch_size=2)) == [[0, 10], [20]]
    assert run(DataLoader(Bulk(3), batch_size=2, num_workers=1)) == [[0, 10], [20]]
    subset = torch.utils.data.Subset(Numbers(), [7, 8, 9])
    assert run(DataLoader(subset, batch_size=2)) == [[7, 8], [9]]

    class Without(Numbers):
        __getitems__ = None

    assert run(DataLoader(Without(3), batch_size=2)) == [[0, 1], [2]]


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
                yield random.random(), np.random.rand(), torch.rand(1)

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
    loader = DataLoader(Augmented(), batch_size=2, shuffle=True, num_workers=2, persistent_workers=True)
    source = opened(loader)
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
        image = torch.full((2,), float(index))
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
    expected = {"named": Named, "dataclass": Boxed, "dict": dict, "strings": list}
    assert all(isinstance(batch, expected[kind]) for batch in worked)
    assert without_time(worked) == without_time(alone)


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


TENSORS = [
    torch.arange(4),
    torch.rand(4, 2, 3),
    torch.rand(4, 1).to(torch.bfloat16),
    torch.rand(4) > 0.5,
    torch.arange(8, dtype=torch.uint8).reshape(4, 2),
    torch.rand(3, 4).T,
]


@pytest.mark.parametrize("indices", [[2, 0], [3], [-1, 1, 1]])
def test_tensors_alone_are_read_at_once_and_come_as_they_would(indices: list[int]) -> None:
    parts = BACKEND.split_loader(DataLoader(TensorDataset(*TENSORS)), STREAMS.isolated)
    assert isinstance(parts, MapParts) and parts.read_at_once is not None
    found = parts.read_at_once(indices)
    assert type(found) is list and len(found) == len(TENSORS)
    expected = parts.collate([parts.dataset[index] for index in indices])
    for item, wanted in zip(found, expected, strict=True):
        assert (item.dtype, item.is_contiguous()) == (wanted.dtype, wanted.is_contiguous())
        assert torch.equal(item, wanted)
        assert not any(item.data_ptr() == tensor.data_ptr() for tensor in TENSORS)


class OwnTensors(TensorDataset):
    """May do anything in __getitem__."""


def test_what_may_draw_random_numbers_is_not_read_at_once() -> None:
    data = TensorDataset(torch.arange(4))
    for loader in (
        DataLoader(data, collate_fn=first_sample),
        DataLoader(OwnTensors(torch.arange(4))),
        DataLoader(data, batch_size=None),
    ):
        parts = BACKEND.split_loader(loader, STREAMS.isolated)
        assert isinstance(parts, MapParts)
        assert parts.read_at_once is None


def test_an_error_while_reading_is_raised_with_its_text() -> None:
    class Broken(Numbers):
        def __getitem__(self, index: int) -> int:
            raise ValueError(f"sample {index} is broken")

    for workers in (0, 1):
        with pytest.raises(ValueError, match="sample 0 is broken"):
            run(DataLoader(Broken(3), num_workers=workers))


def test_what_a_spawned_worker_gets_can_be_sent() -> None:
    parts = BACKEND.split_loader(DataLoader(Augmented(4), batch_size=2), STREAMS.isolated)
    assert isinstance(parts, MapParts)
    read = ReadBatch(parts, STREAMS)
    sent = pickle.loads(ForkingPickler.dumps(read))
    keys = [BatchKey(5, [1, 3])]
    assert plain(sent(keys)) == plain(read(keys))


class InPair(Dataset):
    """Samples that are tensors."""

    def __init__(self, first: int, size: int) -> None:
        self.first, self.size = first, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> torch.Tensor:
        if not 0 <= index < self.size:
            raise IndexError(index)
        return torch.tensor(float(self.first + index))


class ByClass:
    """A batch sampler that gives each batch one sample of either half, with a generator of its own."""

    def __init__(self, size: int) -> None:
        self.half = size // 2
        self.generator = torch.Generator()

    def __iter__(self) -> Iterator[list[int]]:
        low, high = (torch.randperm(self.half, generator=self.generator).tolist() for _ in range(2))
        return iter([[one, self.half + other] for one, other in zip(low, high, strict=True)])

    def __len__(self) -> int:
        return self.half


def loaders_of_every_kind(**settings: Any) -> dict[str, Any]:
    """Loaders over 8 samples by what they are made of."""
    whole, parts = InPair(0, 8), [InPair(0, 3), InPair(3, 5)]
    split = torch.utils.data.random_split(whole, [6, 2], torch.Generator().manual_seed(1))
    streams = [Stream(3), Stream(5)]
    return {
        "subset": DataLoader(torch.utils.data.Subset(whole, [7, 1, 3]), batch_size=2, shuffle=True, **settings),
        "put together": DataLoader(torch.utils.data.ConcatDataset(parts), batch_size=3, shuffle=True, **settings),
        "split": DataLoader(split[0], batch_size=4, **settings),
        "stacked": DataLoader(torch.utils.data.StackDataset(whole, InPair(10, 8)), batch_size=3, **settings),
        "weighted": DataLoader(whole, batch_size=3, sampler=WeightedRandomSampler([1.0] * 8, 8, False), **settings),
        "some": DataLoader(whole, batch_size=2, sampler=SubsetRandomSampler([1, 3, 5]), **settings),
        "by class": DataLoader(whole, batch_sampler=ByClass(8), **settings),
        "backwards": DataLoader(whole, batch_size=3, sampler=Backwards(8), drop_last=True, **settings),
        "items": DataLoader(whole, batch_size=None, shuffle=True, **settings),
    } | ({} if settings else {"chained": DataLoader(torch.utils.data.ChainDataset(streams), batch_size=3)})


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
    batch_sampler = BatchSampler(sampler, 2, False)
    loader = DataLoader(Numbers(4), batch_sampler=batch_sampler)
    assert run(loader) == [[0, 0]] * 3
    sampler.weights, sampler.num_samples, batch_sampler.batch_size = np.array([0.0, 0.0, 0.0, 1.0]), 4, 4
    assert run(loader) == [[3, 3, 3, 3]]
    loader.collate_fn = sum
    assert run(loader) == [12]


# A program of its own, since workers that start afresh can import no module of the tests.
SPAWNING = """
import random

import numpy as np
import torch
from dowdyboy_torch import Trainer, TrainerConfig
from torch.utils.data import DataLoader, Dataset


class Augmented(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return torch.tensor([index, random.random(), np.random.randn(), float(torch.rand(()))])


def read(out_dir, **options):
    batches = []
    model = torch.nn.Linear(4, 1)

    def train_step(trainer, bat, bat_idx, global_step):
        batches.append(bat.tolist())
        return model(bat).sum()

    trainer = Trainer(TrainerConfig(name="t", epoch=2, out_dir=out_dir, seed=5))
    trainer.set_train_dataloader(DataLoader(Augmented(), batch_size=2, shuffle=True, **options))
    trainer.set_model(model)
    trainer.set_optimizer(torch.optim.SGD(model.parameters(), lr=0.1))
    trainer.fit(train_step)
    return batches


if __name__ == "__main__":
    here, spawned = read("here"), read("spawned", num_workers=2, multiprocessing_context="spawn")
    assert here == spawned, (here, spawned)
    assert len(here) == 6
"""


def test_spawned_workers_draw_what_the_trainers_own_process_draws(tmp_path: Path) -> None:
    (tmp_path / "spawning.py").write_text(SPAWNING, encoding="utf-8")
    subprocess.run([sys.executable, "spawning.py"], cwd=tmp_path, check=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_move_to_the_gpu() -> None:
    from dowdyboy_core.backend import DeviceRequest

    backend = TorchBackend()
    backend.open(DeviceRequest("gpu"))
    loader = DataLoader(Structured("dict"), batch_size=2, pin_memory=True, num_workers=1)
    parts = backend.split_loader(loader, STREAMS.isolated)
    assert parts is not None
    batch = backend.to_device(next(open_loader(parts, STREAMS, 7, Share(), fill_up=True).epoch(1)))
    assert batch["image"].device == batch["nested"][1][0].device == backend.device()
    assert batch["name"] == ["n0", "n1"]

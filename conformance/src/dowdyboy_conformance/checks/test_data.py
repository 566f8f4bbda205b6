"""D: which batches the hooks get, in which order and shape."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import multiprocessing
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from dowdyboy_conformance._data import Indexed, Restarted, batches, plain
from dowdyboy_conformance._resuming import Killed
from dowdyboy_conformance.harnesses.harness import Harness

# Generator(PCG64(derive_seed(derive_seed(7, role), "order", epoch))).permutation(10)
ORDERS = {
    ("train", 1): [6, 4, 9, 5, 8, 1, 3, 0, 7, 2],
    ("train", 2): [0, 2, 7, 4, 8, 1, 5, 3, 9, 6],
    ("val", 1): [0, 9, 1, 2, 4, 3, 8, 7, 5, 6],
    ("test", 0): [4, 1, 5, 7, 3, 0, 2, 6, 8, 9],
}


def numbers(size: int) -> Indexed:
    return Indexed(size, lambda index: np.float32(index))


def indices(harness: Harness, seen: list[Any]) -> dict[int, list[list[int]]]:
    """For each epoch its batches as lists of ints."""
    found: dict[int, list[list[int]]] = {}
    for epoch, batch in seen:
        found.setdefault(epoch, []).append([int(item) for item in plain(harness, batch)])
    return found


def cut(order: list[int], size: int) -> list[list[int]]:
    return [order[at : at + size] for at in range(0, len(order), size)]


@pytest.mark.clause("D-2", "D-3", "D-5")
@pytest.mark.parametrize("workers", [0, 2])
def test_the_order_of_an_epoch_is_a_function_of_seed_and_epoch(harness: Harness, tmp_path: Path, workers: int) -> None:
    loader = harness.loader(numbers(10), 4, shuffle=True, workers=workers)
    found = indices(harness, batches(harness, tmp_path, loader, epoch=2, seed=7))
    assert found == {epoch: cut(ORDERS["train", epoch], 4) for epoch in (1, 2)}


@pytest.mark.clause("D-2")
@pytest.mark.parametrize("role", ["val", "test"])
def test_each_role_has_an_order_of_its_own(harness: Harness, tmp_path: Path, role: str) -> None:
    loader = harness.loader(numbers(10), 4, shuffle=True)
    found = indices(harness, batches(harness, tmp_path, loader, role=role, seed=7))
    epoch = 1 if role == "val" else 0
    assert found == {epoch: cut(ORDERS[role, epoch], 4)}


@pytest.mark.clause("D-2", "S-3")
def test_another_seed_gives_another_order(harness: Harness, tmp_path: Path) -> None:
    loader = harness.loader(numbers(10), 10, shuffle=True)
    found = [indices(harness, batches(harness, tmp_path, loader, seed=seed))[1][0] for seed in (7, 8)]
    assert found[0] == ORDERS["train", 1] and found[1] != found[0]
    assert sorted(found[1]) == list(range(10))


@pytest.mark.clause("D-3")
@pytest.mark.parametrize("drop_last", [False, True])
def test_a_short_last_batch_is_the_loaders_choice(harness: Harness, tmp_path: Path, drop_last: bool) -> None:
    loader = harness.loader(numbers(10), 4, drop_last=drop_last)
    expected = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]][: 2 if drop_last else 3]
    assert indices(harness, batches(harness, tmp_path, loader)) == {1: expected}


class Pair(NamedTuple):
    """A namedtuple."""

    first: Any
    second: Any


@dataclasses.dataclass
class Named:
    """A dataclass."""

    tensor: Any
    name: str


class Marked(dict[str, Any]):
    """A dict with a type of its own."""


@pytest.mark.clause("D-4")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_of_any_nesting_keeps_its_types(harness: Harness, tmp_path: Path, workers: int) -> None:
    marker = Marked

    def collate(samples: list[int]) -> Any:
        tensor = harness.tensor(np.array(samples, np.float32))
        return {
            "pair": Pair(tensor, [tensor, (tensor, "text")]),
            "named": Named(tensor, "name"),
            "marked": marker(a=tensor, b=None),
            "ordered": collections.OrderedDict(z=1, a=2.5),
            "samples": tuple(samples),
            "bytes": b"raw",
            "nothing": [],
        }

    loader = harness.loader(Indexed(3, lambda index: index), 2, workers=workers, collate=collate)
    seen = [batch for _, batch in batches(harness, tmp_path, loader)]
    assert [batch["samples"] for batch in seen] == [(0, 1), (2,)]
    for batch in seen:
        assert type(batch) is dict and type(batch["pair"]) is Pair and type(batch["named"]) is Named
        assert type(batch["marked"]) is Marked and type(batch["ordered"]) is collections.OrderedDict
        assert type(batch["pair"].second) is list and type(batch["pair"].second[1]) is tuple
        tensors = [batch["pair"].first, batch["pair"].second[0], batch["named"].tensor, batch["marked"]["a"]]
        assert all(harness.is_tensor(tensor) for tensor in tensors)
        assert all(tuple(harness.numpy(tensor)) == batch["samples"] for tensor in tensors)
        assert batch["pair"].second[1][1] == "text" and batch["named"].name == "name"
        assert batch["marked"]["b"] is None and batch["ordered"] == {"z": 1, "a": 2.5}
        assert batch["bytes"] == b"raw" and batch["nothing"] == []


@pytest.mark.clause("D-4")
@pytest.mark.parametrize("workers", [0, 2])
def test_the_frameworks_own_collate_serves_dicts_with_text(harness: Harness, tmp_path: Path, workers: int) -> None:
    data = Indexed(3, lambda index: {"x": np.full(2, index, np.float32), "name": f"n{index}", "y": index})
    seen = batches(harness, tmp_path, harness.loader(data, 2, workers=workers))
    assert [plain(harness, batch) for _, batch in seen] == [
        {"x": [[0, 0], [1, 1]], "name": ["n0", "n1"], "y": [0, 1]},
        {"x": [[2, 2]], "name": ["n2"], "y": [2]},
    ]
    assert all(harness.is_tensor(batch["x"]) and harness.is_tensor(batch["y"]) for _, batch in seen)


@pytest.mark.clause("D-9")
def test_arrays_in_a_batch_are_what_the_frameworks_own_loader_makes_of_them(harness: Harness, tmp_path: Path) -> None:
    seen = batches(harness, tmp_path, [{"array": np.ones(2, np.float32), "text": np.array(["a"])}])
    batch = seen[0][1]
    assert harness.is_tensor(batch["array"]) is harness.arrays_become_tensors
    assert plain(harness, batch["array"]) == [1.0, 1.0]
    assert isinstance(batch["text"], np.ndarray), "there is no tensor of texts"


@pytest.mark.clause("D-1", "D-6")
@pytest.mark.parametrize("kind", ["list", "iterable", "stream", "stream of batches", "stream with workers"])
def test_data_without_indices_starts_afresh_each_epoch(harness: Harness, tmp_path: Path, kind: str) -> None:
    def start() -> Iterator[Any]:
        return iter([np.float32(index) for index in range(5)])

    pieces = [[0, 1], [2, 3], [4]]
    loader: Any = {
        "list": lambda: [list(piece) for piece in pieces],
        "iterable": lambda: Restarted(lambda: iter([list(piece) for piece in pieces])),
        "stream": lambda: harness.loader(harness.stream(start), 2),
        "stream of batches": lambda: harness.loader(harness.stream(lambda: iter(map(np.array, pieces))), None),
        "stream with workers": lambda: harness.loader(harness.stream(start), 2, workers=1),
    }[kind]()  # type: ignore[no-untyped-call]
    found = indices(harness, batches(harness, tmp_path, loader, epoch=2))
    assert found == {1: pieces, 2: pieces}


class Sampler:
    """A batch sampler of the user's own, with random numbers and set_epoch."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        """Notes the epoch."""
        self.epochs.append(epoch)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.permutation(6).tolist()
        return iter([order[:1], order[1:3], order[3:]])

    def __len__(self) -> int:
        return 3


@pytest.mark.clause("D-7", "S-5")
def test_a_batch_sampler_is_asked_anew_with_seeded_streams(harness: Harness, tmp_path: Path) -> None:
    found = []
    for noise in (0, 5):
        loader = harness.batched_by(numbers(6), Sampler())
        draw = partial(np.random.rand, noise)  # what a hook has drawn before must not matter
        found.append(indices(harness, batches(harness, tmp_path, loader, then=draw, epoch=2)))
    assert found[0] == found[1]
    for epoch in (1, 2):
        assert [len(batch) for batch in found[0][epoch]] == [1, 2, 3]
        assert sorted(index for batch in found[0][epoch] for index in batch) == list(range(6))
    assert found[0][1] != found[0][2]


@pytest.mark.clause("D-7")
def test_a_batch_sampler_is_told_the_epoch(harness: Harness, tmp_path: Path) -> None:
    sampler = Sampler()
    batches(harness, tmp_path, harness.batched_by(numbers(6), sampler), epoch=3)
    assert sampler.epochs == [1, 2, 3]


@pytest.mark.clause("D-8")
@pytest.mark.parametrize("workers", [0, 2])
def test_data_that_comes_in_batches(harness: Harness, tmp_path: Path, workers: int) -> None:
    data = Indexed(3, lambda index: np.arange(index + 1, dtype=np.float32))
    found = indices(harness, batches(harness, tmp_path, harness.loader(data, None, workers=workers)))
    assert found == {1: [[0], [0, 1], [0, 1, 2]]}


@pytest.mark.clause("D-10")
@pytest.mark.parametrize(("role", "fails"), [("train", True), ("train", False), ("val", True), ("test", True)])
def test_workers_end_with_the_run_that_they_read_for(harness: Harness, tmp_path: Path, role: str, fails: bool) -> None:
    others, seen = set(multiprocessing.active_children()), []

    def note() -> None:
        seen.append(set(multiprocessing.active_children()) - others)
        if fails and len(seen) == 3:
            raise Killed

    # What went wrong is kept, as it is in a notebook, and with it all that was at work.
    with pytest.raises(Killed) if fails else contextlib.nullcontext() as kept:
        batches(harness, tmp_path, harness.loader(numbers(40), 2, workers=2), role=role, then=note)
    for worker in seen[0]:
        worker.join(5)  # told to end; its last breath may take a moment
    assert [len(seen[0]), [worker for worker in seen[0] if worker.is_alive()]] == [2, []], kept

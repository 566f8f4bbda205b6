"""D: every loader is itself: what reads in a way of its own, what changes between epochs, what has no end."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance._data import Augmented, Indexed, Restarted, batches, plain
from dowdyboy_conformance._problem import config, layers
from dowdyboy_conformance._resuming import Killed
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core import SetupError

both = pytest.mark.parametrize("workers", [0, 2])


def numbers(size: int) -> Indexed:
    return Indexed(size, lambda index: np.float32(index))


def found(harness: Harness, seen: list[Any], epoch: int = 1) -> list[list[float]]:
    """The batches of an epoch as lists."""
    return [plain(harness, batch) for ep, batch in seen if ep == epoch]


def own(loader: Any, **members: Any) -> Any:
    """A loader of a class of the user's own below that of the framework."""
    loader.__class__ = type("Own", (type(loader),), members)
    return loader


def doubling(loader: Any) -> Iterator[Any]:
    """An ``__iter__`` of the user's own: twice the batches, without the last."""
    read = list(super(type(loader), loader).__iter__())
    for features, classes in read[:-1]:
        yield features * 2, classes


def rows(harness: Harness, seen: list[Any], epoch: int) -> list[Any]:
    return [harness.numpy(bat[0]).tolist() for ep, bat in seen if ep == epoch]


@pytest.mark.clause("D-14", "S-5", "D-10")
@both
@pytest.mark.parametrize("around", [False, True])
def test_a_loader_that_reads_in_a_way_of_its_own_is_run_as_it_is(
    harness: Harness, tmp_path: Path, capfd: pytest.CaptureFixture[str], workers: int, around: bool
) -> None:
    children = set(multiprocessing.active_children())

    def read(noise: int, **settings: Any) -> tuple[list[Any], list[float]]:
        data = Augmented(harness, 10)
        data.features = np.arange(1, 11, dtype=np.float32)[:, None]
        loader = own(harness.loader(data, 3, shuffle=True, workers=workers), __iter__=doubling, __len__=lambda self: 3)
        kind = type(loader)
        drawn: list[float] = []

        def then() -> None:
            drawn.append(harness.draw())
            np.random.rand(noise)

        given = Around(loader) if around else loader
        seen = batches(harness, tmp_path, given, then=then, epoch=2, **settings)
        assert type(loader) is kind
        return seen, drawn

    capfd.readouterr()
    (seen, drawn), (again, _) = read(0, disable_tqdm=False), read(3)
    assert "3/3" in capfd.readouterr().err
    first, second = rows(harness, seen, 1), rows(harness, seen, 2)
    assert [len(batch) for batch in first] == [3, 3, 3]
    # Noise multiplies a number by 1 to 1.3, and no number is doubled twice.
    assert all(2 <= row[0] <= 26 for batch in first for row in batch)
    assert len({row[0] for batch in first + second for row in batch}) == 18, "other noise in each epoch"
    assert [rows(harness, again, epoch) for epoch in (1, 2)] == [first, second]
    others: list[float] = []
    batches(harness, tmp_path, [0] * 3, then=lambda: others.append(harness.draw()), epoch=2)
    assert others == drawn, "reading leaves the streams alone"
    for worker in set(multiprocessing.active_children()) - children:
        worker.join(5)
    assert not [worker for worker in set(multiprocessing.active_children()) - children if worker.is_alive()]


class Around:
    """A prefetcher, say: an object around a loader."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        yield from self.loader


@pytest.mark.clause("D-14", "C-7")
@both
def test_a_run_goes_on_within_an_epoch_of_such_a_loader(harness: Harness, tmp_path: Path, workers: int) -> None:
    def run(out_dir: Path, stop_at: int | None = None, **settings: Any) -> dict[int, Any]:
        data = Augmented(harness, 10)
        loader = own(harness.loader(data, 3, shuffle=True, workers=workers), __iter__=doubling)
        settings = {"enable_save_checkpoint": True, "save_steps": 1, "epoch": 2, **settings}
        trainer = harness.make_trainer(config(out_dir, auto_optimize=False, **settings))
        trainer.set_model(harness.model(layers(1, 1)))
        trainer.set_train_dataloader(loader)
        seen: dict[int, Any] = {}

        def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
            if global_step == stop_at:
                raise Killed
            seen[global_step] = harness.numpy(bat[0]).tolist()

        trainer.fit(step)
        return seen

    whole = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "parts", stop_at=4)
    rest = run(tmp_path / "parts", resume="auto")
    assert sorted(rest) == [4, 5]
    assert rest == {step: whole[step] for step in rest}


@pytest.mark.clause("D-14", "D-2")
def test_a_subclass_that_reads_as_its_framework_does_is_taken_apart(harness: Harness, tmp_path: Path) -> None:
    def shuffled() -> Any:
        return harness.loader(numbers(10), 4, shuffle=True)

    mine = own(shuffled(), tell=lambda self: 1, __init__=lambda self: None)
    assert found(harness, batches(harness, tmp_path, mine)) == found(harness, batches(harness, tmp_path, shuffled()))


class Batches:
    """A batch sampler of the user's own that can be changed."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Iterator[list[int]]:
        return iter([[index] for index in range(self.size)])

    def __len__(self) -> int:
        return self.size


@pytest.mark.clause("D-15")
@both
@pytest.mark.parametrize("before", [2, 6])
def test_an_epoch_is_made_of_what_is_there_when_it_begins(
    harness: Harness, tmp_path: Path, workers: int, before: int
) -> None:
    data, own_batches = numbers(before), Batches(before)
    for loader in (harness.loader(data, 2, workers=workers), harness.batched_by(data, own_batches)):
        data.size = own_batches.size = before
        left = [len(range(0, before, 2)) if loader is not None and loader.batch_size else before]

        def change(left: list[int] = left) -> None:
            left[0] -= 1
            if not left[0]:
                data.size = own_batches.size = 4

        seen = batches(harness, tmp_path, loader, then=change, epoch=2)
        samples = [[item for batch in found(harness, seen, epoch) for item in batch] for epoch in (1, 2)]
        assert samples == [list(range(before)), list(range(4))]


class Endless:
    """A batch sampler that has no end, and may say that it has one."""

    def __init__(self) -> None:
        self.given = 0

    def __iter__(self) -> Iterator[list[int]]:
        while True:
            self.given += 1
            yield [0] * 64


class Liar(Endless):
    """One that says so."""

    def __len__(self) -> int:
        return 200


@pytest.mark.clause("D-16")
@pytest.mark.parametrize("kind", [Endless, Liar])
def test_a_sampler_without_an_end_is_refused(harness: Harness, tmp_path: Path, kind: type[Endless]) -> None:
    sampler = kind()
    with pytest.raises(SetupError, match="it seems to have no end"):
        batches(harness, tmp_path, harness.batched_by(numbers(2), sampler))
    assert sampler.given <= 2**20 // 64 + 1


class Told(Indexed):
    """Data that notes its epoch, and shows it in its samples."""

    def __init__(self, size: int) -> None:
        super().__init__(size, lambda index: np.float32(100 * self.epochs[-1] + index))
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        """Notes the epoch."""
        self.epochs.append(epoch)


class Within(Batches):
    """A batch sampler with a sampler in it."""

    def __init__(self, sampler: Any) -> None:
        super().__init__(2)
        self.sampler = sampler


@pytest.mark.clause("D-17", "D-7")
@both
def test_everything_is_told_the_epoch(harness: Harness, tmp_path: Path, workers: int) -> None:
    data, sampler = Told(2), Told(0)
    seen = batches(harness, tmp_path, harness.loader(data, 2, workers=workers), epoch=3)
    assert [found(harness, seen, epoch) for epoch in (1, 2, 3)] == [[[100, 101]], [[200, 201]], [[300, 301]]]
    batches(harness, tmp_path, harness.batched_by(data, Within(sampler)), epoch=2)
    assert [data.epochs, sampler.epochs] == [[1, 2, 3, 1, 2], [1, 2]]
    stream = harness.stream(lambda: iter([np.float32(len(told))]))
    told: list[int] = []
    stream.set_epoch = told.append
    seen = batches(harness, tmp_path, harness.loader(stream, 1, workers=min(workers, 1)), epoch=2)
    assert [found(harness, seen, epoch) for epoch in (1, 2)] == [[[1]], [[2]]]
    around = Restarted(lambda: iter([0]))
    around.set_epoch = told.append  # type: ignore[attr-defined]
    batches(harness, tmp_path, around, epoch=2)
    assert told == [1, 2, 1, 2]


def _kinds(harness: Harness) -> dict[str, Callable[[int], Any]]:
    data = numbers(7)
    items = Indexed(3, lambda index: np.array([index], np.float32))
    stream = harness.stream(lambda: iter(map(np.float32, range(5))))
    return {
        "in order": lambda workers: harness.loader(data, 2, workers=workers),
        "shuffled": lambda workers: harness.loader(data, 2, shuffle=True, workers=workers),
        "drop_last": lambda workers: harness.loader(data, 7, drop_last=True, workers=workers),
        "items": lambda workers: harness.loader(items, None, workers=workers),
        "stream": lambda workers: harness.loader(stream, 2, workers=workers // 2),
        "own batches": lambda workers: harness.batched_by(data, [[0, 3], [6], [1, 1, 2]]),
        "own class": lambda workers: own(
            harness.loader(data, 2, shuffle=True, workers=workers), __len__=lambda self: 4
        ),
        "around": lambda workers: Around(harness.loader(data, 2, workers=workers)),
    }


@pytest.mark.clause("D-18", "D-5")
@both
def test_a_loader_gives_what_it_gives_by_hand(harness: Harness, tmp_path: Path, workers: int) -> None:
    for name, make in _kinds(harness).items():
        seen = found(harness, batches(harness, tmp_path, make(workers)))
        by_hand = [plain(harness, batch) for batch in make(0)]
        assert [len(batch) for batch in seen] == [len(batch) for batch in by_hand], name
        assert sorted(chain(*seen)) == sorted(chain(*by_hand)), name

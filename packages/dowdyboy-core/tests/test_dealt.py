"""Data that is dealt out already: who is told the epoch, who is believed, what is compared; and loaders as they are."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Iterator
from threading import Barrier, Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dowdyboy_core import SetupError
from dowdyboy_core._run.agreement import check_parts, check_same, in_rounds
from dowdyboy_core._run.digests import digest_of
from dowdyboy_core.backend.dealt import Dealing, find_dealing, tell_epoch
from dowdyboy_core.backend.own_loaders import OwnReading, note_reader, reads_for_itself


class Thing:
    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Told(Thing):
    def set_epoch(self, epoch: int) -> None:
        self.epochs = [*getattr(self, "epochs", []), epoch]


def test_each_is_told_once_and_what_lies_within_one_that_is_not() -> None:
    inner, data, sampler, part = Told(), Told(), Told(), Told()
    loader = Thing(
        dataset=Thing(datasets=[part, Thing(dataset=data)]), sampler=sampler, batch_sampler=Thing(sampler=sampler)
    )
    tell_epoch(loader, 4)
    assert [part.epochs, data.epochs, sampler.epochs] == [[4]] * 3
    tell_epoch(Told(dataset=Told(dataset=inner)), 4)
    assert not hasattr(inner, "epochs"), "that is for the one around it to pass on"


@pytest.mark.parametrize(
    "names",
    [("num_replicas", "rank"), ("nranks", "local_rank"), ("world_size", "rank"), ("num_processes", "process_index")],
)
def test_a_sampler_that_knows_of_the_processes_is_believed(names: tuple[str, str]) -> None:
    sampler = Thing(**dict(zip(names, (2, 1), strict=True)))
    assert find_dealing(Thing(), [sampler], [], 2) == Dealing("Thing", 1)
    assert find_dealing(Thing(), [Thing(sampler=sampler)], [], 2) == Dealing("Thing", 1)
    assert find_dealing(Thing(dataset=sampler), [], [], 2) is None, "a dataset may know it for other reasons"
    assert find_dealing(Thing(), [], [Thing(_distributed=sampler)], 2) == Dealing("Thing", 1)
    with pytest.raises(SetupError, match="over 2 processes"):
        find_dealing(Thing(), [sampler], [], 3)
    assert find_dealing(Thing(dealt_out=False), [sampler], [], 3) is False
    assert find_dealing(Thing(dataset=Thing(dealt_out=True)), [], [], 3) == Dealing("Thing", None)
    assert find_dealing(Thing(), [Thing(num_replicas=1, rank=0), Thing(num_replicas="2", rank=None)], [], 2) is None


def test_digests_are_of_what_is_in_a_batch() -> None:
    def digest(batch: Any) -> str:
        return digest_of(batch, lambda value: None)

    def batch(number: Any = 1, text: str = "a") -> Any:
        whole = UserDict({"x": [np.float32(number), (text, None)], "y": Thing(inner={"z": np.arange(3) + number})})
        whole["itself"] = whole
        return whole

    assert digest(batch()) == digest(batch())
    assert len({digest(batch()), digest(batch(2)), digest(batch(1, "b"))}) == 3
    arrays = [
        np.zeros(2),
        np.zeros((2, 1)),
        np.zeros(2, np.float32),
        np.zeros(0),
        np.array(["a"], object),
        np.array(["b"], object),
    ]
    assert len({digest(array) for array in arrays}) == len(arrays)
    assert len({digest(value) for value in (1, True, "1", 1.0, None, [1], (1,), {1: 2}, {2: 1})}) == 9


def test_what_is_compared() -> None:
    dealing = Dealing("Part", 0)
    check_same("val", lambda value: [value, value], 3, ["a", None])
    check_same("val", lambda value: [value, (3, ["b", None])], 3, [None, "x"])
    with pytest.raises(SetupError, match="first batch of process 1 is not that"):
        check_same("val", lambda value: [value, (3, ["b"])], 3, ["a"])
    check_parts("val", lambda value: [value, (1, "b", 4)], dealing, 3, "a")
    with pytest.raises(SetupError, match="unequal numbers of batches: 3, 4, by process"):
        check_parts("train", lambda value: [value, (1, "b", 4)], dealing, 3, "a")
    with pytest.raises(SetupError, match="gives all the same first batch"):
        check_parts("train", lambda value: [value, (1, "a", 3)], dealing, 3, "a")
    with pytest.raises(SetupError, match="the parts are 0, 0"):
        check_parts("train", lambda value: [value, value], dealing, 3, "a")


def rounds(sizes: list[int], start: int = 0) -> list[Any]:
    """What each of several processes, here threads, gets of streams of some sizes, or the error."""
    found: list[Any] = [None] * len(sizes)
    barrier, said = Barrier(len(sizes)), [None] * len(sizes)

    def run(rank: int) -> None:
        def gather(value: Any) -> list[Any]:
            said[rank] = value
            barrier.wait(10)
            together = list(said)
            barrier.wait(10)
            return together

        def largest(numbers: Any) -> list[int]:
            return [max(column) for column in zip(*gather(tuple(numbers)), strict=True)]

        try:
            found[rank] = list(in_rounds(iter(range(sizes[rank])), start, gather, largest, "Stream"))
        except SetupError as error:
            found[rank] = str(error)

    threads = [Thread(target=run, args=(rank,)) for rank in range(len(sizes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


def test_rounds_end_together_and_the_last_is_filled_up() -> None:
    assert rounds([2, 2]) == [[0, 1], [0, 1]]
    assert rounds([0, 0]) == [[], []]
    assert rounds([3, 2, 2]) == [[0, 1, 2], [0, 1, 0], [0, 1, 0]]
    assert rounds([3, 2], start=1) == [[1, 2], [1, 0]]
    assert rounds([3, 2], start=2) == [[2], [0]]
    assert rounds([3, 2], start=3) == [[], []]
    for sizes in ([4, 2], [1, 0]):
        told = ", ".join(map(str, sizes))
        assert all(f"unequal numbers of batches: {told}" in text for text in rounds(sizes))
    assert all(isinstance(text, str) for text in rounds([5, 2], start=3))


class Native:
    """A framework's loader."""

    def __init__(self) -> None:
        self.data = [1, 2, 3]

    def __iter__(self) -> Iterator[int]:
        return iter(self.data)


class Between(Native):
    def __iter__(self) -> Iterator[int]:
        def read() -> Iterator[int]:
            yield from (item * 10 for item in self.data)

        return note_reader(self, read())  # type: ignore[no-any-return]


class Own(Native):
    def __iter__(self) -> Iterator[int]:
        yield from super(type(self), self).__iter__()


class Further(Native):
    size = 5

    def tell(self) -> None: ...


def test_what_reads_in_a_way_of_its_own() -> None:
    found = {kind: reads_for_itself(kind, Native, ["__iter__", "size"]) for kind in (Native, Further, Own)}
    assert found == {Native: False, Further: False, Own: True}
    assert reads_for_itself(type("Sized", (Native,), {"size": property(len)}), Native, ["size"])


def test_a_class_is_put_between_while_it_is_read_and_no_longer() -> None:
    ended: list[Any] = []
    for loader in (Own(), SimpleNamespaceAround(Native())):
        kind = type(loader)
        reading, other = OwnReading(loader, Between, ended.append), OwnReading(loader, Between, ended.append)
        assert [next(reading), next(other)] == [10, 10]
        reading.close()
        assert next(other) == 20, "which still stands on it"
        other.close()
        assert type(loader) is kind and next(iter(loader)) == 1
    assert list(OwnReading(Own(), Between, ended.append)) == [10, 20, 30]
    assert Own.__bases__ == (Native,)


class SimpleNamespaceAround(SimpleNamespace):
    """An object around a loader."""

    def __init__(self, loader: Any) -> None:
        super().__init__(loader=loader)

    def __iter__(self) -> Iterator[int]:
        yield from self.loader


class Twice(SimpleNamespaceAround):
    def __iter__(self) -> Iterator[int]:
        yield from self.loader
        yield from self.loader


def test_what_is_begun_anew_within_an_epoch_still_stands_on_it_after_another_epoch_of_a_hook() -> None:
    ended: list[Any] = []
    for around in (Twice(Native()), Twice(Own())):
        kind = type(around.loader)
        epoch = OwnReading(around, Between, ended.append)
        assert next(epoch) == 10
        assert list(OwnReading(around, Between, print)) == [10, 20, 30] * 2, "a test in a hook, say"
        assert [next(epoch) for _ in range(3)] == [20, 30, 10]
        reader = around.loader._readers_of_the_trainer[-1][-1]()
        epoch.close()
        assert ended.pop() is reader and type(around.loader) is kind and kind.__mro__[-2] is Native
        assert "_readers_of_the_trainer" not in vars(around.loader)


def test_a_loader_that_fails_to_start_stands_on_its_own_class_again() -> None:
    class Failing(Native):
        def __iter__(self) -> Iterator[int]:
            raise ValueError("not today")

    with pytest.raises(ValueError, match="not today"):
        OwnReading(Failing(), Between, print)
    assert Failing.__bases__ == (Native,)

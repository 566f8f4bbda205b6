"""D: processes that read for a loader: what they are told, what they raise, and that nobody waits for them in vain."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance._data import Indexed, batches, plain
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core import SetupError
from dowdyboy_core.backend import pool as _pool

# ---- the user's own dataset


@pytest.mark.clause("D-11")
@pytest.mark.parametrize("kind", ["by index", "stream"])
def test_a_worker_begins_with_the_users_own_dataset(harness: Harness, tmp_path: Path, kind: str) -> None:
    def opened(number: int) -> None:
        harness.worker_dataset().opened = 10 * number + 5

    if kind == "by index":
        data: Any = Indexed(4, lambda index: np.int64(index + 100 * getattr(data, "opened", -1)))
        expected = [[500, 501], [1502, 1503]]
    else:
        data = harness.stream(lambda: iter([np.int64(100 * getattr(data, "opened", -1))] * 2))
        expected = [[500, 500], [1500, 1500]]
    for persistent in (False, True):
        loader = harness.loader(data, 2, workers=2, init=opened, persistent=persistent)
        found = [(epoch, plain(harness, batch)) for epoch, batch in batches(harness, tmp_path, loader, epoch=2)]
        assert found == [(epoch, batch) for epoch in (1, 2) for batch in expected]
    assert not hasattr(data, "opened"), "a worker has a copy"


# ---- streams that draw


@pytest.mark.clause("S-4", "D-10")
def test_a_stream_that_draws_does_not_depend_on_restarts_or_workers_that_stay(harness: Harness, tmp_path: Path) -> None:
    def start() -> Iterator[Any]:
        for index in range(4):
            yield np.float32(index + harness.draw()), np.float32(np.random.rand())

    def epochs(workers: int, persistent: bool, **changed: Any) -> dict[int, list[Any]]:
        loader = harness.loader(harness.stream(start), 2, workers=workers, persistent=persistent)
        found: dict[int, list[Any]] = {}
        for epoch, batch in batches(harness, tmp_path, loader, **changed):
            found.setdefault(epoch, []).append(plain(harness, batch))
        return found

    here = epochs(0, False, epoch=3)
    assert [len(here[epoch]) for epoch in (1, 2, 3)] == [2, 2, 2] and here[1] != here[2] != here[3]
    assert epochs(1, False, epoch=3) == epochs(1, True, epoch=3) == here
    several = [epochs(2, persistent, epoch=3) for persistent in (False, True)]
    assert several[0] == several[1] and [len(several[0][epoch]) for epoch in (1, 2, 3)] == [4, 4, 4]
    assert several[0][1][0] != several[0][1][1], "workers draw different numbers"


# ---- errors


class Refusal(Exception):
    """An exception that can't be made of what it is printed as."""

    def __init__(self, path: str, *, line: int) -> None:
        super().__init__(f"{path}, line {line}")
        self.path = path
        self.line = line


def refuse(*given: Any) -> Any:
    raise Refusal("data.csv", line=7)


@pytest.mark.clause("D-12")
@pytest.mark.parametrize(
    ("place", "workers"),
    [
        *((place, workers) for place in ("dataset", "stream", "collate function") for workers in (0, 1)),
        ("first thing of a worker", 1),
        ("batch sampler", 0),
    ],
)
def test_an_error_while_reading_is_the_users_own(harness: Harness, tmp_path: Path, place: str, workers: int) -> None:
    def start() -> Iterator[Any]:
        yield np.float32(1)
        refuse()

    class Sampler:
        def __iter__(self) -> Iterator[list[int]]:
            yield refuse()

        def __len__(self) -> int:
            return 1

    good = Indexed(4, np.float32)
    loader = {
        "dataset": lambda: harness.loader(Indexed(4, refuse), 2, workers=workers),
        "stream": lambda: harness.loader(harness.stream(start), 1, workers=workers),
        "collate function": lambda: harness.loader(good, 2, workers=workers, collate=refuse),
        "first thing of a worker": lambda: harness.loader(good, 2, workers=workers, init=refuse),
        "batch sampler": lambda: harness.batched_by(good, Sampler()),
    }[place]()
    with pytest.raises(Refusal) as caught:
        batches(harness, tmp_path, loader)
    assert caught.value.args == ("data.csv, line 7",)
    assert (caught.value.path, caught.value.line) == ("data.csv", 7)
    if workers:
        shown = str(caught.value.__cause__)
        assert re.match(r"in worker 0 of 1 of the train loader \(process \d+\):", shown), shown
        assert 'raise Refusal("data.csv", line=7)' in shown


@pytest.mark.clause("D-12")
def test_python_s_own_errors_stay_what_they_are(harness: Harness, tmp_path: Path) -> None:
    def missing(index: int) -> Any:
        return dict[str, int]()["absent"]

    def unopened(index: int) -> Any:
        return (tmp_path / "absent").read_bytes()

    def ended(index: int) -> Any:
        raise SystemExit(3)

    for make, kind, args in (
        (missing, KeyError, ("absent",)),
        (unopened, FileNotFoundError, (2, os.strerror(2))),
        (ended, SystemExit, (3,)),
    ):
        with pytest.raises(kind) as caught:
            batches(harness, tmp_path, harness.loader(Indexed(2, make), 2, workers=1))
        assert type(caught.value) is kind and caught.value.args == args
        assert getattr(caught.value, "filename", None) == (
            str(tmp_path / "absent") if kind is FileNotFoundError else None
        )


@pytest.mark.clause("D-12")
def test_a_batch_that_cannot_be_sent_is_refused(harness: Harness, tmp_path: Path) -> None:
    def collate(samples: list[int]) -> Any:
        return {"number": samples[0], "function": lambda: samples}

    assert len(batches(harness, tmp_path, harness.loader(Indexed(2, int), 2, collate=collate))) == 1
    loader = harness.loader(Indexed(2, int), 2, workers=1, collate=collate)
    with pytest.raises(SetupError, match=r"^Worker 0 of 1 .* can't send a batch: .* num_workers=0\.$"):
        batches(harness, tmp_path, loader)


# ---- workers that are no more, or don't answer


def in_a_worker(what: Callable[[], Any]) -> Callable[[int], Any]:
    """Samples, before the first of which a worker does something."""
    home = os.getpid()

    def make(index: int) -> Any:
        assert os.getpid() != home
        if index == 0:
            what()
        return np.float32(index)

    return make


@pytest.mark.clause("D-13")
@pytest.mark.parametrize("end", ["killed", "crashed", "gone"])
def test_a_worker_that_is_no_more_is_named(harness: Harness, tmp_path: Path, end: str) -> None:
    what, said = {
        "killed": (lambda: os.kill(os.getpid(), signal.SIGKILL), r"was killed by SIGKILL\. The system .* memory"),
        "crashed": (lambda: ctypes.string_at(0), r"was killed by SIGSEGV\.\s+Where it was:[\s\S]* in make"),
        "gone": (lambda: os._exit(5), r"ended by itself with exit code 5\."),
    }[end]
    loader = harness.loader(Indexed(4, in_a_worker(what)), 2, workers=1)
    with pytest.raises(SetupError, match=rf"^Worker 0 of 1 of the train loader \(process \d+\) {said}"):
        batches(harness, tmp_path, loader)


@pytest.mark.clause("D-13")
def test_the_timeout_of_the_loader_is_kept(harness: Harness, tmp_path: Path) -> None:
    loader = harness.loader(Indexed(4, in_a_worker(lambda: time.sleep(10))), 2, workers=1, timeout=1)
    begun = time.monotonic()
    with pytest.raises(SetupError) as caught:
        batches(harness, tmp_path, loader, role="val")
    assert re.match(r"Worker 0 of 1 of the val loader \(process \d+\) gave no batch for 1 seconds", str(caught.value))
    assert time.monotonic() - begun < 8


@pytest.mark.clause("D-13")
def test_a_long_wait_is_told_once(harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _pool.PATIENCE == 60
    monkeypatch.setattr(_pool, "PATIENCE", 0.2)
    monkeypatch.setattr(_pool, "_LOOK", 0.05)
    loader = harness.loader(Indexed(2, in_a_worker(lambda: time.sleep(0.8))), 1, workers=1)
    assert len(batches(harness, tmp_path, loader, epoch=2)) == 4
    said = (tmp_path / "default_run.log").read_text(encoding="utf-8")
    assert len(re.findall(r"Worker 0 of 1 of the train loader \(process \d+\) has given no batch for", said)) == 1
    assert "WARNING" in said and "Where it is:" in said and "in make" in said


class Finalised:
    """Garbage that only the collector finds; says where it is freed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.itself = self

    def __del__(self) -> None:
        with self.path.open("a") as file:
            file.write(f"{os.getpid()}\n")


@pytest.mark.clause("D-13")
@pytest.mark.parametrize("kind", ["by index", "stream"])
def test_a_worker_frees_nothing_of_its_parents(harness: Harness, tmp_path: Path, kind: str) -> None:
    freed = tmp_path / "freed"

    def make(index: int) -> Any:
        gc.collect()
        return np.array([gc.get_freeze_count(), gc.isenabled()])

    source = Indexed(2, make) if kind == "by index" else harness.stream(lambda: iter([make(0), make(1)]))
    for persistent in (False, True):
        frozen = gc.get_freeze_count()
        gc.disable()  # or it may be freed here before
        try:
            Finalised(freed)
            loader = harness.loader(source, 1, workers=1, persistent=persistent)
            found = batches(harness, tmp_path, loader, epoch=2, then=gc.enable)
        finally:
            gc.enable()
        seen = [plain(harness, batch)[0] for _, batch in found]
        assert len(seen) == 4 and all(count > frozen + 1000 for count, _ in seen)
        assert gc.get_freeze_count() == frozen, "what the user has frozen stays so, and no more"
    gc.collect()
    assert set(freed.read_text().split()) == {str(os.getpid())}

"""Runs that are killed, damaged and resumed at random, against a small model of what must then be on the disk."""

from __future__ import annotations

import io
import itertools
import math
import os
import random
import shutil
import signal
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from dowdyboy_core import CheckpointError
from dowdyboy_core._disk import files as _files
from dowdyboy_core._disk import folders as _folders
from dowdyboy_core._disk.files import FolderReader
from dowdyboy_core._run import checkpoints as _checkpoint
from dowdyboy_core._run import metrics as _metrics
from dowdyboy_core._run import position as _position
from dowdyboy_core._run import saver as _saver
from dowdyboy_core._run.checkpoints import CheckpointFolder
from dowdyboy_core.backend import random_streams as _rng

NAN, INF = float("nan"), float("inf")
MEMORY = (
    "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
)  # a kill takes nothing from it, and fsync is quick there
MINE = [
    "best_epoch_1_mine", "best_epoch_01", "last_epoch_2.bak", "epoch_x", "my_epoch_1", "epoch_1２",
    ".unfinished-mine", ".unfinished-epoch_1_mine", ".replaced-mine", ".replaced-best_epoch_0",
]  # fmt: skip
FILES = ["checkpoint.json", "model_0.safetensors", "optimizer_0.json", "rng.json"]


@dataclass(frozen=True)
class Held:
    """What the model knows of one checkpoint; of one whose index is damaged it knows nothing."""

    run: int = 0
    epoch: int = 0
    batch: int = 0
    best: float | None = None
    best_epoch: int | None = None
    w: float = 0.0
    health: str = "whole"  # or "flipped", "short" if a file is missing or cut, and "index" if that is damaged

    @property
    def age(self) -> tuple[int, int, int]:
        return self.run, self.epoch, self.batch


# Operations on files until a kill; as likely late as early, which integers as they are drawn are not.
MOMENTS = st.integers(0, 2**32).map(lambda seed: random.Random(seed).randrange(120))
PLACES = st.integers(0, 1000)  # of something in a list that is as long as it happens to be

Disk = dict[str, Held]
UNREADABLE = Held(health="index")


@dataclass
class Rules:
    """The settings of a run, and what its values are."""

    values: list[float]
    kind: str
    save_best: bool
    save_last: bool
    interval: int
    save_steps: int | None

    def settings(self) -> dict[str, Any]:
        return {
            "save_best": self.save_best,
            "save_best_type": self.kind,
            "save_last": self.save_last,
            "save_interval": self.interval,
            "save_steps": self.save_steps,
        }

    def improves(self, value: float, best: float | None) -> bool:
        """Strictly better; what is no finite number never is."""
        if not math.isfinite(value):
            return False
        return best is None or (value < best if self.kind == "min" else value > best)

    def kinds(self, held: Held) -> list[str]:
        found = ["epoch"] if held.epoch % self.interval == 0 else []
        found += ["last_epoch"] if self.save_last else []
        return found + (["best_epoch"] if self.save_best and held.best_epoch == held.epoch else [])


def of_kind(disk: Disk, kind: str) -> list[str]:
    return [name for name in disk if name.rpartition("_")[0] == kind]


def newest(disk: Disk, names: list[str]) -> str | None:
    """The newest of some checkpoints that is whole."""
    return max((name for name in names if disk[name].health == "whole"), default=None, key=lambda n: (disk[n].age, n))


def tidied(disk: Disk) -> Disk:
    """One last and one best: what is older than the newest whole one goes."""
    gone = set()
    for kind in ("last_epoch", "best_epoch"):
        kept = newest(disk, of_kind(disk, kind))
        older = [name for name in of_kind(disk, kind) if disk[name].health != "index"]
        gone |= {name for name in older if kept is not None and (disk[name].age, name) < (disk[kept].age, kept)}
    return {name: held for name, held in disk.items() if name not in gone}


def written(disk: Disk, kind: str, number: int, held: Held) -> list[Disk]:
    """The states through which a disk goes while a checkpoint is written: it is there, and then the older ones go."""
    name = f"{kind}_{number}"
    others = [] if kind == "epoch" else [other for other in of_kind(disk, kind) if other != name]
    disk = {**disk, name: held}
    return [
        {other: held for other, held in disk.items() if other not in gone}
        for count in range(len(others) + 1)
        for gone in itertools.combinations(others, count)
    ]


def lived(disk: Disk, rules: Rules, resume: str | None, weights: dict[tuple[int, int], float]) -> list[Disk]:
    """The states through which a disk goes in one life of the run, from its first to its last."""
    states = [tidied(disk)]

    def write(kind: str, number: int, held: Held) -> None:
        states.extend(written(states[-1], kind, number, held))

    last_run = max((held.run for held in disk.values()), default=0)
    start = newest(disk, list(disk)) if resume == "auto" else resume
    at = Held(run=last_run + 1) if start is None else disk[start]
    if start is not None:
        for kind in rules.kinds(at) if resume == "auto" and not at.batch else ():
            there = disk.get(f"{kind}_{at.epoch}", UNREADABLE)
            same = replace(there, health="whole", w=at.w) == at
            if not same or there.health == "short":  # a kill has kept it from being written, or it was damaged since
                write(kind, at.epoch, at)
        at = going_on(states[-1], rules, at)
    for epoch in range(at.epoch + 1, len(rules.values) + 1):
        for batch in range(at.batch + 1, 3):
            at = replace(at, batch=batch, w=weights[epoch - 1, batch])
            if rules.save_steps is not None and (2 * (epoch - 1) + batch) % rules.save_steps == 0:
                write("last_epoch", epoch, at)
        at = replace(at, epoch=epoch, batch=0, w=weights[epoch, 0])
        if rules.save_best and rules.improves(rules.values[epoch - 1], at.best):
            at = replace(at, best=rules.values[epoch - 1], best_epoch=epoch)
        for kind in rules.kinds(at):
            write(kind, epoch, at)
    return states


def going_on(disk: Disk, rules: Rules, at: Held) -> Held:
    """Where a run stands that goes on from a checkpoint: it counts as a new one if it is not the last to go on."""
    last_run = max(held.run for held in disk.values())
    later = any(held.health == "whole" and held.age > at.age for held in disk.values())
    best = newest(disk, of_kind(disk, "best_epoch"))
    if rules.save_best and best is not None and disk[best].run >= at.run:
        value = disk[best].best
        if value is not None and rules.improves(value, at.best):
            at = replace(at, best=value, best_epoch=disk[best].best_epoch)
    return replace(at, run=last_run + 1 if later else max(last_run, at.run))


def observed(folder: Path) -> Disk:
    """What really is on the disk, leftovers among it, without what the user has put there."""
    found = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name in MINE:
            continue
        try:
            reader = FolderReader(path)
        except CheckpointError:
            found[path.name] = UNREADABLE
            continue
        held = Held(**{name: reader.index[name] for name in ("run", "epoch", "batch", "best", "best_epoch")})
        try:
            reader.verify()
            found[path.name] = replace(held, w=weight_in(reader))
        except CheckpointError:
            sizes = {name: said["bytes"] for name, said in reader.index["files"].items()}
            there = {item.name: item.stat().st_size for item in path.iterdir() if item.name in sizes}
            found[path.name] = replace(held, health="flipped" if there == sizes else "short")
    return found


def weight_in(reader: FolderReader) -> float:
    return float(memoryview(reader.weights("model_0")["w"].data).cast("B").cast("d")[0])


class Crashes(RuleBasedStateMachine):
    """Lives of a run, each in a process of its own, and what becomes of its folder between them."""

    crashing: Any  # conftest.py
    spoil: Callable[[], None] = staticmethod(lambda: None)
    whole: tuple[dict[tuple[int, int], float], str]

    def __init__(self) -> None:
        super().__init__()
        self.out_dir = Path(tempfile.mkdtemp(dir=MEMORY))
        self.folder = self.out_dir / "checkpoint"
        self.disk: Disk = {}
        self.mine: set[str] = set()
        self.one_run = True

    def teardown(self) -> None:
        try:
            if hasattr(self, "rules"):
                self.live("auto", None)
                self.nothing_else_is_touched()
        finally:
            shutil.rmtree(self.out_dir)

    @initialize(
        values=st.lists(st.sampled_from([1.0, 2.0, 3.0, -1.0, NAN, INF, -INF]), min_size=3, max_size=4),
        kind=st.sampled_from(["min", "max"]),
        save_best=st.sampled_from([True, True, False]),
        save_last=st.sampled_from([True, True, False]),
        interval=st.integers(1, 2),
        save_steps=st.sampled_from([None, None, 1, 3]),
    )
    def begin(self, **chosen: Any) -> None:
        self.rules = Rules(**chosen)

    @rule(killed_in=MOMENTS)
    def be_killed(self, killed_in: int) -> None:
        self.live("auto", killed_in)

    @rule(killed_in=MOMENTS, finish=st.booleans())
    def begin_anew(self, killed_in: int, finish: bool) -> None:
        if finish:
            self.live("auto", None)
        self.live(None, killed_in)

    @rule(place=PLACES, killed_in=MOMENTS)
    def go_back(self, place: int, killed_in: int) -> None:
        whole = sorted(name for name, held in self.disk.items() if held.health == "whole")
        if whole:
            self.live(whole[place % len(whole)], killed_in)

    @rule(killed_in=MOMENTS, again_in=st.lists(st.integers(0, 12), min_size=1, max_size=2))
    def be_killed_while_tidying(self, killed_in: int, again_in: list[int]) -> None:
        self.live("auto", killed_in, tidy=False)
        for operations in again_in:
            self.crashing.in_a_process(lambda operations=operations: (self.arm(operations), self.tidy()))
        self.compare(self.states)

    @rule(
        place=PLACES,
        name=st.sampled_from(FILES),
        how=st.sampled_from(["cut", "flipped", "removed"]),
        where=st.sampled_from([0.0, 0.5, 0.9, 0.98]),
        go_on=st.booleans(),
    )
    def damage(self, place: int, name: str, how: str, where: float, go_on: bool) -> None:
        folder = (
            newest(self.disk, list(self.disk)) if go_on else [None, *sorted(self.disk)][place % (1 + len(self.disk))]
        )
        if folder is None or not (path := self.folder / folder / name).exists():
            return
        content = bytearray(path.read_bytes())
        if how == "removed":
            path.unlink()
        elif how == "cut":
            path.write_bytes(content[: int(where * len(content))])
        else:
            content[int(where * len(content))] ^= 1
            path.write_bytes(content)
        known = self.disk[folder]
        of_index = name == "checkpoint.json" or known.health == "index"
        health = "flipped" if how == "flipped" and known.health != "short" else "short"
        self.disk[folder] = UNREADABLE if of_index else replace(known, health=health, w=0.0)
        if how == "flipped" and known.health != "whole":  # it may have been flipped back
            self.disk[folder] = observed(self.folder)[folder]
        if go_on:
            self.live("auto", None)

    @rule(name=st.sampled_from(MINE))
    def put_a_folder_of_ones_own(self, name: str) -> None:
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / name / "file").write_text(name)
        self.mine.add(name)

    @invariant()
    def nothing_else_is_touched(self) -> None:
        there = {path.name for path in self.folder.glob("*")} & set(MINE) if self.folder.is_dir() else set()
        assert there == self.mine
        assert all((self.folder / name / "file").read_text() == name for name in self.mine)

    def live(self, resume: str | None, killed_in: int | None, *, tidy: bool = True) -> None:
        """One life of the run, after which the disk must be in one of the states that it goes through in it."""
        if resume != "auto" or (
            newest(self.disk, list(self.disk)) is None and any(held.run for held in self.disk.values())
        ):
            self.one_run = False  # curves of an earlier run stay
        path = str(self.folder / resume) if resume not in (None, "auto") else resume
        self.states = lived(self.disk, self.rules, resume, self.whole[0])
        status = self.crashing.in_a_process(
            lambda: (
                self.arm(killed_in),
                self.crashing.train_plain(self.out_dir, self.rules.values, resume=path, **self.rules.settings()),
            )
        )
        assert status == 0 or (killed_in is not None and status == -signal.SIGKILL), status
        if status == 0:
            self.states = self.states[-1:]
            if self.one_run:
                lines = self.whole[1].splitlines(keepends=True)
                assert (self.out_dir / "metrics.jsonl").read_text() == "".join(lines[: 2 * len(self.rules.values)])
        if tidy:
            self.compare(self.states)

    def compare(self, states: list[Disk]) -> None:
        """Has the folder tidied, which must then be in one of some states."""
        assert self.crashing.in_a_process(lambda: (self.spoil(), self.tidy())) == 0
        found = observed(self.folder)
        assert found in [tidied(state) for state in states], found
        self.disk = found

    def tidy(self) -> None:
        CheckpointFolder(self.folder, lambda text: None).tidy()

    def arm(self, killed_in: int | None) -> None:
        self.spoil()
        if killed_in is not None:
            self.crashing.die_after(killed_in, self.folder)


def undisturbed(crashing: Any) -> tuple[dict[tuple[int, int], float], str]:
    """The weight after each batch of a run that nobody disturbs, and its curves."""
    weights = {}

    def note(folder: CheckpointFolder, kind: str, epoch: int, content: Any) -> bool:
        written = b"".join(map(bytes, content.writers["model_0.safetensors"]()))
        [weights[content.index["epoch"], content.index["batch"]]] = struct.unpack("<d", written[-8:])
        return True

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        patch.setattr(CheckpointFolder, "save", note)
        crashing.train_plain(Path(folder), [1.0] * 4, save_steps=1)
        return weights, Path(folder, "metrics.jsonl").read_text()


def machine(crashing: Any, spoil: Callable[[], None] = lambda: None) -> type[Crashes]:
    found = {"crashing": crashing, "spoil": staticmethod(spoil), "whole": undisturbed(crashing)}
    return type("Machine", (Crashes,), found)


def check(crashing: Any, examples: int, **changed: Any) -> None:
    """Runs so many examples.

    Raises:
        AssertionError: a disk was not as the model has it.
    """
    quiet: dict[str, Any] = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
    run_state_machine_as_test(
        machine(crashing), settings=settings(max_examples=examples, stateful_step_count=8, **quiet, **changed)
    )


def test_the_disk_is_always_as_the_model_has_it(crashing: Any) -> None:
    check(crashing, 15, derandomize=True)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_disk_is_always_as_the_model_has_it_many_times(crashing: Any) -> None:
    check(crashing, 1000)
    kind, chance = machine(crashing), random.Random()
    for _ in range(300):
        walk(kind, chance)


def write_in_place(unfinished: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for path in sorted(unfinished.iterdir()):
        path.rename(folder / path.name)
    unfinished.rmdir()


def remove_first(folder: Path, content: Any) -> None:
    kind = folder.name.rpartition("_")[0]
    for other in folder.parent.glob(f"{kind}_*") if kind != "epoch" else ():
        _folders.clear(other)
    _files.write_folder(folder, content)


def clear_everything(parent: Path, ours: Any, is_whole: Any) -> None:
    for path in [*parent.glob(".unfinished-*"), *parent.glob(".replaced-*")]:
        _folders.clear(path)


def tidy_all_names(parent: Path, ours: Any, is_whole: Any) -> None:
    _folders.tidy(parent, lambda name: True, is_whole)


def by_their_beginnings(self: CheckpointFolder, kind: str) -> set[Path]:
    return {path for path in self.path.glob(f"{kind}_*") if path.is_dir()}


def or_equal(self: Any, value: float) -> bool:
    best = self._position.best
    return best is None or (value <= best if self._config.save_best_type == "min" else value >= best)


@contextmanager
def unread(self: FolderReader, name: str) -> Iterator[Any]:
    content = io.BytesIO((self._folder / name).read_bytes())
    yield lambda size: memoryview(content.read(size)), len(content.getbuffer())


def the_oldest(self: CheckpointFolder) -> Any:
    for _, _, path in sorted(self._ages()):
        with suppress(CheckpointError):
            return path, _checkpoint.read_snapshot(path)
    return None


def without_its_best(self: Any, index: Any) -> None:
    LOAD_STATE(self, {**index, "best": None, "best_epoch": None})


def nothing(*arguments: Any, **named: Any) -> None:
    return None


LOAD_STATE = _position.Position.load_state

BREAKS: dict[str, tuple[Any, str, Any]] = {
    "a checkpoint is written in its place": (_files, "put_in_place", write_in_place),
    "the old one goes first": (_checkpoint, "write_folder", remove_first),
    "the old one stays": (CheckpointFolder, "_remove", nothing),
    "nothing is put back": (_checkpoint, "tidy", clear_everything),
    "leftovers stay": (_checkpoint, "tidy", nothing),
    "what the user hides is cleared": (_checkpoint, "tidy", tidy_all_names),
    "names are told by their beginnings": (CheckpointFolder, "_folders", by_their_beginnings),
    "the last of equals is the best": (_saver.Saver, "_improves", or_equal),
    "anything may be the best": (_saver.Saver, "_is_best", lambda self, value: self._improves(value)),
    "the best is forgotten": (_position.Position, "load_state", without_its_best),
    "damage is not seen": (FolderReader, "_opened", unread),
    "the oldest is the newest": (CheckpointFolder, "newest", the_oldest),
    "runs have one number": (CheckpointFolder, "holds_later", lambda self, index: False),
    "what is lost stays lost": (_saver.Saver, "_lost", nothing),
    "random streams are forgotten": (_rng.RandomStreams, "restore", nothing),
    "curves are doubled": (_metrics.MetricLog, "cut_back", nothing),
}


def walk(kind: type[Crashes], chance: random.Random) -> None:
    """Takes some steps at random, all of them as likely: what is broken shows sooner than in Hypothesis's examples.

    Raises:
        AssertionError: the disk was not as the model has it.
    """
    run = kind()
    steps: list[Callable[[], None]] = [
        lambda: run.be_killed(killed_in=chance.randrange(120)),
        lambda: run.begin_anew(killed_in=chance.randrange(120), finish=chance.random() < 0.5),
        lambda: run.go_back(place=chance.randrange(1000), killed_in=chance.randrange(120)),
        lambda: run.be_killed_while_tidying(killed_in=chance.randrange(120), again_in=[chance.randrange(12)]),
        lambda: run.damage(
            place=chance.randrange(1000),
            name=chance.choice(FILES),
            how=chance.choice(["cut", "flipped", "removed"]),
            where=chance.random(),
            go_on=chance.random() < 0.5,
        ),
        lambda: run.put_a_folder_of_ones_own(name=chance.choice(MINE)),
    ]
    try:
        run.rules = Rules(
            values=chance.choices([1.0, 2.0, 3.0, -1.0, NAN, INF, -INF], k=4),
            kind=chance.choice(["min", "max"]),
            save_best=True,
            save_last=chance.random() < 0.8,
            interval=chance.randint(1, 2),
            save_steps=chance.choice([None, None, 1, 3]),
        )
        for _ in range(8):
            chance.choice(steps)()
            run.nothing_else_is_touched()
    finally:
        run.teardown()


# In these it takes many walks.
SELDOM = ("curves are doubled", "damage is not seen", "the best is forgotten")


@pytest.mark.slow
@pytest.mark.parametrize(
    "broken", [pytest.param(name, marks=pytest.mark.long) if name in SELDOM else name for name in BREAKS]
)
def test_the_model_notices_a_broken_library(crashing: Any, broken: str) -> None:
    owner, name, replacement = BREAKS[broken]
    spoilt, chance = machine(crashing, lambda: setattr(owner, name, replacement)), random.Random(broken)
    with pytest.raises(AssertionError):
        for _ in range(40):
            walk(spoilt, chance)

"""One process of the checkpoint benchmark: times saving and loading in turns, or measures the memory of one contender.

Usage: python checkpoints_worker.py times FRAMEWORK MEGABYTES ROUNDS OUT
       python checkpoints_worker.py memory FRAMEWORK MEGABYTES CONTENDER OUT
"""

from __future__ import annotations

import gc
import importlib
import json
import mmap
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from math import isqrt
from pathlib import Path
from time import perf_counter
from typing import Any

LAYERS = 12
Seconds = dict[str, dict[str, list[float]]]


def make_state(framework: Any, megabytes: int) -> Any:
    """A model of float32 layers with two slots each: twelve bytes a parameter."""
    return framework.State(isqrt(megabytes * 1_000_000 // 12 // LAYERS), LAYERS)


def settle(arrays: Iterable[Any]) -> None:
    """Has everybody begin alike: with an idle disk, no garbage, and memory for a copy that the system has at hand.

    A virtual machine gives free memory back to its host after a while, and gets it again much slower than it copies.
    """
    os.sync()
    gc.collect()
    copy(arrays)


def copy(arrays: Iterable[Any]) -> list[mmap.mmap]:
    """Copies arrays into memory that is new from the system; an allocator's is sometimes old, and sometimes not."""
    copies = []
    for array in arrays:
        copies.append(mmap.mmap(-1, array.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        copies[-1][:] = plain(array)
    return copies


def timed(action: Callable[[], Any], arrays: Iterable[Any]) -> float:
    """Seconds that an action takes."""
    settle(arrays)
    start = perf_counter()
    kept = action()
    seconds = perf_counter() - start
    del kept  # its memory goes untimed
    return seconds


def fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def write_plainly(arrays: Iterable[Any], path: Path) -> None:
    """Nothing but the bytes, one array after another, and the fsync."""
    with path.open("wb", buffering=0) as file:
        for array in arrays:
            rest = plain(array)
            while rest:
                rest = rest[file.write(rest) :]
        os.fsync(file.fileno())


def plain(array: Any) -> memoryview:
    return memoryview(array.reshape(-1)).cast("B")


class Saving:
    """Has a fit save after each epoch, and times between its hooks; the other contenders run inside them.

    Each round is two epochs: after the first the writing is timed, after the second what it costs the training.
    """

    def __init__(self, framework: Any, state: Any, rounds: int, folder: Path) -> None:
        self.state = state
        self.work = framework.Work()
        self.arrays = state.arrays()
        self.bytes = bytes_of(state)
        self.rounds = rounds
        self.folder = folder
        self.window = 0.4 * min(1.0, self.bytes / 600e6)  # less than the writing takes
        self.handed_over = 0.0
        self.seconds: Seconds = {}
        config = framework.TrainerConfig(
            epoch=2 * rounds + 3,  # a round to warm up, and an epoch for the hook that comes after the last save
            out_dir=folder,
            cpu=True,
            log_with="none",
            save_last=False,
            auto_optimize=False,
            disable_tqdm=True,
        )
        self.trainer = state.trainer(config)

    def run(self) -> Path:
        """Times everything; gives the last checkpoint."""
        self.trainer.fit(self.train_step, on_epoch_end=self.on_epoch_end)
        return self.folder / f"checkpoint/epoch_{self.trainer.epoch}"

    def on_epoch_end(self, trainer: Any, ep: int) -> None:
        """The hook: the checkpoint is written after it."""
        settle(self.arrays.values())
        self.handed_over = perf_counter()

    def train_step(self, trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        """The hook: the checkpoint has been handed over before it."""
        now = perf_counter()
        if global_step == 0:  # nothing is saved yet
            return
        if global_step % 2:
            self._note("stands still", "ours", now - self.handed_over)
            trainer.wait_for_checkpoint()
            self._note("writes", "ours", perf_counter() - now)
            self._run_the_others(global_step)
        else:
            self._note("step meanwhile", "writing", self._seconds_per_step())
            trainer.wait_for_checkpoint()
            os.sync()
            for contender in ("idle", "idle again"):
                self._note("step meanwhile", contender, self._seconds_per_step())
        shutil.rmtree(self.folder / f"checkpoint/epoch_{global_step}")
        if global_step == 2:  # that was the round to warm up
            self.seconds.clear()

    def _run_the_others(self, number: int) -> None:
        others = [
            ("stands still", "copy", self._copy),
            ("writes", "plain", self._write_plainly),
            ("writes", "theirs", self.save),
            ("stands still", "copy again", self._copy),
            ("writes", "plain again", self._write_plainly),
            ("writes", "safetensors", self._save_safetensors),
        ]
        first = number // 2 % len(others)
        for measure, contender, action in others[first:] + others[:first]:
            self.path.unlink(missing_ok=True)
            self._note(measure, contender, timed(action, self.arrays.values()))
        self._note("stands still", "theirs", self.seconds["writes"]["theirs"][-1])

    @property
    def path(self) -> Path:
        """The file of the other contenders."""
        return self.folder / "other"

    def _note(self, measure: str, contender: str, seconds: float) -> None:
        self.seconds.setdefault(measure, {}).setdefault(contender, []).append(seconds)

    def _copy(self) -> list[mmap.mmap]:
        return copy(self.arrays.values())

    def _write_plainly(self) -> None:
        write_plainly(self.arrays.values(), self.path)

    def save(self) -> None:
        """As scripts save without a trainer, and wait for the disk."""
        self.state.save(self.path)
        fsync(self.path)

    def _save_safetensors(self) -> None:
        self.state.save_safetensors(self.path)
        fsync(self.path)

    def _seconds_per_step(self) -> float:
        steps, start = 0, perf_counter()
        while perf_counter() - start < self.window:
            self.work.step()
            steps += 1
        return (perf_counter() - start) / steps


def evict(files: Iterable[Path]) -> None:
    """Has the system forget what it knows of files."""
    os.sync()
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def read_from_disk() -> int:
    """Bytes that this process had to fetch from a disk so far."""
    said = dict(line.split(": ") for line in Path("/proc/self/io").read_text(encoding="ascii").splitlines())
    return int(said["read_bytes"])


def time_loading(state: Any, trainer: Any, ours: Path, theirs: Path, rounds: int) -> tuple[Seconds, dict[str, float]]:
    """Seconds of each contender, with the files in the page cache and without; and megabytes read from the disk."""
    files = {"ours": list(ours.iterdir()), "theirs": [theirs], "theirs again": [theirs]}
    seconds: Seconds = {f"loads {heat}": {name: [] for name in files} for heat in ("cold", "warm")}
    weights, fetched = list(state.arrays().values()), {}
    for number in range(rounds + 1):
        for name in sorted(files, key=lambda name: (list(files).index(name) + number) % len(files)):
            action = (lambda: trainer.load_checkpoint(ours)) if name == "ours" else (lambda: state.load(theirs))
            for heat in ("cold", "warm"):
                state.renew_optimizer()
                trainer.set_optimizer(state.optimizer)
                if heat == "cold":
                    evict(files[name])
                before = read_from_disk()
                taken = timed(action, weights)
                if heat == "cold":
                    fetched[name] = (read_from_disk() - before) / 1e6
                if number:  # the first round warms up
                    seconds[f"loads {heat}"][name].append(taken)
    return seconds, fetched


def times(framework: Any, megabytes: int, rounds: int, out: Path) -> None:
    state = make_state(framework, megabytes)
    saving = Saving(framework, state, rounds, out)
    folder = saving.run()
    saving.save()
    loading, fetched = time_loading(state, saving.trainer, folder, saving.path, rounds)
    check_unmapped(folder)
    found = {"bytes": saving.bytes, "seconds": saving.seconds | loading, "fetched_megabytes": fetched}
    (out / "times.json").write_text(json.dumps(found), encoding="utf-8")


def check_unmapped(folder: Path) -> None:
    """Makes sure that nothing lives in the memory of a file, which would change with the file.

    Raises:
        RuntimeError: a file of the folder is mapped.
    """
    if str(folder.resolve()) in Path("/proc/self/maps").read_text(encoding="utf-8"):
        raise RuntimeError(f"{folder} is still mapped after loading.")


def memory(framework: Any, megabytes: int, contender: str, out: Path) -> None:
    """Measures how far the memory of this process rises above the live state while one contender runs."""
    state = make_state(framework, megabytes)
    size = bytes_of(state)
    base = lived = 0

    def begin(*_: Any) -> None:
        nonlocal base, lived
        if not base:
            gc.collect()
            base, lived = resident("VmRSS"), bytes_of(state)
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak so far

    if contender == "ours saves":
        # Three saves, each handed over as soon as the trainer takes it.
        config = framework.TrainerConfig(epoch=3, out_dir=out, cpu=True, log_with="none", auto_optimize=False)
        state.trainer(config).fit(begin)
    elif contender == "ours loads":
        state.renew_optimizer()
        trainer = state.trainer(framework.TrainerConfig(out_dir=out, cpu=True, log_with="none", disable_tqdm=True))
        begin()
        trainer.load_checkpoint(out / "checkpoint/last_epoch_3")
    elif contender == "theirs saves":
        begin()
        state.save(out / "theirs")
    else:
        state.renew_optimizer()
        begin()
        state.load(out / "theirs")
    # What has been loaded into a new optimizer lives from now on.
    found = {"bytes": size, "peak_bytes": resident("VmHWM") - base - (bytes_of(state) - lived)}
    (out / "memory.json").write_text(json.dumps(found), encoding="utf-8")


def bytes_of(state: Any) -> int:
    return sum(array.nbytes for array in state.arrays().values())


def resident(what: str) -> int:
    """Bytes of memory in use, now (``VmRSS``) or at their highest (``VmHWM``)."""
    said = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return int(said[what].split()[0]) * 1024


def main(what: str, name: str, megabytes: str, rounds_or_contender: str, out: str) -> None:
    framework = importlib.import_module(f"checkpoints_{name}")
    if what == "times":
        times(framework, int(megabytes), int(rounds_or_contender), Path(out))
    else:
        memory(framework, int(megabytes), rounds_or_contender, Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""S: what is random, and what is not."""

from __future__ import annotations

import importlib
import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance._data import Augmented, Indexed, Restarted, batches, plain
from dowdyboy_conformance._problem import Run, build, config
from dowdyboy_conformance.harnesses.harness import Harness

# BLAKE2b, checked with coreutils' b2sum -l 64
DERIVED = {
    (0,): 6197665364228624309,
    (7, "train"): 4241283852216657922,
    (7, "a", "b"): 3967110403661234255,
    (7, "ab"): 1842272318898865640,
    (7, 1): 321202561779797472,
    (7, "1"): 1575258631476752744,
}


def draws(harness: Harness) -> list[float]:
    """A number from each global stream."""
    return [random.random(), float(np.random.rand()), harness.draw()]


@pytest.mark.clause("S-6")
@pytest.mark.parametrize("keys", DERIVED, ids=str)
def test_derived_seeds_are_the_same_everywhere(harness: Harness, keys: tuple[Any, ...]) -> None:
    derive_seed = importlib.import_module(f"{harness.module}.rand").derive_seed
    assert derive_seed(*keys) == DERIVED[keys]


@pytest.mark.clause("S-1")
def test_a_trainer_seeds_the_global_streams(harness: Harness, tmp_path: Path) -> None:
    found = []
    for seed in (3, 3, 4):
        draws(harness)
        harness.make_trainer(config(tmp_path, seed=seed))
        found.append(draws(harness))
    assert found[0] == found[1]
    assert all(one != other for one, other in zip(found[0], found[2], strict=True))


@pytest.mark.clause("S-2")
def test_fit_seeds_them_again(harness: Harness, tmp_path: Path) -> None:
    found = []
    for noise in (0, 3):
        run = build(harness, tmp_path)
        for _ in range(noise):
            draws(harness)
        seen: list[list[float]] = []

        def step(trainer: Any, bat: Any, bat_idx: int, global_step: int, run: Run = run, seen: Any = seen) -> Any:
            seen.append(draws(harness))
            return run.train_step(trainer, bat, bat_idx, global_step)

        run.trainer.fit(step)
        found.append(seen)
    assert found[0] == found[1]
    assert len({tuple(item) for item in found[0]}) == 3, "the streams go on from step to step"


def outcome(run: Run) -> list[Any]:
    """Losses and weights, to be compared bit by bit."""
    return [run.losses, {name: item.tobytes() for name, item in run.parameters().items()}]


@pytest.mark.clause("S-3")
@pytest.mark.parametrize("workers", [0, 2])
def test_two_runs_are_bitwise_equal(harness: Harness, tmp_path: Path, workers: int) -> None:
    found = []
    for seed in (5, 5, 6):
        run = build(
            harness,
            tmp_path,
            seed=seed,
            epoch=2,
            dropout=0.3,
            shuffle=True,
            optimizer="adam",
            dataset=Augmented(harness, 12),
            workers=workers,
        )
        found.append(outcome(run.fit()))
    assert found[0] == found[1] and found[0] != found[2]


@pytest.mark.clause("S-4", "D-5")
def test_augmentation_depends_on_neither_workers_nor_restart(harness: Harness, tmp_path: Path) -> None:
    found = []
    for workers in (0, 1, 2):
        loader = harness.loader(Augmented(harness, 6), 2, shuffle=True, workers=workers)
        seen = batches(harness, tmp_path, loader, epoch=2)
        found.append([plain(harness, batch) for _, batch in seen])
    assert found[0] == found[1] == found[2]


@pytest.mark.clause("S-4")
def test_augmentation_differs_from_batch_to_batch_and_epoch_to_epoch(harness: Harness, tmp_path: Path) -> None:
    data = Indexed(4, lambda index: np.array(draws(harness)))
    seen = batches(harness, tmp_path, harness.loader(data, 1), epoch=2)
    drawn = [tuple(plain(harness, batch)[0]) for _, batch in seen]
    for stream in range(3):
        assert len({item[stream] for item in drawn}) == 8, "each of the three streams must be seeded for each batch"


def _draw_often(harness: Harness, times: int) -> None:
    for _ in range(times):
        draws(harness)


@pytest.mark.clause("S-4", "D-6")
def test_streams_are_seeded_too(harness: Harness, tmp_path: Path) -> None:
    found = []
    for noise in (0, 2):
        loader = Restarted(lambda: iter(Indexed(2, lambda index: draws(harness)).make(index) for index in range(3)))
        noises = partial(_draw_often, harness, noise)  # what a hook has drawn before must not matter
        seen = batches(harness, tmp_path, loader, then=noises, epoch=2)
        found.append([plain(harness, batch) for _, batch in seen])
    assert found[0] == found[1]
    assert len({tuple(item) for item in found[0]}) == 6


@pytest.mark.clause("S-5")
@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_but_the_hooks_draws(harness: Harness, tmp_path: Path, workers: int) -> None:
    """Reading, validating, saving, logging and printing leave the streams as they were."""
    found = []
    for busy in (False, True):
        seen: list[list[float]] = []
        run = build(
            harness,
            tmp_path / str(busy),
            epoch=2,
            shuffle=busy,
            workers=workers if busy else 0,
            dataset=Augmented(harness, 12) if busy else None,
            enable_save_checkpoint=busy,
            save_steps=2 if busy else None,
            log_with="auto" if busy else "none",
        )

        def step(trainer: Any, bat: Any, bat_idx: int, global_step: int, run: Run = run, seen: Any = seen) -> Any:
            seen.append(draws(harness))
            if run.trainer.config.enable_save_checkpoint:
                trainer.log({"step": global_step}, global_step)
                trainer.print("a line")
            return run.train_step(trainer, bat, bat_idx, global_step)

        run.trainer.fit(step, run.val_step if busy else None)
        found.append(seen)
    assert len(found[0]) == 6 and found[0] == found[1]

"""D-22 and D-23: what streams draw in workers, and random generators that data keeps for itself."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance._data import Indexed, batches, plain
from dowdyboy_conformance._problem import build, data
from dowdyboy_conformance._resuming import Killed
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core.rand import derive_seed

SAMPLES, WORKERS = 3, 2


def _drawn() -> Iterator[Any]:
    """What a stream draws as it starts, and as each of its samples is read."""
    begin = random.random()
    return (np.array([begin, random.random()]) for _ in range(SAMPLES))


def _expected(seed: int, number: int) -> list[list[list[float]]]:
    """The batches of a pass, in turn of each worker."""
    role = derive_seed(seed, "train")
    begin = derive_seed(role, "stream", number)
    begins = [begin, *(derive_seed(begin, "worker", worker) for worker in range(1, WORKERS))]
    return [
        [[random.Random(begins[batch % WORKERS]).random(), _first(derive_seed(role, "batch", number, batch))]]
        for batch in range(SAMPLES * WORKERS)
    ]


def _first(seed: int) -> float:
    return random.Random(seed).random()


@pytest.mark.clause("D-22", "S-4")
@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("steps", [None, 4])
def test_what_a_stream_draws_in_workers_follows_from_seed_pass_and_worker(
    harness: Harness, tmp_path: Path, persistent: bool, steps: int | None
) -> None:
    loader = harness.loader(harness.stream(_drawn), 1, workers=WORKERS, persistent=persistent)
    seen = batches(harness, tmp_path, loader, epoch=2 if steps is None else 3, seed=7, steps_per_epoch=steps)
    found = [plain(harness, batch) for _, batch in seen]
    assert found == _expected(7, 1) + _expected(7, 2)


# ---- generators of the data's own


class _Noise:
    """A transform that draws from generators of its own."""

    __slots__ = ("kept", "seeds")

    def __init__(self, seeds: bool) -> None:
        self.kept: dict[str, Any] = {"a": np.random.default_rng(3), "b": np.random.RandomState(4)}
        self.seeds = seeds

    def __call__(self, value: Any) -> Any:
        if self.seeds:
            self.kept["a"] = np.random.default_rng(random.getrandbits(63))
            self.kept["b"].seed(random.getrandbits(32))
        return value * np.float32(1 + 0.1 * self.kept["a"].random() + 0.1 * self.kept["b"].random())


class _Composed:
    """A dataset with transforms, of which nothing may be asked but samples."""

    def __init__(self, seeds: bool) -> None:
        self.features, self.classes = data(12)
        self.transforms: list[Callable[[Any], Any]] = [lambda value: value, _Noise(seeds)]

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> Any:
        value = self.features[index]
        for transform in self.transforms:
            value = transform(value)
        return value, self.classes[index]

    @property
    def opened(self) -> Any:
        raise AssertionError("a property of the user's was called")

    def __getattr__(self, name: str) -> Any:
        if name in ("transform", "rng"):
            raise AssertionError("__getattr__ of the user's was called")
        raise AttributeError(name)


class _Wrapping:
    """A part of another dataset."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.stream = random.Random(5)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]


def _log_of(out_dir: Path) -> str:
    return (out_dir / "default_run.log").read_text()


@pytest.mark.clause("D-23")
def test_generators_that_data_keeps_are_named_once(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, dataset=_Wrapping(_Composed(False)), epoch=2)
    run.fit()
    run.fit()
    [line] = [line for line in _log_of(tmp_path).splitlines() if "generators of its own" in line]
    places = ["dataset.stream (random.Random)"]
    places += ["dataset.dataset.transforms[1].kept['a'] (NumPy Generator)"]
    places += ["dataset.dataset.transforms[1].kept['b'] (NumPy RandomState)"]
    assert f"The train data keeps random generators of its own: {', '.join(places)}." in line
    assert "    self.stream.seed(random.getrandbits(63))" in _log_of(tmp_path)


@pytest.mark.clause("D-23")
def test_what_keeps_no_generator_is_not_named(harness: Harness, tmp_path: Path) -> None:
    hidden = random.Random(3)

    def collate(samples: list[Any]) -> Any:
        return np.stack(samples) + hidden.random()

    plain_data = Indexed(4, lambda index: np.zeros(2))
    batches(harness, tmp_path / "plain", harness.loader(plain_data, 2))
    assert "of its own" not in _log_of(tmp_path / "plain")
    batches(harness, tmp_path / "closure", harness.loader(plain_data, 2, collate=collate))
    assert "collate_fn.hidden (random.Random)" in _log_of(tmp_path / "closure")
    assert "    hidden.seed(random.getrandbits(63))" in _log_of(tmp_path / "closure")


@pytest.mark.clause("D-23", "C-7")
@pytest.mark.parametrize("seeds", [False, True])
def test_the_lines_that_are_told_make_it_exact(harness: Harness, tmp_path: Path, seeds: bool) -> None:
    def fit(out_dir: Path, kill_at: int | None = None) -> Any:
        settings: dict[str, Any] = {"resume": "auto", "save_steps": 1, "enable_save_checkpoint": True}
        run = build(harness, out_dir, dataset=_Composed(seeds), **settings)

        def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
            if global_step == kill_at:
                raise Killed
            return run.train_step(trainer, bat, bat_idx, global_step)

        run.trainer.fit(step)
        return run.losses

    whole = fit(tmp_path / "whole")
    with pytest.raises(Killed):
        fit(tmp_path / "parts", kill_at=2)
    assert (fit(tmp_path / "parts") == whole[2:]) == seeds

"""What each of several processes does, where the question is whether the numbers are those of one process."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dowdyboy_conformance._data import Augmented, Indexed, plain
from dowdyboy_conformance._inside import inside
from dowdyboy_conformance._problem import CLASSES, FEATURES, HIDDEN, build, config, data, layers
from dowdyboy_conformance.harnesses.harness import Harness


def facts(harness: Harness, out_dir: Path) -> Any:
    """Where this process stands among the others."""
    run = build(harness, out_dir)
    trainer = run.trainer
    return {
        "rank": trainer.rank,
        "world_size": trainer.world_size,
        "main": [trainer.is_main_process(), trainer.is_local_main_process()],
        "raw": trainer.get_raw_models()[0] is run.model,
    }


def evaluation(harness: Harness, out_dir: Path) -> Any:
    """The records of ``test`` over 1 to 17 samples in batches of 1 to 5, of many kinds, some of them seldom."""
    run = build(harness, out_dir, batch_norm=True)
    found: dict[str, Any] = {}

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        [model] = trainer.get_models()
        features, classes, numbers = bat
        scores, first = model(features), int(harness.numpy(numbers)[0])
        if 5 in harness.numpy(numbers):
            trainer.set_records({"once": [1, 2]})
        if first % 3 == 0:
            trainer.set_records({"every third": np.float64(first) / 3})
        trainer.set_records({"loss": run.loss(scores, classes), "size": len(numbers), "long": len(numbers) > 2})
        trainer.set_records({"mixed": first if first % 2 else first + 0.5})
        for row in harness.numpy(scores):
            trainer.set_records({"scores": row})

    for samples in range(1, 18):
        dataset = harness.dataset(*data(samples), np.arange(samples))
        for batch_size in range(1, 6):
            run.trainer.set_test_dataloader(harness.loader(dataset, batch_size, shuffle=True))
            name = f"{samples} samples in batches of {batch_size}"

            def end(trainer: Any, name: str = name) -> None:
                found[name] = _records(harness, trainer)

            run.trainer.test(step, end)
    return found


def _records(harness: Harness, trainer: Any) -> list[Any]:
    """Name, type and values of the records, in their order."""
    arrays = {name: harness.numpy(tensor) for name, tensor in trainer.get_records().items()}
    return [[name, array.dtype.name, array.tolist()] for name, array in arrays.items()]


class _Drawn:
    """Batches drawn with weights from NumPy's, Python's and the framework's global streams, anew in each epoch."""

    def __init__(self, harness: Harness, samples: int) -> None:
        self._harness = harness
        self._samples = samples

    def __len__(self) -> int:
        return 7

    def __iter__(self) -> Iterator[list[int]]:
        weights = np.arange(1, self._samples + 1) / (self._samples * (self._samples + 1) / 2)
        for _ in range(len(self)):
            size = 1 + int(3 * self._harness.draw())
            yield [*np.random.choice(self._samples, size, p=weights).tolist(), random.randrange(self._samples)]


def loaders(harness: Harness) -> dict[str, Any]:
    """Training data of every kind, each of 1, 2 or 7 batches."""
    numbers = np.arange(13)
    dataset = harness.dataset(numbers)
    return {
        "in order": harness.loader(dataset, 2),
        "shuffled": harness.loader(dataset, 2, shuffle=True),
        "drop_last": harness.loader(harness.dataset(np.arange(15)), 2, shuffle=True, drop_last=True),
        "one batch": harness.loader(harness.dataset(np.arange(2)), 2, shuffle=True),
        "two batches": harness.loader(harness.dataset(np.arange(3)), 2, shuffle=True),
        "weighted": harness.batched_by(dataset, _Drawn(harness, 13)),
        "items": harness.loader(Indexed(7, lambda index: np.array([index, index])), None),
        "stream": harness.loader(harness.stream(lambda: iter(numbers)), 2),
        "list": [numbers[start : start + 2].tolist() for start in range(0, 13, 2)],
        "workers": harness.loader(Indexed(13, lambda index: (np.int64(index),)), 2, shuffle=True, workers=2),
        "augmented": harness.loader(Augmented(harness, 13), 2, shuffle=True),
        "augmented by workers": harness.loader(Augmented(harness, 13), 2, shuffle=True, workers=2),
    }


def dealing(harness: Harness, out_dir: Path) -> Any:
    """Which training batches this process gets of loaders of every kind, in two epochs."""
    found: dict[str, Any] = {}
    for name, loader in loaders(harness).items():
        trainer = harness.make_trainer(config(out_dir, auto_optimize=False, epoch=2))
        trainer.set_model(harness.model(layers(1, 1)))
        trainer.set_train_dataloader(loader)
        seen: list[Any] = []
        trainer.fit(lambda trainer, bat, *at, seen=seen: seen.append([trainer.epoch, *at, plain(harness, bat)]))
        found[name] = seen
    return found


def draws(harness: Harness, out_dir: Path) -> Any:
    """What ``train_step`` draws from each global random stream."""
    run = build(harness, out_dir, samples=28)
    seen: list[list[float]] = []

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        seen.append([random.random(), np.random.rand(), harness.draw()])
        return run.train_step(trainer, bat, bat_idx, global_step)

    run.trainer.fit(step)
    return seen


KINDS: dict[str, dict[str, Any]] = {
    "sgd": {"epoch": 2},
    "adam": {"optimizer": "adam", "lr": 0.02, "epoch": 2},
    "clipped": {"clip_grad_norm": 0.05},
    "windows": {"accumulate_steps": 2, "optimizer": "momentum", "epoch": 2},
    "clipped windows": {"accumulate_steps": 3, "clip_grad_norm": 0.05, "epoch": 2},
    "sync_bn": {"batch_norm": True, "sync_bn": True, "epoch": 2},
}
"""Ways to train."""

SAMPLES, BATCH_SIZE = 26, 4  # 7 batches, the last of 2: a round to fill up for 2 and for 3 processes


def training(harness: Harness, out_dir: Path) -> Any:
    """How the parameters stand after training in several ways, and the statistics of BatchNorm."""
    found = {}
    for name, settings in KINDS.items():
        run = build(harness, out_dir, batch_size=BATCH_SIZE, samples=SAMPLES, **settings)
        gradients: list[Any] = []

        def step(trainer: Any, bat: Any, bat_idx: int, global_step: int, run: Any = run, seen: Any = gradients) -> Any:
            kept = harness.gradients(run.model).get("fc0.weight")
            seen.append(None if kept is None else kept.tolist())
            return run.train_step(trainer, bat, bat_idx, global_step)

        run.trainer.fit(step)
        found[name] = {"state": state(harness, run.model), "gradients": gradients, "steps": run.trainer.global_step}
    return found


def adversaries(harness: Harness, out_dir: Path) -> Any:
    """How two models that train against each other stand, each stepped by hand."""
    return _train_adversaries(harness, out_dir, 6, lambda number, trainer: [number * trainer.world_size + trainer.rank])


def joined_adversaries(harness: Harness, out_dir: Path, processes: int) -> list[dict[str, Any]]:
    """What ``adversaries`` is to give: one process that takes the batches of all of them at each step."""
    ranks = range(processes)
    return _train_adversaries(
        harness, out_dir, 6 // processes, lambda number, _: [number * processes + rank for rank in ranks]
    )


def _train_adversaries(harness: Harness, out_dir: Path, batches: int, share: Any) -> list[dict[str, Any]]:
    trainer = harness.make_trainer(config(out_dir, auto_optimize=False))
    models = [harness.model(layers(FEATURES, FEATURES)), harness.model(layers(FEATURES, CLASSES))]
    loss = harness.loss("cross_entropy")
    features, classes = data(24)
    trainer.set_models(models)
    trainer.set_optimizers([harness.optimizer("sgd", [model], 0.1).optimizer for model in models])
    trainer.set_train_dataloader(list(range(batches)))

    def step(trainer: Any, number: int, bat_idx: int, global_step: int) -> None:
        (one, other), (optimizers, _) = trainer.get_models(), trainer.get_optimizers()
        parts = [slice(4 * at, 4 * at + 4) for at in share(bat_idx, trainer)]
        pairs = [(harness.tensor(features[part]), harness.tensor(classes[part])) for part in parts]
        total: Any = 0.0
        for given, wanted in pairs:  # two forward passes of one model before its backward pass
            total = total + loss(other(one(given).detach()), wanted) + loss(other(given), wanted)
        trainer.zero_grad(optimizers[1])
        trainer.backward(total / len(parts))
        trainer.step(optimizers[1])
        total = 0.0
        for given, wanted in pairs:  # backward through a model that isn't stepped now
            total = total + loss(other(one(given)), wanted)
        trainer.zero_grad(optimizers[0])
        trainer.backward(total / len(parts))
        trainer.step(optimizers[0])

    trainer.fit(step)
    return [state(harness, model) for model in models]


def joined_training(harness: Harness, out_dir: Path, processes: int, name: str) -> dict[str, NDArray[Any]]:
    """What ``training`` is to give: one process that takes the batches of all of them at each step."""
    features, classes = data(SAMPLES)
    starts = range(0, SAMPLES, BATCH_SIZE)
    batches = [(features[at : at + BATCH_SIZE], classes[at : at + BATCH_SIZE]) for at in starts]
    rounds = [
        [batches[(first + rank) % len(batches)] for rank in range(processes)]
        for first in range(0, len(batches), processes)
    ]
    run = build(harness, out_dir, **KINDS[name])
    run.trainer.set_train_dataloader(list(range(len(rounds))))

    def step(trainer: Any, number: int, bat_idx: int, global_step: int) -> Any:
        parts = rounds[number]
        scores = trainer.get_models()[0](harness.tensor(np.concatenate([part[0] for part in parts])))
        total, first = 0.0, 0
        for _, wanted in parts:
            total = total + run.loss(scores[first : first + len(wanted)], harness.tensor(wanted))
            first += len(wanted)
        return total / processes

    run.trainer.fit(step)
    return harness.state(run.model)


def state(harness: Harness, model: Any) -> dict[str, Any]:
    """All that a model saves, as lists."""
    return {name: array.tolist() for name, array in harness.state(model).items()}


def overflow(harness: Harness, out_dir: Path) -> Any:
    """Two optimizers under a loss scale; in the last process the first one's gradients overflow once."""
    run = build(harness, out_dir, samples=24, epoch=1)  # two rounds of three processes
    trainer = run.trainer
    models = [run.model, harness.model(layers(FEATURES, HIDDEN, CLASSES, seed=2))]
    trainer.set_models(models)
    trainer.set_optimizers([harness.optimizer("sgd", [model], 0.1).optimizer for model in models])
    scale_the_loss(trainer)
    seen: list[Any] = []

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        if bat_idx < 2:
            seen.append([state(harness, model) for model in models])
        first, second = (run.loss(model(bat[0]), bat[1]) for model in trainer.get_models())
        overflows = bat_idx == 0 and trainer.rank == trainer.world_size - 1
        return first * (1e38 if overflows else 0.0) + second

    trainer.fit(step)
    seen.append([state(harness, model) for model in models])
    return {"seen": seen, "scale": trainer._stepper.scaler.scale}


def scale_the_loss(trainer: Any) -> None:
    """Turns the loss scale of fp16 on, also where the device has no fp16."""
    trainer._stepper.scaler = inside("_run.stepping").LossScaler(enabled=True)


def branches(harness: Harness, out_dir: Path) -> Any:
    """Training with a branch that a process uses in some steps only, and ``find_unused_parameters``."""
    run = build(harness, out_dir, samples=28, find_unused_parameters=True)
    take_branches(run, every=2)
    run.fit(val=False)
    return state(harness, run.model)


def joined_branches(harness: Harness, out_dir: Path, processes: int) -> dict[str, NDArray[Any]]:
    """What ``branches`` is to give: one process that takes the batches of all of them at each step."""
    run = build(harness, out_dir)
    take_branches(run, every=2)
    features, classes = data(28)
    run.trainer.set_train_dataloader(list(range(-(-7 // processes))))

    def step(trainer: Any, number: int, bat_idx: int, global_step: int) -> Any:
        total: Any = 0.0
        for rank in range(processes):
            at = (number * processes + rank) % 7 * 4
            scores = run.model(harness.tensor(features[at : at + 4]), rank == 0 and number % 2 == 1)
            total = total + run.loss(scores, harness.tensor(classes[at : at + 4]))
        return total / processes

    run.trainer.fit(step)
    return harness.state(run.model)


def branched(harness: Harness) -> Any:
    """The model with two branches, before it is trained."""
    return harness.branched_model(layers(FEATURES, CLASSES) + layers(FEATURES, CLASSES, seed=2))


def take_branches(run: Any, every: int) -> None:
    """Gives a run a model whose second layer only the first process uses, in every so many steps."""
    harness: Harness = run.harness
    model = branched(harness)
    run.model = model
    run.trainer.set_model(model)
    run.trainer.set_optimizer(harness.optimizer("sgd", [model], 0.1).optimizer)

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        both = trainer.rank == 0 and bat_idx % every == every - 1
        return run.loss(trainer.get_models()[0](bat[0], both), bat[1])

    run.train_step = step

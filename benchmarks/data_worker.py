"""A process of the data benchmark.

Usage: python data_worker.py rate FRAMEWORK CASES ROUNDS SCALE FILE
       python data_worker.py order FRAMEWORK LOADER SAMPLES FILE

CASES is a list of [kind, workers] in JSON.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from collections.abc import Callable
from time import perf_counter
from typing import Any

from data_cases import BATCH, KINDS, Images, Numbers, Own, rows
from measuring import hand_over, resident_bytes, turns

Contender = Callable[[Callable[[Any], None]], None]
"""Reads an epoch, and gives each batch to the function that it gets."""

CONTENDERS = ("plain", "ours", "control")
"""The control is the plain loader once more: how far it is from the first is what this machine can't tell apart."""


def loader(framework: str, data: Any, workers: int = 0) -> Any:
    """The framework's DataLoader, shuffling, as one writes it."""
    if framework == "torch":
        from torch.utils.data import DataLoader

        return DataLoader(data, BATCH, shuffle=True, num_workers=workers)
    from paddle.io import DataLoader as PaddleLoader

    return PaddleLoader(data, batch_size=BATCH, shuffle=True, num_workers=workers)


def dataset(framework: str, kind: str, count: int) -> Any:
    if kind == "images":
        return Images(count)
    if kind == "own":
        return Own(count)
    features, labels = rows(count)
    if framework == "torch":
        import torch
        from torch.utils.data import TensorDataset

        return TensorDataset(torch.from_numpy(features), torch.from_numpy(labels))
    import paddle
    from paddle.io import TensorDataset as PaddleTensors

    return PaddleTensors([paddle.to_tensor(features), paddle.to_tensor(labels)])


class Ours:
    """A Trainer that does nothing but read its data."""

    def __init__(self, framework: str, folder: str, source: Any) -> None:
        ours: Any = importlib.import_module(f"dowdyboy_{framework}")
        native: Any = importlib.import_module(framework)
        settings: dict[str, Any] = {"auto_optimize": False, "enable_save_checkpoint": False, "disable_tqdm": True}
        self.trainer = ours.Trainer(ours.TrainerConfig(epoch=1, out_dir=folder, cpu=True, log_with="none", **settings))
        self.trainer.set_train_dataloader(source)
        self.trainer.set_model(native.nn.Linear(1, 1))

    def __call__(self, read: Callable[[Any], None]) -> None:
        """Reads an epoch."""
        self.trainer.fit(lambda trainer, bat, bat_idx, global_step: read(bat))


class Plain:
    """A loop over a DataLoader."""

    def __init__(self, source: Any) -> None:
        self.source = source

    def __call__(self, read: Callable[[Any], None]) -> None:
        """Reads an epoch."""
        for batch in self.source:
            read(batch)


def time_epoch(contender: Contender, count: int) -> float:
    """Samples a second of an epoch, from asking for it to its end.

    Raises:
        RuntimeError: a sample was not there exactly once.
    """
    labels: list[Any] = []
    began = perf_counter()
    contender(lambda batch: labels.append(batch[1]))
    rate = count / (perf_counter() - began)
    if sorted(int(label) for batch in labels for label in batch.numpy()) != list(range(count)):
        raise RuntimeError(f"An epoch of {count} samples has {sum(map(len, labels))}, or others.")
    return rate


def rates(framework: str, kind: str, workers: int, rounds: int, scale: float) -> dict[str, list[float]]:
    """Samples a second of each loader over one kind of data, in each round."""
    count = max(3 * BATCH, int(KINDS[kind].samples * scale) // BATCH * BATCH)
    data = dataset(framework, kind, count)
    found: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as folder:
        plain, control = (Plain(loader(framework, data, workers)) for _ in range(2))
        contenders: dict[str, Contender] = {
            "plain": plain,
            "control": control,
            "ours": Ours(framework, folder, loader(framework, data, workers)),
        }
        for number in range(rounds + 1):
            for name in turns(CONTENDERS, number):
                rate = time_epoch(contenders[name], count)
                if number:  # the first one warms up
                    found[name].append(rate)
    return found


class Enough(Exception):
    """Ends an epoch after its first batch."""


def first_batch(framework: str, name: str, count: int) -> dict[str, float]:
    """Seconds to the first batch of a shuffled epoch of ``count`` samples, and the memory that it takes meanwhile."""

    def stop(batch: Any) -> None:
        raise Enough

    with tempfile.TemporaryDirectory() as folder:

        def make(size: int) -> Contender:
            source = loader(framework, Numbers(size))
            return Ours(framework, folder, source) if name == "ours" else Plain(source)

        make(4 * BATCH)(lambda batch: None)  # has everything loaded that is needed
        contender = make(count)
        before, began = resident_bytes(), perf_counter()
        try:
            contender(stop)
        except Enough:
            seconds = perf_counter() - began
    return {"seconds": seconds, "bytes": max(resident_bytes(peak=True) - before, 0)}


if __name__ == "__main__":
    what, chosen, how, *arguments, file = sys.argv[1:]
    if what == "rate":
        rounds, scale = int(arguments[0]), float(arguments[1])
        hand_over([rates(chosen, kind, workers, rounds, scale) for kind, workers in json.loads(how)], file)
    else:
        hand_over(first_batch(chosen, how, int(arguments[0])), file)

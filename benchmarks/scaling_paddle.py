"""The contenders on PaddlePaddle; diff this file with scaling_torch.py to see what a framework changes."""

from __future__ import annotations

import os
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.distributed import fleet as untyped_fleet
from paddle.io import DataLoader, Dataset, DistributedBatchSampler, TensorDataset
from scaling_cases import BATCH, CLASSES, Case
from tqdm import tqdm

from dowdyboy_paddle import Trainer, TrainerConfig

fleet: Any = untyped_fleet
RANK = int(os.environ.get("PADDLE_TRAINER_ID", "0"))
WORLD_SIZE = int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))


class Samples(Dataset[Any]):
    """Samples of a user's own: nothing tells the trainer that reading them draws no random numbers."""

    def __init__(self, case: Case) -> None:
        self.samples, self.labels = case.samples(WORLD_SIZE)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray[Any, Any], np.int64]:
        return self.samples[index], self.labels[index]


def make_data(case: Case) -> Dataset[Any]:
    if case.data == "own":
        return Samples(case)
    return TensorDataset(list(map(paddle.to_tensor, case.samples(WORLD_SIZE))))


def make_model(case: Case) -> nn.Layer:
    paddle.seed(11)
    if case.model == "tiny":
        return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, CLASSES))
    layers: list[nn.Layer] = []
    for inputs, outputs in [(3, 8), (8, 16), (16, 32)]:
        layers += [nn.Conv2D(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2D(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 4 * 4, CLASSES))


def make_optimizer(model: nn.Layer) -> paddle.optimizer.Optimizer:
    return paddle.optimizer.Momentum(0.001, 0.9, parameters=model.parameters())


def begin() -> None:
    """What a hand-written script does first."""
    paddle.device.set_device("cpu")
    if WORLD_SIZE > 1:
        fleet.init(is_collective=True)


class HandWritten:
    """A loop as one writes it for this one job, with fleet."""

    def __init__(self, case: Case, workers: int) -> None:
        self.shown = case.recorded and RANK == 0
        self.recorded = case.recorded
        data = make_data(case)
        self.model = make_model(case)
        self.optimizer: Any = make_optimizer(self.model)
        self.loss_func = nn.CrossEntropyLoss()
        self.sampler: DistributedBatchSampler | None = None
        if WORLD_SIZE > 1:
            self.model = fleet.distributed_model(self.model)
            self.optimizer = fleet.distributed_optimizer(self.optimizer)
            self.sampler = DistributedBatchSampler(data, BATCH, shuffle=True)
            self.loader = DataLoader(data, batch_sampler=self.sampler, num_workers=workers)
        else:
            self.loader = DataLoader(data, batch_size=BATCH, shuffle=True, num_workers=workers)

    def block(self, number: int) -> list[float]:
        """Trains an epoch; gives the time at the same place of each step, in seconds."""
        marks: list[float] = []
        losses: list[Tensor] = []
        self.model.train()
        if self.sampler is not None:
            self.sampler.set_epoch(number)
        bar = tqdm(self.loader) if self.shown else None
        for samples, labels in bar if bar is not None else self.loader:
            self.optimizer.clear_grad()
            marks.append(perf_counter())
            loss = self.loss_func(self.model(samples), labels)
            loss.backward()
            self.optimizer.step()
            if self.recorded:
                losses.append(loss.detach())
            if bar is not None:
                bar.set_postfix(loss=loss.item(), refresh=False)
        return marks


class Ours:
    """The same with a Trainer."""

    def __init__(self, case: Case, workers: int, out_dir: Path) -> None:
        self.recorded = case.recorded
        self.marks: list[float] = []
        config = TrainerConfig(
            epoch=1,
            out_dir=out_dir,
            cpu=True,
            log_with="none",
            enable_save_checkpoint=False,
            disable_tqdm=not case.recorded,
        )
        self.trainer = Trainer(config)
        model = make_model(case)
        loader = DataLoader(make_data(case), batch_size=BATCH, shuffle=True, num_workers=workers)
        self.trainer.set_train_dataloader(loader)
        self.trainer.set_model(model)
        self.trainer.set_component(nn.CrossEntropyLoss())
        self.trainer.set_optimizer(make_optimizer(model))

    def block(self, number: int) -> list[float]:
        """Trains an epoch; gives the time at the same place of each step, in seconds."""
        self.marks = []
        self.trainer.fit(self.train_step)
        return self.marks

    def train_step(self, trainer: Trainer, bat: Any, bat_idx: int, global_step: int) -> Tensor:
        """The hook, as scripts write it."""
        self.marks.append(perf_counter())
        [model], [loss_func] = trainer.get_models(), trainer.get_components()
        samples, labels = bat
        loss: Tensor = loss_func(model(samples), labels)
        if self.recorded:
            trainer.set_records({"loss": loss})
        return loss

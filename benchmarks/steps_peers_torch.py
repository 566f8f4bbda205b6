"""The same loops with other libraries on PyTorch, from an environment that has them (``hatch run peers:steps``).

Each comes silent and as its documentation has people use it: with a bar that shows the loss. Those that have no bar of
their own get tqdm's.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from typing import Any

from steps_cases import CLASSES, FEATURES, HIDDEN, Block, Job, contender
from steps_torch import parts
from torch import Tensor, nn

warnings.filterwarnings("ignore")
for name in ("lightning.pytorch", "lightning.fabric", "mmengine"):
    logging.getLogger(name).setLevel(logging.ERROR)


def ignite(job: Job, *, shown: bool) -> Block:
    from ignite.engine import Engine
    from ignite.handlers import ProgressBar

    model, optimizer, loss_func, batches = parts(job)

    def update(engine: Any, batch: Any) -> Any:
        features, labels = batch
        optimizer.zero_grad()
        job.mark()
        loss = loss_func(model(features), labels)
        loss.backward()
        optimizer.step()
        return loss.item() if shown else None

    engine = Engine(update)
    if shown:
        ProgressBar().attach(engine, output_transform=lambda loss: {"loss": loss})
    return lambda: engine.run(batches, max_epochs=1)


@contender("Ignite, silent")
def ignite_silent(job: Job) -> Block:
    return ignite(job, shown=False)


@contender("Ignite: bar with the loss")
def ignite_bar(job: Job) -> Block:
    return ignite(job, shown=True)


def fabric(job: Job, *, shown: bool) -> Block:
    from lightning.fabric import Fabric
    from tqdm import tqdm

    made, first_optimizer, loss_func, batches = parts(job)
    fabric = Fabric(accelerator="cpu", devices=1)
    model, optimizer = fabric.setup(made, first_optimizer)
    if job.data != "batches":
        batches = fabric.setup_dataloaders(batches)

    def block() -> None:
        for features, labels in (bar := tqdm(batches, disable=not shown)):
            optimizer.zero_grad()
            job.mark()
            loss = loss_func(model(features), labels)
            fabric.backward(loss)
            optimizer.step()
            if shown:
                bar.set_postfix(loss=loss.item())

    return block


@contender("Lightning Fabric, silent")
def fabric_silent(job: Job) -> Block:
    return fabric(job, shown=False)


@contender("Lightning Fabric: bar with the loss")
def fabric_bar(job: Job) -> Block:
    return fabric(job, shown=True)


def accelerate(job: Job, *, shown: bool) -> Block:
    from accelerate import Accelerator
    from tqdm import tqdm

    made, first_optimizer, loss_func, batches = parts(job)
    accelerator = Accelerator(cpu=True)
    model, optimizer = accelerator.prepare(made, first_optimizer)
    if job.data != "batches":
        batches = accelerator.prepare(batches)

    def block() -> None:
        for features, labels in (bar := tqdm(batches, disable=not shown)):
            optimizer.zero_grad()
            job.mark()
            loss = loss_func(model(features), labels)
            accelerator.backward(loss)
            optimizer.step()
            if shown:
                bar.set_postfix(loss=loss.item())

    return block


@contender("Accelerate, silent")
def accelerate_silent(job: Job) -> Block:
    return accelerate(job, shown=False)


@contender("Accelerate: bar with the loss")
def accelerate_bar(job: Job) -> Block:
    return accelerate(job, shown=True)


def tnt(job: Job, *, shown: bool) -> Block:
    from torchtnt.framework.callbacks import TQDMProgressBar
    from torchtnt.framework.state import State
    from torchtnt.framework.train import train
    from torchtnt.framework.unit import TrainUnit

    model, optimizer, loss_func, batches = parts(job)

    class Unit(TrainUnit[Any]):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def train_step(self, state: State, data: Any) -> None:
            features, labels = data
            optimizer.zero_grad()
            job.mark()
            loss = loss_func(self.model(features), labels)
            loss.backward()
            optimizer.step()

    return lambda: train(Unit(), batches, max_epochs=1, callbacks=[TQDMProgressBar()] if shown else [])


@contender("torchtnt, silent")
def tnt_silent(job: Job) -> Block:
    return tnt(job, shown=False)


@contender("torchtnt: bar")
def tnt_bar(job: Job) -> Block:
    return tnt(job, shown=True)


class Batches:
    """A list of batches that Lightning doesn't take for a list of loaders."""

    def __init__(self, batches: list[Any]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._batches)


def lightning(job: Job, *, shown: bool) -> Block:
    from lightning.pytorch import LightningModule, Trainer

    made, made_optimizer, made_loss_func, batches = parts(job)

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.loss_func = made, made_loss_func

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            features, labels = batch
            job.mark()
            loss: Tensor = self.loss_func(self.model(features), labels)
            if shown:
                self.log("loss", loss, prog_bar=True)
            return loss

        def configure_optimizers(self) -> Any:
            return made_optimizer

    module = Module()
    data = Batches(batches) if job.data == "batches" else batches
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, "barebones": False}

    def block() -> None:
        trainer = Trainer(max_epochs=1, accelerator="cpu", devices=1, enable_progress_bar=shown, **quiet)
        trainer.fit(module, data)

    return block


@contender("Lightning Trainer, silent")
def lightning_silent(job: Job) -> Block:
    return lightning(job, shown=False)


@contender("Lightning Trainer: bar with the loss")
def lightning_bar(job: Job) -> Block:
    return lightning(job, shown=True)


def keras(job: Job, *, shown: bool) -> Block:
    import keras

    *_, batches = parts(job)
    made = keras.Sequential(
        [keras.Input((FEATURES,)), keras.layers.Dense(HIDDEN, activation="relu"), keras.layers.Dense(CLASSES)]
    )
    made.set_weights([item for weight, bias in job.weights() for item in (weight.T, bias)])
    made.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    made.optimizer.learning_rate = 0.001

    class Data(keras.utils.PyDataset):
        def __len__(self) -> int:
            return len(batches)

        def __getitem__(self, index: int) -> Any:
            return batches[index]

    class Mark(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            job.mark()

    job.model = nn.ParameterList([variable.value for variable in made.trainable_variables])
    return lambda: made.fit(Data(), epochs=1, verbose=1 if shown else 0, shuffle=False, callbacks=[Mark()])


@contender("Keras on torch, silent", ends="keras", data=("batches",))
def keras_silent(job: Job) -> Block:
    return keras(job, shown=False)


@contender("Keras on torch: bar with the loss", ends="keras", data=("batches",))
def keras_bar(job: Job) -> Block:
    return keras(job, shown=True)


def mmengine(job: Job, *, shown: bool) -> Block:
    from mmengine.model import BaseModel
    from mmengine.optim import OptimWrapper
    from mmengine.runner import Runner

    made, optimizer, loss_func, batches = parts(job)

    class Model(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.inner = made

        def forward(self, features: Tensor, labels: Tensor, mode: str) -> dict[str, Tensor]:
            job.mark()
            return {"loss": loss_func(self.inner(features), labels)}

    model = Model()
    hooks: dict[str, Any] = {"checkpoint": None, "param_scheduler": None}  # nothing is saved or scheduled
    number = iter(range(1_000_000))

    def block() -> None:
        runner = Runner(
            model,
            work_dir=str(job.folder),
            train_dataloader=batches,
            optim_wrapper=OptimWrapper(optimizer),
            train_cfg={"by_epoch": True, "max_epochs": 1},
            default_hooks={**hooks, "logger": None} if not shown else hooks,
            log_level="INFO" if shown else "ERROR",
            experiment_name=f"{job.folder.name}_{next(number)}",
        )
        runner.train()

    return block


@contender("MMEngine, silent", data=("tensors", "own"))
def mmengine_silent(job: Job) -> Block:
    return mmengine(job, shown=False)


@contender("MMEngine: lines with the loss", data=("tensors", "own"))
def mmengine_lines(job: Job) -> Block:
    return mmengine(job, shown=True)

"""Ways to write a training loop on PaddlePaddle; diff this file with steps_torch.py to see what a framework changes.

To add one, write a function: it gets a job, and gives a function that trains one epoch and calls ``job.mark()`` in each
step before the forward pass.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.io import DataLoader, Dataset, TensorDataset
from paddle.optimizer.lr import StepDecay
from steps_cases import BATCH, WINDOW, Block, Job, contender

from dowdyboy_paddle import Trainer, TrainerConfig


class Samples(Dataset[Any]):
    """Samples of a user's own: nothing tells a trainer that reading them draws no random numbers."""

    def __init__(self, features: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> None:
        self.features, self.labels = features, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray[Any, Any], np.int64]:
        return self.features[index], self.labels[index]


def loader(job: Job) -> Any:
    if job.data == "batches":
        return [(paddle.to_tensor(features), paddle.to_tensor(labels)) for features, labels in job.batches()]
    features, labels = job.samples()
    if job.data == "tensors":
        return DataLoader(TensorDataset([paddle.to_tensor(features), paddle.to_tensor(labels)]), batch_size=BATCH)
    return DataLoader(Samples(features, labels), batch_size=BATCH)


def parts(job: Job) -> tuple[nn.Layer, Any, nn.Layer, Any]:
    """Model, optimizer, loss function and batches; the same for everyone."""
    paddle.device.set_device("cpu")
    layers: list[nn.Layer] = []
    for weight, bias in job.weights():
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.set_state_dict({"weight": paddle.to_tensor(weight.T), "bias": paddle.to_tensor(bias)})
        layers += [layer, nn.ReLU()]
    job.model = nn.Sequential(*layers[:-1])
    return job.model, paddle.optimizer.SGD(0.001, parameters=job.model.parameters()), nn.CrossEntropyLoss(), loader(job)


def scheduled(optimizer: Any) -> StepDecay:
    scheduler = StepDecay(0.001, 10, 0.99)
    optimizer.set_lr_scheduler(scheduler)
    return scheduler


def weights(model: nn.Layer) -> bytes:
    """The weights' own bytes."""
    return b"".join(item.numpy().tobytes() for item in model.parameters())


@contender("hand-written")
def hand_written(job: Job) -> Block:
    model, optimizer, loss_func, batches = parts(job)

    def block() -> None:
        for features, labels in batches:
            optimizer.clear_grad()
            job.mark()
            loss = loss_func(model(features), labels)
            loss.backward()
            optimizer.step()

    return block


contender("hand-written again")(hand_written)  # how far it is from the other one is what can't be told apart here


@contender("hand-written + bar")
def hand_written_bar(job: Job) -> Block:
    from tqdm import tqdm

    model, optimizer, loss_func, batches = parts(job)

    def block() -> None:
        for features, labels in tqdm(batches):
            optimizer.clear_grad()
            job.mark()
            loss = loss_func(model(features), labels)
            loss.backward()
            optimizer.step()

    return block


@contender("hand-written + bar with the loss")
def hand_written_postfix(job: Job) -> Block:
    from tqdm import tqdm

    model, optimizer, loss_func, batches = parts(job)

    def block() -> None:
        for features, labels in (bar := tqdm(batches)):
            optimizer.clear_grad()
            job.mark()
            loss = loss_func(model(features), labels)
            loss.backward()
            optimizer.step()
            bar.set_postfix(loss=loss.item())

    return block


@contender("hand-written + bar with the loss, refresh=False")
def hand_written_lazy_postfix(job: Job) -> Block:
    from tqdm import tqdm

    model, optimizer, loss_func, batches = parts(job)

    def block() -> None:
        for features, labels in (bar := tqdm(batches)):
            optimizer.clear_grad()
            job.mark()
            loss = loss_func(model(features), labels)
            loss.backward()
            optimizer.step()
            bar.set_postfix(loss=loss.item(), refresh=False)

    return block


@contender("hand-written + LogWriter, lines of JSON")
def hand_written_logs(job: Job) -> Block:
    from visualdl import LogWriter

    model, optimizer, loss_func, batches = parts(job)
    writer, lines = LogWriter(str(job.folder)), (job.folder / "metrics.jsonl").open("w", encoding="utf-8")

    def block() -> None:
        for step, (features, labels) in enumerate(batches):
            optimizer.clear_grad()
            job.mark()
            loss = loss_func(model(features), labels)
            loss.backward()
            optimizer.step()
            value = loss.item()
            writer.add_scalar("loss", value, step)
            lines.write(json.dumps({"step": step, "loss": value}) + "\n")
        lines.flush()

    return block


@contender("hand-written, accumulating", ends="accumulated")
def hand_written_accumulating(job: Job) -> Block:
    model, optimizer, loss_func, batches = parts(job)

    def block() -> None:
        for step, (features, labels) in enumerate(batches, 1):
            if step % WINDOW == 1:
                optimizer.clear_grad()
            job.mark()
            loss = loss_func(model(features), labels)
            (loss / WINDOW).backward()
            if step % WINDOW == 0:
                optimizer.step()

    return block


@contender("hand-written, clipping", ends="clipped")
def hand_written_clipping(job: Job) -> Block:
    model, optimizer, loss_func, batches = parts(job)

    def block() -> None:
        for features, labels in batches:
            optimizer.clear_grad()
            job.mark()
            loss = loss_func(model(features), labels)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()

    return block


@contender("hand-written, a scheduler each step", ends="scheduled")
def hand_written_scheduled(job: Job) -> Block:
    model, optimizer, loss_func, batches = parts(job)
    scheduler = scheduled(optimizer)

    def block() -> None:
        for features, labels in batches:
            optimizer.clear_grad()
            job.mark()
            loss = loss_func(model(features), labels)
            loss.backward()
            optimizer.step()
            scheduler.step()

    return block


def train(job: Job, step: Any, scheduler: Any = None, **changed: Any) -> Block:
    """A Trainer of ours with the same parts; nothing is saved, since that is done once an epoch."""
    settings: dict[str, Any] = {"log_with": "none", **changed}
    trainer = Trainer(TrainerConfig(epoch=1, out_dir=job.folder, cpu=True, enable_save_checkpoint=False, **settings))
    model, optimizer, loss_func, batches = parts(job)
    trainer.set_train_dataloader(batches)
    trainer.set_model(model)
    trainer.set_component(loss_func)
    trainer.set_optimizer(optimizer, scheduler(optimizer) if scheduler is not None else None)
    return lambda: trainer.fit(step)


def loss_of(job: Job, trainer: Trainer, bat: Any) -> Tensor:
    """What every hook of ours begins with."""
    [model], [loss_func] = trainer.get_models(), trainer.get_components()
    features, labels = bat
    job.mark()
    loss: Tensor = loss_func(model(features), labels)
    return loss


@contender("ours, silent")
def ours_silent(job: Job) -> Block:
    def train_step(trainer: Trainer, bat: Any, bat_idx: int, global_step: int) -> Tensor:
        return loss_of(job, trainer, bat)

    return train(job, train_step, disable_tqdm=True)


@contender("ours: bar with the loss, a record each step")
def ours(job: Job) -> Block:
    def train_step(trainer: Trainer, bat: Any, bat_idx: int, global_step: int) -> Tensor:
        loss = loss_of(job, trainer, bat)
        trainer.set_records({"loss": loss})
        return loss

    return train(job, train_step)


@contender("ours: the same, and trainer.log each step")
def ours_logs(job: Job) -> Block:
    def train_step(trainer: Trainer, bat: Any, bat_idx: int, global_step: int) -> Tensor:
        loss = loss_of(job, trainer, bat)
        trainer.set_records({"loss": loss})
        trainer.log({"loss": loss}, global_step)
        return loss

    return train(job, train_step, log_with="auto")


@contender("ours, silent, accumulating", ends="accumulated")
def ours_accumulating(job: Job) -> Block:
    def train_step(trainer: Trainer, bat: Any, bat_idx: int, global_step: int) -> Tensor:
        return loss_of(job, trainer, bat)

    return train(job, train_step, disable_tqdm=True, accumulate_steps=WINDOW)


@contender("ours, silent, clipping", ends="clipped")
def ours_clipping(job: Job) -> Block:
    def train_step(trainer: Trainer, bat: Any, bat_idx: int, global_step: int) -> Tensor:
        return loss_of(job, trainer, bat)

    return train(job, train_step, disable_tqdm=True, clip_grad_norm=0.1)


@contender("ours, silent, a scheduler each step", ends="scheduled")
def ours_scheduled(job: Job) -> Block:
    def train_step(trainer: Trainer, bat: Any, bat_idx: int, global_step: int) -> None:
        [optimizer], [scheduler] = trainer.get_optimizers()
        trainer.zero_grad(optimizer)
        trainer.backward(loss_of(job, trainer, bat))
        trainer.step(optimizer, scheduler)

    return train(
        job,
        train_step,
        scheduled,
        disable_tqdm=True,
        auto_optimize=False,
        auto_schedule=False,
    )

"""The programs that PaddlePaddle's tutorials begin with: as by hand to the last bit, and so when they are resumed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paddle
import pytest
from paddle import Tensor, nn
from paddle.io import DataLoader, TensorDataset
from paddle.nn import functional as F

from dowdyboy_paddle import Trainer, TrainerConfig
from dowdyboy_paddle.rand import derive_seed, set_seed

if TYPE_CHECKING:
    from tests import tutorials
else:
    _spec = importlib.util.spec_from_file_location("tutorials", Path(__file__).parents[3] / "tests" / "tutorials.py")
    tutorials = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(tutorials)


class Program:
    """A program: what it is made of, and how it gets a loss from a batch."""

    auto_optimize = True
    save_steps: int | None = 2
    models: list[nn.Layer]
    optimizers: list[paddle.optimizer.Optimizer]
    schedulers: list[Any] = [None]  # noqa: RUF012
    components: list[nn.Layer] = []  # noqa: RUF012

    def loader(self) -> Iterable[Any]:
        raise NotImplementedError

    def loss(self, bat: Any, bat_idx: int) -> Tensor:
        raise NotImplementedError

    def step(self, by: Any, bat: Any, bat_idx: int) -> list[Tensor]:
        """A training step; ``by`` clears, differentiates and steps, where the trainer doesn't."""
        return [self.loss(bat, bat_idx)]


def loader(*arrays: Any, **settings: Any) -> Any:
    return DataLoader(TensorDataset([paddle.to_tensor(array) for array in arrays]), shuffle=True, **settings)


class Forecaster(nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(1, 8, num_layers=2, dropout=0.2)
        self.head = nn.Linear(8, 1)

    def forward(self, values: Tensor) -> Tensor:
        states, _ = self.rnn(values)
        return self.head(states[:, -1])


class TimeSeries(Program):
    def __init__(self) -> None:
        self.models = [Forecaster()]
        self.optimizers = [paddle.optimizer.Adam(0.01, parameters=self.models[0].parameters())]

    def loader(self) -> Iterable[Any]:
        return loader(*tutorials.waves(), batch_size=8)

    def loss(self, bat: Any, bat_idx: int) -> Tensor:
        values, following = bat
        return F.mse_loss(self.models[0](values), following)


class Reader(nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tutorials.WORDS, 6, padding_idx=0)
        self.rnn = nn.GRU(6, 5, direction="bidirect")
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(10, 2)

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        _, last = self.rnn(self.embedding(words), sequence_length=lengths)
        return self.head(self.dropout(paddle.concat([last[0], last[1]], 1)))


def collate(reviews: Any) -> tuple[Tensor, ...]:
    return tuple(map(paddle.to_tensor, tutorials.padded(reviews)))


class Sentiment(Program):
    def __init__(self) -> None:
        self.models = [Reader()]
        self.optimizers = [paddle.optimizer.AdamW(0.01, parameters=self.models[0].parameters())]

    def loader(self) -> Iterable[Any]:
        return DataLoader(tutorials.reviews(), batch_size=5, shuffle=True, collate_fn=collate)

    def loss(self, bat: Any, bat_idx: int) -> Tensor:
        words, lengths, labels = bat
        return F.cross_entropy(self.models[0](words, lengths), labels)


class Images(Program):
    def __init__(self) -> None:
        self.models = [
            nn.Sequential(
                nn.Conv2D(1, 4, 3, padding=1),
                nn.BatchNorm2D(4),
                nn.ReLU(),
                nn.MaxPool2D(2),
                nn.Flatten(),
                nn.Dropout(0.2),
                nn.Linear(64, 10),
            )
        ]
        self.schedulers = [paddle.optimizer.lr.StepDecay(0.1, 1, 0.5)]
        self.optimizers = [paddle.optimizer.Momentum(self.schedulers[0], 0.9, self.models[0].parameters())]

    def loader(self) -> Iterable[Any]:
        return loader(*tutorials.digits(), batch_size=12)

    def loss(self, bat: Any, bat_idx: int) -> Tensor:
        images, labels = bat
        return F.cross_entropy(self.models[0](images), labels)


class SuperResolution(Program):
    def __init__(self) -> None:
        self.models = [
            nn.Sequential(nn.Conv2D(1, 6, 3, padding=1), nn.Tanh(), nn.Conv2D(6, 4, 3, padding=1), nn.PixelShuffle(2))
        ]
        self.optimizers = [paddle.optimizer.Adam(0.01, parameters=self.models[0].parameters())]

    def loader(self) -> Iterable[Any]:
        return loader(*tutorials.small_digits(), batch_size=10)

    def loss(self, bat: Any, bat_idx: int) -> Tensor:
        small, images = bat
        return F.mse_loss(self.models[0](small), images)


class Gan(Program):
    auto_optimize = False

    def __init__(self) -> None:
        generator = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1D(16), nn.ReLU(), nn.Linear(16, 64), nn.Sigmoid())
        critic = nn.Sequential(nn.Linear(64, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
        self.models = [generator, critic]
        self.optimizers = [paddle.optimizer.Adam(0.01, 0.5, parameters=model.parameters()) for model in self.models]
        self.schedulers = [None, None]

    def loader(self) -> Iterable[Any]:
        return loader(*tutorials.digits(), batch_size=10)

    def step(self, by: Any, bat: Any, bat_idx: int) -> list[Tensor]:
        [generator, critic], [of_generator, of_critic] = self.models, self.optimizers
        real = bat[0].flatten(1)
        fake = generator(paddle.randn([len(real), 4]))
        critic_loss = F.softplus(-critic(real)).mean() + F.softplus(critic(fake.detach())).mean()
        by.zero_grad(of_critic)
        by.backward(critic_loss)
        by.step(of_critic)
        generator_loss = F.softplus(-critic(fake)).mean()
        by.zero_grad(of_generator)
        by.backward(generator_loss)
        by.step(of_generator)
        return [critic_loss, generator_loss]


class Writer(nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tutorials.WORDS, 6)
        self.rnn = nn.LSTM(6, 8)
        self.head = nn.Linear(8, tutorials.WORDS)

    def forward(self, words: Tensor, state: Any) -> tuple[Tensor, Any]:
        outputs, state = self.rnn(self.embedding(words), state)
        return self.head(outputs), state


class Language(Program):
    """What the model has read goes on from batch to batch, in a variable, which no checkpoint has.

    So it begins afresh with each epoch, and there are no checkpoints but at the end of one.
    """

    save_steps = None

    def __init__(self) -> None:
        self.models = [Writer()]
        self.optimizers = [paddle.optimizer.SGD(0.5, self.models[0].parameters())]
        self.state: Any = None

    def loader(self) -> Iterable[Any]:
        return [tuple(map(paddle.to_tensor, piece)) for piece in tutorials.text()]

    def loss(self, bat: Any, bat_idx: int) -> Tensor:
        words, following = bat
        scores, state = self.models[0](words, None if bat_idx == 0 else self.state)
        self.state = tuple(part.detach() for part in state)
        return F.cross_entropy(scores.flatten(0, 1), following.flatten())


class Carried(nn.Layer):
    """The same in the buffers of a component, which a checkpoint has."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("hidden", paddle.zeros([1, 4, 8]))
        self.register_buffer("cell", paddle.zeros([1, 4, 8]))


class LanguageInAComponent(Language):
    save_steps = 2

    def __init__(self) -> None:
        super().__init__()
        self.components = [Carried()]

    def loss(self, bat: Any, bat_idx: int) -> Tensor:
        words, following = bat
        [carried] = self.components
        scores, state = self.models[0](words, None if bat_idx == 0 else (carried.hidden, carried.cell))
        carried.hidden, carried.cell = (part.detach() for part in state)
        return F.cross_entropy(scores.flatten(0, 1), following.flatten())


def train(kind: Callable[[], Program], out_dir: Path, kill_at: int | None = None, **settings: Any) -> Any:
    """Trains a program with the trainer, with validation, which must not matter."""
    common: dict[str, Any] = {"epoch": tutorials.EPOCHS, "cpu": True, "log_with": "none", "disable_tqdm": True}
    chosen = {"auto_optimize": kind.auto_optimize, "save_steps": kind.save_steps}
    trainer = Trainer(TrainerConfig(out_dir=out_dir, **{**common, **chosen, **settings}))
    program = kind()
    trainer.set_models(program.models)
    trainer.set_components(program.components)
    trainer.set_optimizers(program.optimizers, program.schedulers)
    trainer.set_train_dataloader(program.loader())
    trainer.set_val_dataloader(program.loader())
    losses: dict[int, list[float]] = {}
    batches: list[list[Any]] = [[] for _ in range(tutorials.EPOCHS)]

    def train_step(trainer: Trainer, bat: Any, bat_idx: int, global_step: int) -> Tensor:
        if global_step == kill_at:
            raise tutorials.Killed
        batches[trainer.epoch - 1].append(bat)
        found = program.step(trainer, bat, bat_idx)
        losses[global_step] = [float(loss.detach()) for loss in found]
        return found[-1]

    def val_step(trainer: Trainer, bat: Any, bat_idx: int, global_step: int) -> None:
        for model in trainer.get_models():
            assert not model.training
        if kind is not Gan:
            trainer.set_records({"val_loss": program.loss(bat, bat_idx)})

    with suppress(tutorials.Killed):
        trainer.fit(train_step, val_step)
    return tutorials.Trained(losses, weights_of(program), batches)


def weights_of(program: Program) -> list[dict[str, Any]]:
    return [{name: item.numpy().copy() for name, item in model.state_dict().items()} for model in program.models]


class ByHand:
    """What a loop does that is written by hand."""

    def zero_grad(self, optimizer: paddle.optimizer.Optimizer) -> None:
        optimizer.clear_grad()

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self, optimizer: paddle.optimizer.Optimizer) -> None:
        optimizer.step()


def by_hand(kind: Callable[[], Program], batches: list[list[Any]]) -> Any:
    """Trains a program on batches without a trainer."""
    set_seed(1024)
    program, by = kind(), ByHand()
    set_seed(derive_seed(1024, "fit", 0))
    losses: dict[int, list[float]] = {}
    for of_epoch in batches:
        for bat_idx, bat in enumerate(of_epoch):
            found = program.step(by, bat, bat_idx)
            if program.auto_optimize:
                [optimizer] = program.optimizers
                optimizer.clear_grad()
                found[0].backward()
                optimizer.step()
            losses[len(losses)] = [float(loss.detach()) for loss in found]
        for scheduler in program.schedulers:
            if scheduler is not None:
                scheduler.step()
    return tutorials.Trained(losses, weights_of(program), batches)


PROGRAMS = [TimeSeries, Sentiment, Images, SuperResolution, Gan, Language, LanguageInAComponent]


@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_tutorial_trains_as_by_hand_and_is_resumed(tmp_path: Path, kind: Any) -> None:
    tutorials.check(partial(train, kind), partial(by_hand, kind), tmp_path)


def test_a_variable_of_a_hook_is_in_no_checkpoint(tmp_path: Path) -> None:
    """So the program that keeps its state in one may not be resumed within an epoch; else nobody need take care."""
    whole = train(Language, tmp_path / "whole")
    train(Language, tmp_path / "parts", 8, save_steps=1)
    resumed = train(Language, tmp_path / "parts", resume="auto")
    assert min(resumed.losses) == 8
    assert resumed.losses[8] != whole.losses[8]

"""Recurrent layers, which hold a buffer without content; and other layers that do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn

from dowdyboy_paddle import CheckpointError, ConfigError, Trainer, TrainerConfig, UnsupportedError, spawn
from dowdyboy_paddle._arrays import has_content
from dowdyboy_paddle._distributed import backward
from dowdyboy_paddle._state import move
from dowdyboy_paddle.rand import derive_seed, set_seed

KINDS: dict[str, Callable[[], Any]] = {
    "LSTM": lambda: nn.LSTM(4, 5),
    "GRU": lambda: nn.GRU(4, 5, num_layers=2, direction="bidirect", dropout=0.2),
    "SimpleRNN": lambda: nn.SimpleRNN(4, 5, activation="relu", time_major=True),
    "projected": lambda: nn.LSTM(4, 6, proj_size=5),
    "cell": lambda: nn.RNN(nn.LSTMCell(4, 5)),
    "cells": lambda: nn.BiRNN(nn.GRUCell(4, 5), nn.SimpleRNNCell(4, 5)),
}


class Model(nn.Layer):
    """What comes before, the layer itself, and what comes after."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.before, self.rnn = nn.Linear(3, 4), KINDS[kind]()
        self.after = nn.Linear(10 if kind in ("GRU", "cells") else 5, 1)

    def forward(self, values: Any) -> Any:
        return self.after(self.rnn(self.before(values))[0]).square().mean()


def batches() -> list[Any]:
    generator = np.random.Generator(np.random.PCG64(1))
    return [paddle.to_tensor(generator.normal(size=(2, 6, 3)).astype("float32")) for _ in range(4)]


def weights(model: Any) -> dict[str, Any]:
    return {name: item.numpy().tolist() for name, item in model.state_dict().items()}


def freeze(model: Model, parts: str) -> None:
    for name, item in model.named_parameters():
        item.stop_gradient = name.startswith(tuple(parts.split()))


def trainable(model: Model) -> list[Any]:
    return [item for item in model.parameters() if not item.stop_gradient]


class Killed(Exception):
    """Ends a run where a kill would have."""


def train(kind: str, out_dir: Path, frozen: str = "none", kill_at: int | None = None, **settings: Any) -> Any:
    common: dict[str, Any] = {"epoch": 2, "cpu": True, "log_with": "none", "disable_tqdm": True, "save_steps": 1}
    trainer = Trainer(TrainerConfig(out_dir=out_dir, **{**common, **settings}))
    model = Model(kind)
    freeze(model, frozen)
    trainer.set_model(model)
    trainer.set_optimizer(paddle.optimizer.Adam(0.01, parameters=trainable(model)))
    trainer.set_train_dataloader(batches())

    def train_step(trainer: Trainer, bat: Any, bat_idx: int, global_step: int) -> Any:
        if global_step == kill_at:
            raise Killed
        return trainer.get_models()[0](bat)

    with suppress(Killed):
        trainer.fit(train_step)
    return weights(model)


def by_hand(kind: str, frozen: str) -> Any:
    set_seed(1024)
    model = Model(kind)
    freeze(model, frozen)
    optimizer = paddle.optimizer.Adam(0.01, parameters=trainable(model))
    set_seed(derive_seed(1024, "fit", 0))
    for _ in range(2):
        for bat in batches():
            model(bat).backward()
            optimizer.step()
            optimizer.clear_grad()
    return weights(model)


@pytest.mark.parametrize("kind", KINDS)
def test_a_recurrent_layer_trains_as_by_hand_and_is_resumed(tmp_path: Path, kind: str) -> None:
    # Frozen with all that is below, its kernel has no gradient to give; layers of cells can also be frozen in part.
    for frozen in ["none", "before rnn"] + (["rnn.cell rnn.rnn_fw"] if "cell" in kind else []):
        whole = train(kind, tmp_path / frozen / "whole", frozen)
        assert whole == by_hand(kind, frozen)
        train(kind, tmp_path / frozen / "parts", frozen, kill_at=5)
        assert train(kind, tmp_path / frozen / "parts", frozen, resume="auto") == whole


@pytest.mark.parametrize("frozen", ["rnn", "rnn.weight_hh", "rnn.bias"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
def test_gradients_that_can_not_pass_are_told_of(tmp_path: Path, kind: str, frozen: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        train(kind, tmp_path, frozen)
    text = str(caught.value)
    model = Model(kind)
    freeze(model, frozen)
    names = [name.removeprefix("rnn.") for name, item in model.named_parameters() if item.stop_gradient]
    assert f"frozen parameters, and here are {{'rnn': {names}}}: PaddlePaddle's kernel" in text
    assert "give the optimizer those of the other layers only" in text


def test_what_the_message_advises_works(tmp_path: Path) -> None:
    trainer = Trainer(TrainerConfig(out_dir=tmp_path, epoch=2, cpu=True, log_with="none", disable_tqdm=True))
    model = Model("LSTM")
    before = weights(model)
    others = [*model.before.parameters(), *model.after.parameters()]
    trainer.set_model(model)
    trainer.set_optimizer(paddle.optimizer.Adam(0.01, parameters=others))
    trainer.set_train_dataloader(batches())
    trainer.fit(lambda trainer, bat, *_: model(bat))
    unchanged = [name for name, value in weights(model).items() if value == before[name]]
    assert unchanged == [name for name in before if name.startswith("rnn")]


class Failing:
    """A loss whose backward pass fails."""

    def __init__(self, text: str) -> None:
        self.text = text

    def backward(self) -> None:
        raise ValueError(self.text)


def test_another_error_of_the_backward_pass_is_left_as_it_is() -> None:
    frozen, trained = Model("LSTM"), Model("LSTM")
    freeze(frozen, "rnn")
    null = "Required tensor shall not be nullptr"
    for text, models in [("mine", [frozen]), (null, [trained]), (null, [])]:
        loss: Any = Failing(text)
        with pytest.raises(ValueError, match=text):
            backward(loss, models)
    loss = Failing(null)
    with pytest.raises(UnsupportedError):
        backward(loss, [trained, frozen])


def test_a_frozen_recurrent_layer_may_be_a_component(tmp_path: Path) -> None:
    trainer = Trainer(TrainerConfig(out_dir=tmp_path, epoch=1, cpu=True, log_with="none", disable_tqdm=True))
    layer, model = nn.LSTM(3, 5), nn.Linear(5, 1)
    for item in layer.parameters():
        item.stop_gradient = True
    trainer.set_component(layer)
    trainer.set_model(model)
    trainer.set_optimizer(paddle.optimizer.SGD(0.1, parameters=model.parameters()))
    trainer.set_train_dataloader(batches())
    trainer.fit(lambda trainer, bat, *_: model(layer(bat)[0]).mean())
    kept = weights(layer)
    for item in layer.parameters():
        item.fill_(0.0)
    trainer.load_checkpoint(tmp_path / "checkpoint" / "epoch_1")
    assert weights(layer) == kept


def test_nothing_is_moved_that_is_where_it_should_be() -> None:
    model = nn.Sequential(nn.BatchNorm1D(3), nn.LSTM(3, 4))
    buffers = {name: id(item) for name, item in model.named_buffers()}
    assert move(model, paddle.CPUPlace()) is model
    assert {name: id(item) for name, item in model.named_buffers()} == buffers
    assert model[0]._dtype == "float32", "Layer.to forgets the type that new parameters get"


def test_what_has_no_content_stays_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.BatchNorm1D(3), nn.LSTM(3, 4))
    state, place = model[1]._dropout_state, paddle.CPUPlace()
    monkeypatch.setattr("paddle.base.libpaddle.Place.__eq__", lambda *_: False, raising=False)
    moved = []
    monkeypatch.setattr(nn.Sequential, "to", lambda self, to: moved.append(dict(self[1]._buffers)) or self)
    assert move(model, place) is model
    assert moved == [{"_dropout_state": None}], "or it would raise"
    assert model[1]._dropout_state is state


def test_parameters_without_content_are_refused(tmp_path: Path) -> None:
    trainer = Trainer(TrainerConfig(out_dir=tmp_path, cpu=True, log_with="none"))
    with paddle.LazyGuard():
        model = nn.Linear(3, 2)
    assert not has_content(model.weight)
    with pytest.raises(ConfigError, match=r"parameters \['weight', 'bias'\] \(2 in all\) were never initialized. Call"):
        trainer.set_model(model)
    for item in model.parameters():
        item.initialize()
    trainer.set_model(model)


def test_a_buffer_without_content_is_not_stored(tmp_path: Path) -> None:
    trainer = Trainer(TrainerConfig(out_dir=tmp_path, epoch=1, cpu=True, log_with="none", disable_tqdm=True))
    model = nn.Linear(3, 2)
    model.register_buffer("own", model.create_tensor(persistable=True, dtype="float32"))
    model.register_buffer("none", paddle.zeros([0, 3]))  # which has no elements, and is whole
    trainer.set_model(model)
    trainer.set_optimizer(paddle.optimizer.SGD(0.1, parameters=model.parameters()))
    trainer.set_train_dataloader(batches())
    with pytest.raises(CheckpointError, match="own was never initialized"):
        trainer.fit(lambda trainer, bat, *_: model(bat).mean())
    paddle.assign(paddle.ones([2]), model.own)
    trainer.fit(lambda trainer, bat, *_: model(bat).mean())


def job(out: str) -> None:
    """What each of two processes does: trains, whole and in two parts."""
    found = [train("GRU", Path(out, "whole")), train("LSTM", Path(out, "frozen"), "before rnn")]
    train("GRU", Path(out, "parts"), kill_at=3)
    found.append(train("GRU", Path(out, "parts"), resume="auto"))
    Path(out, f"{paddle.distributed.get_rank()}.json").write_text(json.dumps(found), encoding="utf-8")


@pytest.mark.distributed
def test_recurrent_layers_train_in_two_processes(tmp_path: Path) -> None:
    # In a program of its own: a process that starts afresh can import no module of the tests.
    subprocess.run([sys.executable, __file__, str(tmp_path)], check=True, timeout=110)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1))
    assert first == second
    whole, _, resumed = first
    assert resumed == whole


if __name__ == "__main__":
    spawn(job, 2, (sys.argv[1],))

"""No step waits for the device: nothing reads a tensor while a trainer that believes itself on a GPU trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import paddle
import pytest
from paddle import nn
from paddle.io import DataLoader, TensorDataset

from dowdyboy_paddle import Trainer, TrainerConfig

STEPS = 12


def fit(trainer: Trainer, forbid: Callable[[bool], None] = lambda on: None) -> int:
    """Trains with records, a bar's state, accumulation and clipping; gives the number of steps.

    Args:
        trainer: a trainer with nothing in it.
        forbid: makes reading from the device an error, or allows it again; called after the first window of batches, in
            which libraries set themselves up, and in the last batch.
    """
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1D(8), nn.ReLU(), nn.Linear(8, 3))
    data = TensorDataset([paddle.randn([4 * STEPS, 4]), paddle.randint(0, 3, [4 * STEPS])])
    trainer.set_train_dataloader(DataLoader(data, batch_size=4, shuffle=True))
    trainer.set_model(model)
    trainer.set_component(nn.CrossEntropyLoss())
    trainer.set_optimizer(paddle.optimizer.Adam(parameters=model.parameters()))

    def train_step(trainer: Trainer, bat: Any, bat_idx: int, global_step: int) -> paddle.Tensor:
        if bat_idx == 2:
            forbid(True)
        [model], [loss_func], (features, classes) = trainer.get_models(), trainer.get_components(), bat
        scores = model(features)
        loss: paddle.Tensor = loss_func(scores, classes)
        trainer.set_records({"loss": loss, "scores": scores.mean(0), "hits": (scores.argmax(1) == classes).sum()})
        trainer.set_bar_state({"loss": loss})
        if bat_idx == STEPS - 1:
            forbid(False)
        return loss

    try:
        trainer.fit(train_step)
    finally:
        forbid(False)
    return trainer.global_step


def config(tmp_path: Path, **changed: Any) -> TrainerConfig:
    settings: dict[str, Any] = {"accumulate_steps": 2, "clip_grad_norm": 1.0, "epoch": 1, "log_with": "none", **changed}
    return TrainerConfig(out_dir=tmp_path, disable_tqdm=True, enable_save_checkpoint=False, **settings)


READERS = ("__array__", "__bool__", "__float__", "__int__", "cpu", "item", "numpy", "tolist")


@pytest.fixture
def forbid(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Makes an error of whatever reads a tensor, where that is not allowed."""
    allowed = True

    def switch(on: bool) -> None:
        nonlocal allowed
        allowed = not on

    def guarded(original: Any) -> Any:
        def read(*args: Any, **named: Any) -> Any:
            if not allowed:
                raise AssertionError(f"{original.__name__} waits for the device")
            return original(*args, **named)

        return read

    for name in READERS:
        monkeypatch.setattr(paddle.Tensor, name, guarded(getattr(paddle.Tensor, name)))
    return switch


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """A trainer that doesn't take its device for the CPU, where reading a tensor waits for nothing."""
    trainer = Trainer(config(tmp_path, cpu=True))
    monkeypatch.setattr(trainer._backend, "prepare_model", lambda model, **settings: model)
    monkeypatch.setattr(trainer._backend, "to_device", lambda batch: batch)
    monkeypatch.setattr(trainer._backend, "_device", "gpu:0")
    monkeypatch.setattr(trainer._backend, "asynchronous", True)
    return trainer


def test_no_step_reads_a_tensor(trainer: Trainer, forbid: Callable[[bool], None]) -> None:
    assert fit(trainer, forbid) == STEPS


@pytest.mark.parametrize("method", ["keep_tensor", "loss_problem"])
def test_a_step_that_reads_one_is_noticed(
    trainer: Trainer, forbid: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    original = getattr(trainer._backend, method)
    monkeypatch.setattr(trainer._backend, method, lambda value: (value.sum().item(), original(value))[1])
    with pytest.raises(AssertionError, match="item waits for the device"):
        fit(trainer, forbid)

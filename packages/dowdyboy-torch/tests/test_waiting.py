"""No step waits for the device: not even one whose tensors can't be read, or a GPU that forbids it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from dowdyboy_torch import Trainer, TrainerConfig

STEPS = 12


def fit(trainer: Trainer, forbid: Callable[[bool], None] = lambda on: None) -> int:
    """Trains with records, a bar's state, accumulation and clipping; gives the number of steps.

    Args:
        trainer: a trainer with nothing in it.
        forbid: makes reading from the device an error, or allows it again; called after the first window of batches, in
            which libraries set themselves up, and in the last batch.
    """
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    data = TensorDataset(torch.randn(4 * STEPS, 4), torch.randint(0, 3, (4 * STEPS,)))
    trainer.set_train_dataloader(DataLoader(data, 4, shuffle=True))
    trainer.set_model(model)
    trainer.set_component(torch.nn.CrossEntropyLoss())
    trainer.set_optimizer(torch.optim.Adam(model.parameters()))

    def train_step(trainer: Trainer, bat: Any, bat_idx: int, global_step: int) -> torch.Tensor:
        if bat_idx == 2:
            forbid(True)
        [model], [loss_func], (features, classes) = trainer.get_models(), trainer.get_components(), bat
        scores = model(features)
        loss: torch.Tensor = loss_func(scores, classes)
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


def unreadable(trainer: Trainer) -> Trainer:
    """Has a trainer compute with tensors that have a shape and no values, so that none can be read."""
    trainer._backend._device = torch.device("meta")  # type: ignore[attr-defined]
    return trainer


def test_a_device_that_cannot_be_read_will_do(tmp_path: Path) -> None:
    trainer = unreadable(Trainer(config(tmp_path, cpu=True)))
    assert fit(trainer) == STEPS
    [model] = trainer.get_raw_models()
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize("method", ["keep_tensor", "loss_problem", "to_device"])
def test_and_notices_whatever_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    trainer = unreadable(Trainer(config(tmp_path, cpu=True)))
    original = getattr(trainer._backend, method)

    def reading(value: Any) -> Any:
        found = original(value)
        tensor = value if isinstance(value, torch.Tensor) else original(value)[0]
        tensor.sum().item()
        return found

    monkeypatch.setattr(trainer._backend, method, reading)
    with pytest.raises(RuntimeError, match="meta"):
        fit(trainer)


def forbid_waiting(on: bool) -> None:
    """Makes an error of whatever waits for the GPU."""
    torch.cuda.set_sync_debug_mode("error" if on else "default")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_no_step_waits_for_a_gpu(tmp_path: Path, precision: str) -> None:
    trainer = Trainer(config(tmp_path, device="gpu", mixed_precision=precision))
    assert fit(trainer, forbid_waiting) == STEPS


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_step_that_waits_for_a_gpu_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(config(tmp_path, device="gpu"))
    original = trainer._backend.keep_tensor
    monkeypatch.setattr(trainer._backend, "keep_tensor", lambda value: (value.sum().item(), original(value))[1])
    with pytest.raises(RuntimeError, match="synchronizing"):
        fit(trainer, forbid_waiting)

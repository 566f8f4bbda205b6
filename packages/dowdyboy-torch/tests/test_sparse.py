"""Sparse gradients beside loops by hand, and optimizers that want a closure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dowdyboy_torch import ConfigError, Trainer, TrainerConfig, UnsupportedError

BATCHES = [torch.arange(start, start + 5) % 8 for start in range(7)]


def embedding() -> Any:
    torch.manual_seed(3)
    return torch.nn.Embedding(8, 3, sparse=True)


def trainer_for(out_dir: Path, model: Any, optimizer: Any, **settings: Any) -> Trainer:
    quiet: dict[str, Any] = {"epoch": 1, "cpu": True, "disable_tqdm": True, "log_with": "none"}
    trainer = Trainer(TrainerConfig(out_dir=out_dir, **{**quiet, "enable_save_checkpoint": False, **settings}))
    trainer.set_model(model)
    trainer.set_optimizer(optimizer)
    trainer.set_train_dataloader(BATCHES)
    return trainer


def train_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
    return trainer.get_models()[0](bat).square().mean()


@pytest.mark.parametrize("window", [1, 3, 4])
@pytest.mark.parametrize("precision", ["no", "fp16"])
@pytest.mark.parametrize("kind", ["SGD", "SparseAdam"])
def test_sparse_gradients_are_those_of_a_loop_by_hand(tmp_path: Path, window: int, precision: str, kind: str) -> None:
    by_hand, trained = embedding(), embedding()
    optimizer, ours = (getattr(torch.optim, kind)(model.parameters(), 0.1) for model in (by_hand, trained))
    scaler = torch.amp.GradScaler("cpu", enabled=precision == "fp16")
    for number, bat in enumerate(BATCHES):
        size = min(window, len(BATCHES) - number // window * window)
        with torch.autocast("cpu", torch.float16, enabled=precision == "fp16"):
            loss = by_hand(bat).square().mean()
        scaler.scale(loss / size).backward()
        if (number + 1) % window == 0 or number + 1 == len(BATCHES):
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    settings: dict[str, Any] = {"accumulate_steps": window, "mixed_precision": precision}
    trainer_for(tmp_path, trained, ours, **settings).fit(train_step)
    torch.testing.assert_close(trained.weight, by_hand.weight, atol=1e-6, rtol=1e-5)


def test_an_overflow_of_sparse_gradients_skips_the_step(tmp_path: Path) -> None:
    model = embedding()
    before = model.weight.detach().clone()
    trainer = trainer_for(tmp_path, model, torch.optim.SGD(model.parameters(), 0.1), mixed_precision="fp16")
    trainer.fit(lambda *given: train_step(*given) * float("inf"))
    assert torch.equal(model.weight, before)
    assert trainer._stepper.scaler.scale == 65536 / 2 ** len(BATCHES)


@pytest.mark.parametrize("field", ["clip_grad_norm", "clip_grad_value"])
def test_sparse_gradients_are_not_clipped(tmp_path: Path, field: str) -> None:
    model = embedding()
    before = model.weight.detach().clone()
    trainer = trainer_for(tmp_path, model, torch.optim.SGD(model.parameters(), 0.1), **{field: 1.0})
    with pytest.raises(UnsupportedError, match=rf"^{field}=1\.0 can't be had with the sparse gradients of SGD\."):
        trainer.fit(train_step)
    assert torch.equal(model.weight, before)


def test_the_frameworks_own_optimizer_with_a_closure_is_refused(tmp_path: Path) -> None:
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.LBFGS(model.parameters())
    torch.optim.lr_scheduler.StepLR(optimizer, 1)  # which wraps its step
    with pytest.raises(
        ConfigError, match=r"type LBFGS, wants more than its gradients: step\(closure\)\. auto_optimize"
    ):
        trainer_for(tmp_path, model, optimizer)


@pytest.mark.parametrize("settings", [{}, {"clip_grad_norm": 0.1}], ids=str)
def test_lbfgs_steps_as_by_hand(tmp_path: Path, settings: dict[str, Any]) -> None:
    models = []
    for _ in range(2):
        torch.manual_seed(5)
        models.append(torch.nn.Linear(2, 1))
    batches = [torch.randn(4, 2, generator=torch.Generator().manual_seed(place)) for place in range(3)]
    by_hand, trained = models
    optimizer, ours = (torch.optim.LBFGS(model.parameters(), 0.5, max_iter=4) for model in models)

    def train(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        def closure() -> Any:
            trainer.zero_grad(ours)
            loss = (trained(bat) - 1).square().mean()
            trainer.backward(loss)
            return loss

        trainer.step(ours, closure=closure)

    trainer = trainer_for(tmp_path, trained, ours, auto_optimize=False, **settings)
    trainer.set_train_dataloader(batches)
    trainer.fit(train)
    for bat in batches:

        def closure(bat: Any = bat) -> Any:
            optimizer.zero_grad()
            loss = (by_hand(bat) - 1).square().mean()
            loss.backward()
            if settings:
                torch.nn.utils.clip_grad_norm_(by_hand.parameters(), 0.1)
            return loss

        optimizer.step(closure)
    assert torch.equal(trained.weight, by_hand.weight)

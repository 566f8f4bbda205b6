"""Sparse gradients, and schedulers that optimizers were made with, beside loops by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import paddle
import pytest

from dowdyboy_paddle import ConfigError, Trainer, TrainerConfig, UnsupportedError

BATCHES = [paddle.arange(start, start + 5) % 8 for start in range(7)]


def embedding() -> Any:
    paddle.seed(3)
    return paddle.nn.Embedding(8, 3, sparse=True)


def trainer_for(out_dir: Path, models: list[Any], optimizers: list[Any], **settings: Any) -> Trainer:
    quiet: dict[str, Any] = {"epoch": 1, "cpu": True, "disable_tqdm": True, "log_with": "none"}
    trainer = Trainer(TrainerConfig(out_dir=out_dir, **{**quiet, "enable_save_checkpoint": False, **settings}))
    trainer.set_models(models)
    trainer.set_optimizers(optimizers)
    trainer.set_train_dataloader(BATCHES)
    return trainer


def train_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
    return sum(model(bat).square().mean() for model in trainer.get_models())


@pytest.mark.parametrize("window", [1, 3, 4])
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_sparse_gradients_are_those_of_a_loop_by_hand(tmp_path: Path, window: int, kind: str) -> None:
    by_hand, trained = embedding(), embedding()
    optimizer, ours = (
        getattr(paddle.optimizer, kind)(0.1, parameters=model.parameters()) for model in (by_hand, trained)
    )
    for number, bat in enumerate(BATCHES):
        size = min(window, len(BATCHES) - number // window * window)
        (by_hand(bat).square().mean() / size).backward()
        if (number + 1) % window == 0 or number + 1 == len(BATCHES):
            optimizer.step()
            optimizer.clear_grad()
    trainer_for(tmp_path, [trained], [ours], accumulate_steps=window).fit(train_step)
    assert trained.weight.numpy() == pytest.approx(by_hand.weight.numpy(), abs=1e-6)


def test_an_overflow_of_sparse_gradients_is_noticed(tmp_path: Path) -> None:
    model = embedding()
    optimizer = paddle.optimizer.SGD(0.1, parameters=model.parameters())
    backend = trainer_for(tmp_path, [model], [optimizer])._backend
    for factor, finite in ((1.0, True), (float("inf"), False)):
        optimizer.clear_grad()
        (model(BATCHES[0]).sum() * factor).backward()
        assert backend.scale_gradients(optimizer, 0.5, check=True) is finite


@pytest.mark.parametrize("field", ["clip_grad_norm", "clip_grad_value"])
def test_sparse_gradients_are_not_clipped(tmp_path: Path, field: str) -> None:
    model = embedding()
    before = model.weight.numpy()
    optimizer = paddle.optimizer.SGD(0.1, parameters=model.parameters())
    with pytest.raises(UnsupportedError, match=rf"^{field}=1\.0 can't be had with the sparse gradients of SGD\."):
        trainer_for(tmp_path, [model], [optimizer], **{field: 1.0}).fit(train_step)
    assert (model.weight.numpy() == before).all()


def test_the_scheduler_that_an_optimizer_was_made_with_is_taken_up(tmp_path: Path) -> None:
    models = [embedding(), embedding()]
    scheduler = paddle.optimizer.lr.StepDecay(0.4, step_size=1, gamma=0.5)
    optimizers = [paddle.optimizer.SGD(scheduler, parameters=model.parameters()) for model in models]
    settings: dict[str, Any] = {"epoch": 3, "enable_save_checkpoint": True}
    rates: list[float] = []
    trainer = trainer_for(tmp_path, models, optimizers, **settings)
    assert trainer.get_optimizers() == (optimizers, [scheduler, scheduler])
    trainer.fit(train_step, None, lambda trainer, ep: rates.append(optimizers[1].get_lr()))
    assert rates == pytest.approx([0.2, 0.1, 0.05])

    scheduler.set_state_dict(paddle.optimizer.lr.StepDecay(0.4, step_size=1, gamma=0.5).state_dict())
    resumed = trainer_for(tmp_path, models, optimizers, **{**settings, "epoch": 4})
    resumed.load_checkpoint(tmp_path / "checkpoint" / "epoch_2")
    resumed.fit(train_step, None, lambda trainer, ep: rates.append(optimizers[0].get_lr()))
    assert rates[3:] == pytest.approx([0.05, 0.025])


def test_a_checkpoint_from_before_that_is_taken_up(tmp_path: Path) -> None:
    scheduler = paddle.optimizer.lr.StepDecay(0.4, step_size=1, gamma=0.5)
    model = embedding()
    optimizer = paddle.optimizer.SGD(scheduler, parameters=model.parameters())
    trainer = trainer_for(tmp_path, [model], [optimizer], enable_save_checkpoint=True)
    trainer._parts.schedulers = [None]  # as it was: the state of the scheduler is with the optimizer's
    trainer.fit(train_step, None, lambda trainer, ep: scheduler.step())
    scheduler.set_state_dict(paddle.optimizer.lr.StepDecay(0.4, step_size=1, gamma=0.5).state_dict())
    resumed = trainer_for(tmp_path, [model], [optimizer], epoch=2)
    resumed.load_checkpoint(tmp_path / "checkpoint" / "epoch_1")
    assert scheduler.last_lr == pytest.approx(0.2)
    resumed.fit(train_step)
    assert scheduler.last_lr == pytest.approx(0.1)


def test_the_frameworks_own_optimizer_with_a_closure_is_refused(tmp_path: Path) -> None:
    model = paddle.nn.Linear(1, 1)
    with pytest.raises(
        ConfigError, match=r"type LBFGS, wants more than its gradients: step\(closure\)\. auto_optimize"
    ):
        trainer_for(tmp_path, [model], [paddle.optimizer.LBFGS(parameters=model.parameters())])


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor")  # which it does itself
@pytest.mark.parametrize("settings", [{}, {"clip_grad_norm": 0.1}], ids=str)
def test_lbfgs_steps_as_by_hand(tmp_path: Path, settings: dict[str, Any]) -> None:
    models = []
    for _ in range(2):
        paddle.seed(5)
        models.append(paddle.nn.Linear(2, 1))
    batches = [paddle.to_tensor([[place, 1.0], [2.0, place]], "float32") for place in range(3)]
    by_hand, trained = models
    optimizer, ours = (paddle.optimizer.LBFGS(0.5, max_iter=4, parameters=model.parameters()) for model in models)

    def train(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        def closure() -> Any:
            trainer.zero_grad(ours)
            loss = (trained(bat) - 1).square().mean()
            trainer.backward(loss)
            return loss

        trainer.step(ours, closure=closure)

    trainer = trainer_for(tmp_path, [trained], [ours], auto_optimize=False, **settings)
    trainer.set_train_dataloader(batches)
    trainer.fit(train)
    for bat in batches:

        def closure(bat: Any = bat) -> Any:
            optimizer.clear_grad()
            loss = (by_hand(bat) - 1).square().mean()
            loss.backward()
            if settings:
                paddle.nn.utils.clip_grad_norm_(by_hand.parameters(), 0.1)
            return loss

        optimizer.step(closure)
    assert (trained.weight.numpy() == by_hand.weight.numpy()).all()

"""X: the texts of the trainer's errors, the same on every backend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance._problem import Run, build, config, data, layers
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core import CheckpointError, ConfigError, SetupError

LOSS = "Return the loss of the batch from train_step as a tensor with one element, computed from the model's output."
LOSSES: dict[str, tuple[Callable[[Run, Any], Any], str]] = {
    "none": (lambda run, out: None, "is None of type NoneType"),
    "float": (lambda run, out: 0.5, "is 0.5 of type float"),
    "vector": (lambda run, out: out[0], "has shape (3,)"),
    "matrix": (lambda run, out: out, "has shape (4, 3)"),
    "detached": (
        lambda run, out: out.sum().detach(),
        "is detached from the model, so that no gradient can flow",
    ),
    "constant": (
        lambda run, out: run.harness.tensor(np.float32(1)),
        "is detached from the model, so that no gradient can flow",
    ),
}


@pytest.mark.clause("O-4", "X-2")
@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("auto", [True, False])
def test_a_loss_that_cannot_be_differentiated(harness: Harness, tmp_path: Path, kind: str, auto: bool) -> None:
    run = build(harness, tmp_path, auto_optimize=auto)
    make, problem = LOSSES[kind]

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        loss = make(run, run.model(bat[0]))
        return loss if auto else trainer.backward(loss)

    with pytest.raises(SetupError) as caught:
        run.trainer.fit(step)
    assert str(caught.value) == f"backward got a loss that {problem}. {LOSS}"


@pytest.mark.clause("X-3", "X-2")
def test_what_is_missing_is_told_in_this_order(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path)
    trainer = harness.make_trainer(config(tmp_path))
    loader = harness.loader(harness.dataset(*data()), 4)

    def refused(text: str, val: bool = False) -> None:
        with pytest.raises(SetupError) as caught:
            trainer.fit(run.train_step, run.val_step if val else None)
        assert str(caught.value) == text

    refused("There is no train loader. Call set_train_dataloader first.")
    trainer.set_train_dataloader(loader)
    refused("There is no model. Call set_model or set_models first.")
    trainer.set_model(run.model)
    refused("There is no optimizer. Call set_optimizer or set_optimizers first, or set auto_optimize=False.")
    trainer.set_optimizer(run.optimizer)
    refused("There is no val loader. Call set_val_dataloader first.", val=True)
    assert run.losses == [], "nothing may have run"
    trainer.fit(run.train_step)


@pytest.mark.clause("X-3", "X-2")
def test_test_needs_a_loader_and_a_model(harness: Harness, tmp_path: Path) -> None:
    trainer = harness.make_trainer(config(tmp_path))
    with pytest.raises(SetupError) as caught:
        trainer.test(lambda *_: None)
    assert str(caught.value) == "There is no test loader. Call set_test_dataloader first."
    trainer.set_test_dataloader(harness.loader(harness.dataset(*data()), 4))
    with pytest.raises(SetupError) as caught:
        trainer.test(lambda *_: None)
    assert str(caught.value) == "There is no model. Call set_model or set_models first."


@pytest.mark.clause("X-3", "O-5")
def test_no_optimizer_is_needed_without_auto_optimize(harness: Harness, tmp_path: Path) -> None:
    trainer = harness.make_trainer(config(tmp_path, auto_optimize=False))
    trainer.set_model(harness.model(layers(4, 3)))
    trainer.set_train_dataloader(harness.loader(harness.dataset(*data()), 4))
    seen: list[int] = []
    trainer.fit(lambda trainer, bat, bat_idx, step: seen.append(step))
    assert seen == [0, 1, 2]


@pytest.mark.clause("O-7", "X-2")
def test_an_optimizer_of_another_model_is_refused(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path)
    stranger = harness.model(layers(4, 4))
    both = harness.optimizer("sgd", [run.model, stranger], 0.1).optimizer
    run.trainer.set_optimizers([run.optimizer, both])
    with pytest.raises(SetupError) as caught:
        run.fit()
    assert str(caught.value) == (
        "Optimizer 1 holds 2 of 6 parameters that belong to none of the models (shapes (4, 4), (4,)). Make the "
        "optimizer from the parameters of the models given to set_models."
    )
    assert run.losses == []


@pytest.mark.clause("O-7", "X-2")
@pytest.mark.parametrize("schedule", ["step", "plateau"])
def test_a_scheduler_of_another_optimizer_is_refused(harness: Harness, tmp_path: Path, schedule: str) -> None:
    run = build(harness, tmp_path)
    other = harness.optimizer("sgd", [run.model], 0.1, schedule=schedule)
    with pytest.raises(ConfigError) as caught:
        run.trainer.set_optimizer(run.optimizer, other.scheduler)
    assert str(caught.value) == (
        f"Scheduler 0, an object of type {type(other.scheduler).__name__}, doesn't set the learning rate of optimizer "
        f"0, an object of type {type(run.optimizer).__name__}. Give each optimizer the scheduler that was made for it."
    )
    assert run.trainer.get_optimizers() == ([run.optimizer], [None]), "what was set before stays"


GIVEN: dict[str, tuple[Callable[[Any], Any], str]] = {
    "model": (
        lambda t: t.set_model(3),
        "set_models got 3 of type int, which is no model of {name}. Give instances of its module class.",
    ),
    "models": (lambda t: t.set_models(3), "set_models got 3 of type int, which is no list. Give a list."),
    "components": (
        lambda t: t.set_components("loss"),
        "set_components got 'loss' of type str, which is no list. Give a list.",
    ),
    "optimizer": (
        lambda t: t.set_optimizer("sgd"),
        "set_optimizers got 'sgd' of type str, which is no optimizer of {name}.",
    ),
    "optimizers": (
        lambda t: t.set_optimizers({}),
        "set_optimizers got {{}} of type dict, which is no list. Give a list.",
    ),
    "schedulers": (
        lambda t: t.set_optimizers([], [None]),
        "set_optimizers got 1 schedulers for 0 optimizers. Give one for each, or None.",
    ),
    "best": (
        lambda t: t.set_save_best_calc_func("val_loss"),
        "set_save_best_calc_func got 'val_loss', which can't be called. Give a function.",
    ),
    "iterator": (
        lambda t: t.set_train_dataloader(iter([1])),
        "set_train_dataloader got an object of type list_iterator, which can be run through only once. Give a "
        "DataLoader, or an object whose __iter__ starts afresh each epoch.",
    ),
    "generator": (
        lambda t: t.set_val_dataloader(item for item in [1]),
        "set_val_dataloader got an object of type generator, which can be run through only once. Give a DataLoader, "
        "or an object whose __iter__ starts afresh each epoch.",
    ),
    "number": (
        lambda t: t.set_test_dataloader(5),
        "set_test_dataloader got 5 of type int, which yields no batches. Give a DataLoader or another iterable.",
    ),
    "text": (
        lambda t: t.set_train_dataloader("abc"),
        "set_train_dataloader got 'abc' of type str, which yields no batches. Give a DataLoader or another iterable.",
    ),
    "log": (lambda t: t.log([1], 0), "log got [1], which is no dict. Give {{name: number}}."),
    "log step": (lambda t: t.log({"a": 1}, 0.5), "log got step=0.5 of type float. Give an int."),
    "log value": (
        lambda t: t.log({"a": "b"}, 0),
        "log got 'b' under the name 'a'. Give numbers or one-element tensors by names of type str.",
    ),
    "log name": (
        lambda t: t.log({3: 0.5}, 0),
        "log got 0.5 under the name 3. Give numbers or one-element tensors by names of type str.",
    ),
    "bar": (lambda t: t.set_bar_state(3), "set_bar_state got 3, which is no dict. Give {{name: value}}."),
}


@pytest.mark.clause("X-2", "A-6", "D-1", "G-6", "G-7")
@pytest.mark.parametrize("what", GIVEN)
def test_what_does_not_fit_is_refused(harness: Harness, tmp_path: Path, what: str) -> None:
    call, text = GIVEN[what]
    with pytest.raises(ConfigError) as caught:
        call(harness.make_trainer(config(tmp_path)))
    assert str(caught.value) == text.format(name=harness.name)


@pytest.mark.clause("C-15", "X-2")
def test_loading_what_is_not_there(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path)
    with pytest.raises(CheckpointError) as caught:
        run.trainer.load_checkpoint(tmp_path / "none")
    assert str(caught.value) == (
        f"{str(tmp_path / 'none')!r} is no folder. Give the folder of one checkpoint, such as "
        "out_dir/checkpoint/epoch_1."
    )
    build(harness, tmp_path, enable_save_checkpoint=True).fit()
    with pytest.raises(SetupError) as early:
        harness.make_trainer(config(tmp_path)).load_checkpoint(tmp_path / "checkpoint" / "epoch_1")
    assert str(early.value) == ("load_checkpoint needs the models to load into. Call set_model or set_models first.")

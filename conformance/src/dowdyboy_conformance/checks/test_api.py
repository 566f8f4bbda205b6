"""A: what there is to import and to call. X-1: the tree of the exceptions."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

import dowdyboy_core
from dowdyboy_conformance._problem import build, config, layers
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core import ConfigError, SetupError

EXPORTS = {
    "CheckpointError",
    "ConfigError",
    "DowdyboyError",
    "SetupError",
    "Trainer",
    "TrainerConfig",
    "UnsupportedError",
    "__version__",
    "register_exchange",
    "spawn",
}
MODULES = {
    "args": {"parse_args", "parse_json_args", "parse_yaml_args"},
    "assist": {
        "calc_time_used",
        "get_conv_out_size",
        "get_dilated_conv_out_size",
        "get_trans_conv_out_size",
    },
    "dataset_util": {"generate_cifar10_image_folder", "split_val_dataset_image_folder"},
    "log": {"log", "logging_conf", "warn"},
    "rand": {"derive_seed", "set_seed", "wheel_rand_index", "wheel_ratio"},
    "trainer": {"Trainer", "TrainerConfig"},
}
METHODS = {
    "set_save_best_calc_func": "func",
    "set_train_dataloader": "train_loader",
    "set_val_dataloader": "val_loader",
    "set_test_dataloader": "test_loader",
    "set_model": "model",
    "set_models": "model_list",
    "get_models": "",
    "get_raw_models": "",
    "get_ema_models": "",
    "set_component": "component",
    "set_components": "component_list",
    "get_components": "",
    "set_optimizer": "optimizer, lr_scheduler=None",
    "set_optimizers": "optimizer_list, lr_scheduler_list=None",
    "get_optimizers": "",
    "backward": "loss",
    "stop": "",
    "zero_grad": "optimizer",
    "step": "optimizer=None, lr_scheduler=None, *, closure=None",
    "unscale": "optimizer",
    "device": "",
    "is_local_main_process": "",
    "is_main_process": "",
    "print": "txt",
    "log": "value_dict, step",
    "set_records": "value_dict, *, samples=False",
    "get_records": "",
    "set_bar_state": "state_dict",
    "fit": "train_step, val_step=None, on_epoch_end=None, *, on_epoch_begin=None, on_step_end=None",
    "test": "test_step, on_test_end=None",
    "load_checkpoint": "checkpoint_dir, *, weights_only=False, ema=False, names=None",
    "save_checkpoint": "label",
    "update_bn": "loader, step=None",
    "wait_for_checkpoint": "",
}
PROPERTIES = {"epoch", "global_step", "rank", "world_size", "precision", "best", "schedule_steps", "resuming"}
PROPERTIES |= {"train_dataloader", "val_dataloader", "test_dataloader"}


@pytest.mark.clause("A-1")
def test_a_distribution_exports_these_names(harness: Harness) -> None:
    package = importlib.import_module(harness.module)
    assert set(package.__all__) == EXPORTS
    for name in EXPORTS - {"Trainer", "spawn", "register_exchange"}:
        assert getattr(package, name) is getattr(dowdyboy_core, name), name
    assert issubclass(package.Trainer, dowdyboy_core.Trainer)


@pytest.mark.clause("A-2")
@pytest.mark.parametrize("module", MODULES)
def test_a_public_module_has_these_names(harness: Harness, module: str) -> None:
    found = importlib.import_module(f"{harness.module}.{module}")
    assert set(found.__all__) == MODULES[module]
    assert all(callable(getattr(found, name)) for name in MODULES[module])


@pytest.mark.clause("A-3", "A-4")
def test_the_trainer_has_these_methods(harness: Harness) -> None:
    kind = importlib.import_module(harness.module).Trainer
    found, properties = {}, set()
    for name, member in inspect.getmembers(kind):
        if isinstance(member, property):
            properties |= {name} if not name.startswith("_") else set()
        elif callable(member) and not name.startswith("_"):
            parameters = list(inspect.signature(member).parameters.values())[1:]
            plain = [item.replace(annotation=inspect.Parameter.empty) for item in parameters]
            found[name] = str(inspect.Signature(plain))[1:-1]
    assert found == METHODS
    assert properties == PROPERTIES


@pytest.mark.clause("A-4")
@pytest.mark.parametrize("name", sorted(PROPERTIES))
def test_what_the_trainer_tells_cannot_be_set(harness: Harness, tmp_path: Path, name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(harness.make_trainer(config(tmp_path)), name, 1)


@pytest.mark.clause("A-5")
def test_a_trainer_takes_a_trainer_config_only(harness: Harness) -> None:
    wrong: Any = {"epoch": 1}
    with pytest.raises(ConfigError) as caught:
        harness.make_trainer(wrong)
    assert str(caught.value) == "Trainer got {'epoch': 1}, which is no TrainerConfig. Give TrainerConfig(...)."


@pytest.mark.clause("A-6", "A-7")
def test_one_is_a_list_of_one(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, schedule="step")
    trainer, component = run.trainer, object()
    trainer.set_component(component)
    assert [id(item) for item in trainer.get_raw_models()] == [id(run.model)]
    assert [id(item) for item in trainer.get_models()] == [id(run.model)]
    assert trainer.get_components() == [component]
    assert trainer.get_optimizers() == ([run.optimizer], [run.scheduler])
    for given in (trainer.get_models(), trainer.get_raw_models(), trainer.get_components()):
        given.clear()
    trainer.get_optimizers()[0].clear()
    assert len(trainer.get_models()) == len(trainer.get_raw_models()) == len(trainer.get_components()) == 1
    assert len(trainer.get_optimizers()[0]) == 1


@pytest.mark.clause("A-6", "L-4")
@pytest.mark.parametrize("given", [None, [], [None], [None, None]])
def test_missing_schedulers_are_none(harness: Harness, tmp_path: Path, given: Any) -> None:
    run = build(harness, tmp_path)
    second = harness.optimizer("sgd", [run.model], 0.1).optimizer
    run.trainer.set_optimizers([run.optimizer, second], given)
    assert run.trainer.get_optimizers() == ([run.optimizer, second], [None, None])
    run.fit()


@pytest.mark.clause("A-8")
def test_one_process_is_the_main_process(harness: Harness, tmp_path: Path) -> None:
    trainer = harness.make_trainer(config(tmp_path))
    assert (trainer.rank, trainer.world_size) == (0, 1)
    assert trainer.is_main_process() is True and trainer.is_local_main_process() is True


@pytest.mark.clause("A-8")
def test_half_of_a_launcher_is_refused(harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in harness.rank_variables:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(harness.world_variable, "2")
    with pytest.raises(SetupError) as caught:
        harness.make_trainer(config(tmp_path))
    missing = ", ".join(harness.rank_variables)
    assert str(caught.value).startswith(f"{harness.world_variable}=2 is set and {missing} not.")


@pytest.mark.clause("A-9")
def test_a_component_has_nothing_to_train(harness: Harness, tmp_path: Path) -> None:
    trainer = harness.make_trainer(config(tmp_path))
    trainer.set_components([harness.loss("mse"), "a string", 3])
    assert trainer.get_components()[1:] == ["a string", 3]
    with pytest.raises(ConfigError) as caught:
        trainer.set_component(harness.model(layers(2, 1)))
    assert "with the parameters ['fc0.weight', 'fc0.bias']." in str(caught.value)
    assert str(caught.value).endswith("A component has nothing to train: give it to set_models, or freeze it.")


@pytest.mark.clause("X-1")
def test_the_exceptions_are_what_python_calls_them(harness: Harness) -> None:
    package: Any = importlib.import_module(harness.module)
    assert package.ConfigError.__mro__[1:3] == (package.DowdyboyError, ValueError)
    assert package.SetupError.__mro__[1:3] == (package.DowdyboyError, RuntimeError)
    assert package.CheckpointError.__mro__[1:3] == (package.DowdyboyError, RuntimeError)
    assert issubclass(package.UnsupportedError, package.DowdyboyError)
    assert issubclass(package.UnsupportedError, NotImplementedError)
    assert package.DowdyboyError.__mro__[1] is Exception

"""F: the fields of TrainerConfig."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from dowdyboy_conformance._problem import config
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core import ConfigError, TrainerConfig

DEFAULTS = {
    "name": "default",
    "epoch": 10,
    "out_dir": "./output/",
    "mixed_precision": "no",
    "cpu": False,
    "log_with": "auto",
    "enable_save_checkpoint": True,
    "save_interval": 1,
    "save_best": False,
    "save_best_type": "min",
    "save_best_rec": "val_loss",
    "save_last": True,
    "seed": 1024,
    "auto_optimize": True,
    "auto_schedule": True,
    "auto_free": False,
    "find_unused_parameters": False,
    "val_interval": 1,
    "disable_tqdm": False,
    "sync_bn": False,
    "device": None,
    "accumulate_steps": 1,
    "clip_grad_norm": None,
    "clip_grad_value": None,
    "save_steps": None,
    "save_trained_only": False,
    "max_keep_num": None,
    "ema_decay": None,
    "steps_per_epoch": None,
    "resume": None,
    "schedule_by": "epoch",
    "early_stop": None,
    "early_stop_delta": 0.0,
    "nonfinite": "warn",
    "stop_after": None,
    "resume_names": None,
}
AT_LEAST_ONE = "is not acceptable. Give an int of at least 1"
BAD = [
    ("epoch", 0, f"epoch=0 {AT_LEAST_ONE}."),
    ("epoch", "3", f"epoch='3' {AT_LEAST_ONE}."),
    ("epoch", True, f"epoch=True {AT_LEAST_ONE}."),
    ("epoch", 1.0, f"epoch=1.0 {AT_LEAST_ONE}."),
    ("save_interval", 0, f"save_interval=0 {AT_LEAST_ONE}."),
    ("val_interval", -1, f"val_interval=-1 {AT_LEAST_ONE}."),
    ("accumulate_steps", 0, f"accumulate_steps=0 {AT_LEAST_ONE}."),
    ("save_steps", 0, f"save_steps=0 {AT_LEAST_ONE}, or None."),
    ("max_keep_num", 0, f"max_keep_num=0 {AT_LEAST_ONE}, or None."),
    *[
        (
            "ema_decay",
            bad,
            f"ema_decay={bad!r} is not acceptable. Give a float between 0 and 1, such as 0.999, or None.",
        )
        for bad in (0.0, 1.0, 1, True, "0.9", float("nan"))
    ],
    ("steps_per_epoch", 0, f"steps_per_epoch=0 {AT_LEAST_ONE}, or None."),
    ("seed", -1, "seed=-1 is not acceptable. Give an int of at least 0."),
    ("mixed_precision", "int3", "mixed_precision='int3' is not one of 'no', 'fp16', 'bf16'."),
    ("mixed_precision", None, "mixed_precision=None is not one of 'no', 'fp16', 'bf16'."),
    ("save_best_type", "lowest", "save_best_type='lowest' is not one of 'min', 'max'."),
    ("save_best_rec", "", "save_best_rec='' is not acceptable. Give a str of at least one character."),
    ("log_with", 3, "log_with=3 is not acceptable. Give a str of at least one character."),
    ("clip_grad_norm", 0, "clip_grad_norm=0 is not acceptable. Give a finite number above 0, or None."),
    (
        "clip_grad_norm",
        float("nan"),
        "clip_grad_norm=nan is not acceptable. Give a finite number above 0, or None.",
    ),
    ("clip_grad_value", 0, "clip_grad_value=0 is not acceptable. Give a finite number above 0, or None."),
    *[
        (
            "stop_after",
            bad,
            f"stop_after={bad!r} is not acceptable. Give a time above 0 in hours, minutes and seconds, such as "
            "'7h30m', '90m', '45s' or '1h', or None.",
        )
        for bad in ("7.5h", "90", "30m7h", "0s", "", 90)
    ],
    ("out_dir", 3, "out_dir=3 is not a path. Give a str or a pathlib.Path."),
    ("out_dir", "", "out_dir='' is not a path. Give a str or a pathlib.Path."),
    ("resume", 3, "resume=3 is not a path. Give a str or a pathlib.Path."),
    *[
        (flag, 1, f"{flag}=1 is not a bool. Give True or False.")
        for flag, default in DEFAULTS.items()
        if isinstance(default, bool)
    ],
]
DEVICE = "is not understood. Give None, 'cpu', 'gpu', 'gpu:1', or the GPUs to use as 1, '0,1' or [0, 1]."


@pytest.mark.clause("F-1")
def test_the_fields_have_these_defaults(harness: Harness) -> None:
    assert {field.name: field.default for field in dataclasses.fields(TrainerConfig)} == DEFAULTS


@pytest.mark.clause("F-2")
def test_a_configuration_is_keyword_only_and_frozen(harness: Harness) -> None:
    made: Any = TrainerConfig
    with pytest.raises(TypeError):
        made("name")
    with pytest.raises(dataclasses.FrozenInstanceError):
        made().epoch = 3


@pytest.mark.clause("F-3")
@pytest.mark.parametrize(("field", "hint"), [("epochs", "Did you mean 'epoch'? The"), ("nonsense", "The")])
def test_a_field_that_there_is_not_is_refused(harness: Harness, field: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainerConfig(**{field: 3})  # type: ignore[arg-type]
    assert str(caught.value) == f"TrainerConfig has no field {field!r}. {hint} fields are {', '.join(DEFAULTS)}."


@pytest.mark.clause("F-3")
@pytest.mark.parametrize(("field", "value", "text"), BAD, ids=[f"{item[0]}={item[1]!r}" for item in BAD])
def test_a_bad_value_is_refused_at_once(harness: Harness, field: str, value: Any, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainerConfig(**{field: value})
    assert str(caught.value) == text


@pytest.mark.clause("F-4")
def test_out_dir_is_made_with_its_parents(harness: Harness, tmp_path: Path) -> None:
    harness.make_trainer(config(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").is_dir()
    harness.make_trainer(TrainerConfig(out_dir=str(tmp_path / "c"), cpu=True))
    assert (tmp_path / "c").is_dir()


@pytest.mark.clause("F-4")
def test_out_dir_that_cannot_be_made_is_refused(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for out_dir in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError) as caught:
            harness.make_trainer(config(out_dir))
        assert str(caught.value).startswith(f"out_dir={str(out_dir)!r} can't be made: ")
        assert str(caught.value).endswith(" Give a folder that can be.")


@pytest.mark.clause("F-5")
def test_an_unknown_viewer_is_refused(harness: Harness, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        harness.make_trainer(config(tmp_path, log_with="paper"))
    assert str(caught.value) == f"log_with='paper' is not one of 'auto', 'none', {harness.viewer!r}."


@pytest.mark.clause("F-6")
@pytest.mark.parametrize("device", ["cpu", "gpu", "gpu:1", "cuda", "cuda:1", 1, "0,1", [0, 1], "0", None])
def test_a_device_has_these_forms(harness: Harness, device: Any) -> None:
    assert TrainerConfig(device=device).device == device


@pytest.mark.clause("F-6")
@pytest.mark.parametrize("device", ["tpu", "cpu:1", -1, True, "gpu:", [], [0, "x"], 1.5])
def test_another_device_is_refused(harness: Harness, device: Any) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"device={device!r} {DEVICE}")):
        TrainerConfig(device=device)


@pytest.mark.clause("F-6")
def test_devices_that_contradict_are_refused(harness: Harness) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainerConfig(device=[0, 0])
    assert str(caught.value) == "device=[0, 0] names a GPU twice. Name each GPU once."
    with pytest.raises(ConfigError) as caught:
        TrainerConfig(device="gpu", cpu=True)
    assert str(caught.value) == "cpu=True and device='gpu' contradict each other. Leave one of them out."


@pytest.mark.clause("F-7")
def test_windows_need_auto_optimize(harness: Harness, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        harness.make_trainer(config(tmp_path, accumulate_steps=2, auto_optimize=False))
    assert str(caught.value) == (
        "accumulate_steps=2 needs auto_optimize=True. With auto_optimize=False call zero_grad, backward and step in "
        "train_step as often as you like."
    )


@pytest.mark.clause("F-8")
@pytest.mark.parametrize("name", ["a/b", "a\\b", "..", ".", "a\nb", "a:b", "a\0b"])
def test_a_name_that_is_no_file_name_is_refused(harness: Harness, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainerConfig(name=name)
    assert str(caught.value) == (
        f"name={name!r} can't be part of a file name. Leave out / \\ : * ? \" < > | and line ends."
    )


@pytest.mark.clause("F-9")
@pytest.mark.parametrize("asked", [{"cpu": True}, {"cpu": False, "device": "cpu"}])
def test_the_cpu_can_be_asked_for(harness: Harness, tmp_path: Path, asked: dict[str, Any]) -> None:
    trainer = harness.make_trainer(config(tmp_path, **asked))
    assert "cpu" in str(trainer.device())

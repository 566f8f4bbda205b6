"""TrainerConfig: every field is checked at once, and an error names the field, the value and what is accepted."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_core import ConfigError, DowdyboyError, TrainerConfig
from dowdyboy_core.backend.devices import DeviceRequest
from dowdyboy_core.backend.together import check_process_count

FLAGS = (
    "cpu", "enable_save_checkpoint", "save_best", "save_last", "auto_optimize", "auto_schedule", "auto_free",
    "find_unused_parameters", "disable_tqdm", "save_trained_only", "sync_bn",
)  # fmt: skip
AT_LEAST = {
    "epoch": 1, "save_interval": 1, "val_interval": 1, "accumulate_steps": 1, "save_steps": 1, "steps_per_epoch": 1,
    "early_stop": 1, "max_keep_num": 1, "seed": 0,
}  # fmt: skip
OPTIONAL = ("save_steps", "steps_per_epoch", "early_stop", "max_keep_num")

GOOD: dict[str, list[Any]] = {
    "name": ["run", "X", "a b", "模型-1", "x.y_z%", "…"],
    "epoch": [1, 10**9],
    "out_dir": ["out", Path("out"), "输出"],
    "mixed_precision": ["no", "fp16", "bf16"],
    "log_with": ["auto", "none", "anything"],
    "save_interval": [1],
    "save_best_type": ["min", "max"],
    "save_best_rec": ["val_loss", "a/b"],
    "seed": [0, 2**64],
    "val_interval": [3],
    "device": [None, "cpu", "gpu", "gpu:0", "cuda", "cuda:12", 0, 3, "0,1", "0, 1", [1, 0], ("0", "1"), range(2)],
    "accumulate_steps": [4],
    "clip_grad_norm": [None, 1, 0.5, sys.float_info.max],
    "clip_grad_value": [None, 1, 0.5, sys.float_info.max],
    "save_steps": [None, 1],
    "steps_per_epoch": [None, 1],
    "resume": [None, "auto", "some/path", Path("some/path")],
    "schedule_by": ["epoch", "step", ["step"], ("epoch", "step")],
    "early_stop": [None, 1],
    "max_keep_num": [None, 1],
    "ema_decay": [None, 0.5, 0.9999, sys.float_info.min],
    "early_stop_delta": [0.0, 0],
    "nonfinite": ["warn", "stop", "ignore"],
    "stop_after": [None, "7h30m", "90m", "45s", "1h", "1h0m5s", "0h1s"],
    "resume_names": [None, {}, {"backbone.": "encoder."}, str.lower],
    **{flag: [True, False] for flag in FLAGS},
}
BAD: dict[str, list[Any]] = {
    "name": ["", None, 3, "a/b", "a\\b", "a\0b", ".", "..", "a\nb", "a:b", 'a"b', "a*b", b"run"],
    "out_dir": ["", None, 3, b"out", "a\0b"],
    "mixed_precision": ["", "int3", "FP16", None, 16, ["no"]],
    "log_with": ["", None, 1],
    "save_best_type": ["", "MIN", None, 1],
    "save_best_rec": ["", None, 1],
    "device": ["", "tpu", "gpu:", "gpu:x", "gpu:0,1", "cpu:0", -1, 1.0, True, [], [0, 0], "1,01", "0 1", "g pu",
               [None], [True], b"0", {"gpu"}, object()],
    "clip_grad_norm": [0, -1, 0.0, math.nan, math.inf, True, "1", 10**400],
    "clip_grad_value": [0, -1, 0.0, math.nan, math.inf, True, "1", 10**400],
    "resume": ["", 3, True, b"auto"],
    "schedule_by": ["", "STEP", None, 1, [], [None], {"step"}, b"step"],
    "ema_decay": [0, 0.0, 1, 1.0, -0.5, 1.5, math.nan, math.inf, True, "0.9"],
    "nonfinite": ["", "raise", "WARN", None, True],
    "resume_names": ["encoder.", 1, ["a", "b"], {"a": 1}, {1: "a"}],
    "stop_after": ["", "0s", "90", 90, 1.5, True, "1.5h", "-1h", "30m7h", "1H", "1h ", "1h\n", "7:30:00", b"1h",
                   "²h", "9" * 5000 + "h"],
    "early_stop_delta": [None, -1, -0.5, math.nan, math.inf, True, "1", 10**400],
    **{flag: [None, 0, 1, "True", np.True_] for flag in FLAGS},
    **{
        name: [least - 1, float(least), True, "1", math.nan] + ([] if name in OPTIONAL else [None])
        for name, least in AT_LEAST.items()
    },
}  # fmt: skip


def cases(table: dict[str, list[Any]]) -> list[Any]:
    return [pytest.param(name, value, id=f"{name}={value!r:.20}") for name, values in table.items() for value in values]


def test_the_tables_cover_every_field() -> None:
    assert GOOD.keys() == BAD.keys() == {field.name for field in dataclasses.fields(TrainerConfig)}


@pytest.mark.parametrize(("name", "value"), cases(GOOD))
def test_good_values(name: str, value: Any) -> None:
    assert getattr(TrainerConfig(**{name: value}), name) is value


@pytest.mark.parametrize(("name", "value"), cases(BAD))
def test_bad_values(name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainerConfig(**{name: value})
    text = str(caught.value)
    assert text.startswith(f"{name}={value!r}")
    # What is accepted, and what to do.
    assert any(word in text for word in ("Give ", "not one of", "Leave out", "Name each"))
    assert isinstance(caught.value, (ValueError, DowdyboyError))


def test_choices_are_listed() -> None:
    with pytest.raises(ConfigError) as caught:
        TrainerConfig(mixed_precision="int3")
    assert str(caught.value) == "mixed_precision='int3' is not one of 'no', 'fp16', 'bf16'."


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("epoch", 0, "an int of at least 1."),
        ("seed", -1, "an int of at least 0."),
        ("save_steps", 0, "an int of at least 1, or None."),
    ],
)
def test_an_error_says_what_is_accepted(name: str, value: Any, wanted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainerConfig(**{name: value})
    assert str(caught.value) == f"{name}={value!r} is not acceptable. Give {wanted}"


def test_the_number_of_processes() -> None:
    check_process_count(1)
    for value in (0, True, 2.0, "2", None):
        with pytest.raises(ConfigError) as caught:
            check_process_count(value)
        assert str(caught.value) == f"nprocs={value!r} is not acceptable. Give an int of at least 1."


def test_defaults() -> None:
    config = TrainerConfig()
    assert (config.name, config.epoch, config.out_dir, config.seed) == ("default", 10, "./output/", 1024)
    assert config.device_request == DeviceRequest("auto")


def test_frozen_and_keyword_only() -> None:
    config = TrainerConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.epoch = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        TrainerConfig("name")  # type: ignore[misc]
    with pytest.raises(ConfigError, match=r"no field 'epochs'\. Did you mean 'epoch'\?"):
        TrainerConfig(epochs=3)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="epoch=0"):
        dataclasses.replace(config, epoch=0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, DeviceRequest("auto")),
        ("cpu", DeviceRequest("cpu")),
        ("gpu", DeviceRequest("gpu")),
        ("cuda", DeviceRequest("gpu")),
        ("cuda:1", DeviceRequest("gpu", (1,))),
        (2, DeviceRequest("gpu", (2,))),
        (np.int64(2), DeviceRequest("gpu", (2,))),
        ("1,0", DeviceRequest("gpu", (1, 0))),
        (" 1 , 0 ", DeviceRequest("gpu", (1, 0))),
        ([3, 1], DeviceRequest("gpu", (3, 1))),
        (["gpu:1"], DeviceRequest("gpu", (1,))),
    ],
)
def test_device_forms(given: Any, expected: DeviceRequest) -> None:
    assert TrainerConfig(device=given).device_request == expected


def test_cpu_and_device() -> None:
    assert TrainerConfig(cpu=True).device_request == DeviceRequest("cpu")
    assert TrainerConfig(cpu=True, device="cpu").device_request == DeviceRequest("cpu")
    with pytest.raises(ConfigError, match=r"cpu=True and device='gpu' contradict"):
        TrainerConfig(cpu=True, device="gpu")

"""TrainerConfig: everything a run can be told, checked the moment it is written down."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from dowdyboy_core.backend.devices import DeviceRequest, read_device

from ._durations import seconds_of
from ._errors import ConfigError

PRECISIONS = ("no", "fp16", "bf16")
BEST_TYPES = ("min", "max")
SCHEDULE_BY = ("epoch", "step")
NONFINITE = ("warn", "stop", "ignore")


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """The settings of one run. Keyword-only, checked at once, and never changed afterwards.

    Attributes:
        name: name of the run; the text log is ``out_dir/{name}_run.log``.
        epoch: how many epochs ``fit`` trains.
        steps_per_epoch: how many training steps an epoch has, while the data goes on from pass to pass; ``None``
            makes each pass an epoch.
        out_dir: folder of everything that the run writes.
        mixed_precision: ``'no'``, ``'fp16'`` or ``'bf16'``; what is in force is ``trainer.precision``.
        cpu: compute on the CPU even where there is a GPU.
        log_with: where ``trainer.log`` draws its curves besides ``metrics.jsonl``: ``'auto'`` is the
            framework's own viewer (TensorBoard on PyTorch, VisualDL on PaddlePaddle), ``'none'`` is no
            viewer; a viewer's name (``'tensorboard'``, ``'visualdl'``) asks for it by name.
        enable_save_checkpoint: whether anything is saved at all.
        save_interval: keep a checkpoint ``epoch_N`` every this many epochs.
        save_best: keep the best checkpoint, ``best_epoch_N``.
        save_best_type: whether the smallest (``'min'``) or the largest (``'max'``) value is the best.
        save_best_rec: name of the record whose mean decides which is the best; plateau schedulers follow it too.
        save_last: keep the newest checkpoint, ``last_epoch_N``.
        seed: every random stream of the run derives from it.
        auto_optimize: zero the gradients, run backward and step the optimizers around ``train_step``.
        auto_schedule: step the learning rate schedulers once per epoch.
        auto_free: give cached memory back to the device after each epoch.
        find_unused_parameters: some parameters get no gradient in some steps (matters with many processes).
        val_interval: validate every this many epochs.
        disable_tqdm: draw no progress bars.
        sync_bn: compute BatchNorm over the batches of all processes.
        device: ``None``, ``'cpu'``, ``'gpu'``, ``'gpu:1'`` (``'cuda'`` means the same), or the GPUs to
            use: ``1``, ``'0,1'``, ``[0, 1]``.
        accumulate_steps: average the gradients of this many batches before each optimizer step.
        clip_grad_norm: scale the gradients of each optimizer down to this total norm; ``None`` is off.
        clip_grad_value: clamp each element of the gradients to at most this, and at least minus this; ``None`` is off.
        save_steps: also refresh the last checkpoint every this many training steps; ``None`` is off.
        save_trained_only: leave out of ``model_I.safetensors`` what is bit for bit as it was when the run first began.
        max_keep_num: keep the newest so many of the ``epoch_N``; ``None`` keeps them all.
        ema_decay: keep an exponential moving average of the trained parameters, which moves by ``1 - ema_decay`` of the
            way after each optimizer step, and is what validation and tests use; ``None`` is off.
        resume: where ``fit`` goes on from: ``None`` starts fresh, ``'auto'`` takes the newest whole checkpoint
            in ``out_dir`` if there is one, anything else is the path of a checkpoint.
        schedule_by: when ``auto_schedule`` steps the schedulers: ``'epoch'``, once an epoch; ``'step'``, after each
            step of their optimizers; or a list with one of these for each optimizer. Plateau schedulers follow the
            value.
        early_stop: end the fit after so many epochs with a value since the best one; ``None`` is off.
        early_stop_delta: by how much a value has to be better than the best one to count for ``early_stop``.
        nonfinite: what a loss that is not finite does: ``'warn'`` tells it once, ``'stop'`` ends the run before
            anything is saved, ``'ignore'`` looks at none.
        stop_after: end the fit within this time, such as ``'7h30m'``, saved where it has come to and with exit status
            75; leave time for what comes before and for the save. ``None`` is off.
        resume_names: what paths in the models of the checkpoint that ``resume`` names begin with, and what they do
            here, ``{"backbone.": "encoder."}``, or a function from path to path; ``None`` if they are the same.

    Raises:
        ConfigError: a value is not acceptable, or there is no such field; the message says what is accepted.
    """

    name: str = "default"
    epoch: int = 10
    out_dir: str | os.PathLike[str] = "./output/"
    mixed_precision: str = "no"
    cpu: bool = False
    log_with: str = "auto"
    enable_save_checkpoint: bool = True
    save_interval: int = 1
    save_best: bool = False
    save_best_type: str = "min"
    save_best_rec: str = "val_loss"
    save_last: bool = True
    seed: int = 1024
    auto_optimize: bool = True
    auto_schedule: bool = True
    auto_free: bool = False
    find_unused_parameters: bool = False
    val_interval: int = 1
    disable_tqdm: bool = False
    sync_bn: bool = False
    device: str | int | Sequence[int | str] | None = None
    accumulate_steps: int = 1
    clip_grad_norm: float | None = None
    clip_grad_value: float | None = None
    save_steps: int | None = None
    save_trained_only: bool = False
    max_keep_num: int | None = None
    ema_decay: float | None = None
    steps_per_epoch: int | None = None
    resume: str | os.PathLike[str] | None = None
    schedule_by: str | Sequence[str] = "epoch"
    early_stop: int | None = None
    early_stop_delta: float = 0.0
    nonfinite: str = "warn"
    stop_after: str | None = None
    resume_names: Mapping[str, str] | Callable[[str], str] | None = None

    def __new__(cls, *args: Any, **given: Any) -> Any:
        """Refuses a name that is no field: Python's own message would not say which there are."""
        names = [field.name for field in fields(cls)]
        for unknown in given.keys() - set(names):
            import difflib

            nearest = difflib.get_close_matches(unknown, names, 1)
            hint = f"Did you mean {nearest[0]!r}? " if nearest else ""
            raise ConfigError(f"TrainerConfig has no field {unknown!r}. {hint}The fields are {', '.join(names)}.")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for field in fields(self):
            _CHECKS[field.name](field.name, getattr(self, field.name))
        request = self.device_request  # refuses what it can't read
        if self.cpu and request.kind == "gpu":
            raise ConfigError(f"cpu=True and device={self.device!r} contradict each other. Leave one of them out.")
        if self.schedule_by != "epoch" and not self.auto_schedule:
            raise ConfigError(
                f"schedule_by={self.schedule_by!r} needs auto_schedule=True. With auto_schedule=False call "
                "trainer.step(optimizer, lr_scheduler) as often as you like."
            )
        if self.clip_grad_norm is not None and self.clip_grad_value is not None:
            raise ConfigError(
                f"clip_grad_norm={self.clip_grad_norm!r} and clip_grad_value={self.clip_grad_value!r} are two ways to "
                "clip. Leave one of them out."
            )
        if self.early_stop_delta and self.early_stop is None:
            raise ConfigError(
                f"early_stop_delta={self.early_stop_delta!r} needs early_stop, the number of epochs to wait for "
                "something better."
            )

    @property
    def stop_after_seconds(self) -> int | None:
        """How many seconds ``stop_after`` is."""
        return seconds_of("stop_after", self.stop_after)

    @property
    def device_request(self) -> DeviceRequest:
        """What ``cpu`` and ``device`` together ask for."""
        if self.device is None:
            return DeviceRequest("cpu" if self.cpu else "auto")
        return read_device(self.device)


def _choice(name: str, value: object, accepted: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in accepted:
        listed = ", ".join(repr(item) for item in accepted)
        raise ConfigError(f"{name}={value!r} is not one of {listed}.")


def _flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{name}={value!r} is not a bool. Give True or False.")


def _integer(name: str, value: object, least: int, *, optional: bool = False) -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        extra = ", or None" if optional else ""
        raise ConfigError(f"{name}={value!r} is not acceptable. Give an int of at least {least}{extra}.")


def _positive_or_none(name: str, value: object) -> None:
    if value is None:
        return
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 < value <= sys.float_info.max:  # type: ignore[operator]
        raise ConfigError(f"{name}={value!r} is not acceptable. Give a finite number above 0, or None.")


def _not_negative(name: str, value: object) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value <= sys.float_info.max:  # type: ignore[operator]
        raise ConfigError(f"{name}={value!r} is not acceptable. Give a finite number of at least 0.")


def _choices(name: str, value: object, accepted: tuple[str, ...]) -> None:
    """One of these, or a list of some."""
    if not isinstance(value, (list, tuple)):
        _choice(name, value, accepted)
        return
    if not value:
        raise ConfigError(
            f"{name}={value!r} is empty. Give one of {', '.join(map(repr, accepted))} for each optimizer."
        )
    for place, item in enumerate(value):
        if item not in accepted:
            listed = ", ".join(repr(word) for word in accepted)
            raise ConfigError(f"{name}={value!r} has {item!r} at place {place}, which is not one of {listed}.")


def _share_or_none(name: str, value: object) -> None:
    if value is not None and not (isinstance(value, float) and 0 < value < 1):
        raise ConfigError(f"{name}={value!r} is not acceptable. Give a float between 0 and 1, such as 0.999, or None.")


def _text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{name}={value!r} is not acceptable. Give a str of at least one character.")


def _file_name(name: str, value: object) -> None:
    _text(name, value)
    if any(character in str(value) for character in '/\\\0\n\r:*?"<>|') or str(value) in {".", ".."}:
        raise ConfigError(
            f"{name}={value!r} can't be part of a file name. Leave out / \\ : * ? \" < > | and line ends."
        )


def _path(name: str, value: object) -> None:
    plain = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(plain, str) or not plain or "\0" in plain:
        raise ConfigError(f"{name}={value!r} is not a path. Give a str or a pathlib.Path.")


def _path_or_none(name: str, value: object) -> None:
    if value is not None:
        _path(name, value)


def check_names(name: str, value: object) -> None:
    """Refuses what is neither a mapping from beginnings of paths to others nor a function.

    Raises:
        ConfigError: it is neither.
    """
    pairs = value.items() if isinstance(value, Mapping) else ()
    if (
        value is None
        or callable(value)
        or (isinstance(value, Mapping) and all(isinstance(x, str) for p in pairs for x in p))
    ):
        return
    raise ConfigError(
        f"{name}={value!r:.80} says not how paths are called here. Give a mapping from what they begin with to what "
        'they begin with here, {"backbone.": "encoder."}, or a function from path to path.'
    )


def _anything(name: str, value: object) -> None:
    """For fields that another place checks as a whole."""


_CHECKS: dict[str, Callable[[str, Any], object]] = {
    "name": _file_name,
    "epoch": partial(_integer, least=1),
    "out_dir": _path,
    "mixed_precision": partial(_choice, accepted=PRECISIONS),
    "cpu": _flag,
    "log_with": _text,  # which viewers there are is the backend's to say
    "enable_save_checkpoint": _flag,
    "save_interval": partial(_integer, least=1),
    "save_best": _flag,
    "save_best_type": partial(_choice, accepted=BEST_TYPES),
    "save_best_rec": _text,
    "save_last": _flag,
    "seed": partial(_integer, least=0),
    "auto_optimize": _flag,
    "auto_schedule": _flag,
    "auto_free": _flag,
    "find_unused_parameters": _flag,
    "val_interval": partial(_integer, least=1),
    "disable_tqdm": _flag,
    "sync_bn": _flag,
    "device": _anything,  # device_request reads it
    "accumulate_steps": partial(_integer, least=1),
    "clip_grad_norm": _positive_or_none,
    "clip_grad_value": _positive_or_none,
    "save_steps": partial(_integer, least=1, optional=True),
    "save_trained_only": _flag,
    "max_keep_num": partial(_integer, least=1, optional=True),
    "ema_decay": _share_or_none,
    "steps_per_epoch": partial(_integer, least=1, optional=True),
    "resume": _path_or_none,
    "schedule_by": partial(_choices, accepted=SCHEDULE_BY),
    "early_stop": partial(_integer, least=1, optional=True),
    "early_stop_delta": _not_negative,
    "nonfinite": partial(_choice, accepted=NONFINITE),
    "stop_after": seconds_of,
    "resume_names": check_names,
}

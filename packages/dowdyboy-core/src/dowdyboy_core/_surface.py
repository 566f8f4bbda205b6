"""The part of the Trainer that hooks and scripts talk to: what it is given, what it tells, what it writes down."""

from __future__ import annotations

import logging
import math
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from . import log as log_module
from ._assembly import Assembly
from ._backend import Backend
from ._checkpoint import CheckpointFolder
from ._config import TrainerConfig
from ._errors import ConfigError
from ._folders import make_folder
from ._interlude import Interlude
from ._lock import RunLock
from ._metrics import MetricLog, as_number
from ._optim import LossScaler, Stepper
from ._records import Records
from ._rng import RandomStreams
from ._saving import Position
from ._tracker import Tracker


class Surface:
    """Everything of a Trainer but the loop."""

    def __init__(self, config: TrainerConfig, backend: Backend) -> None:
        if not isinstance(config, TrainerConfig):
            raise ConfigError(f"Trainer got {config!r:.80}, which is no TrainerConfig. Give TrainerConfig(...).")
        self.config = config
        self._backend = backend
        _check_config(config, backend)
        backend.open(config.device_request)
        self._out_dir = _writable(Path(config.out_dir))
        self._run_log = log_module.RunLog()
        if self.is_main_process():
            self._run_log.open(self._out_dir / f"{config.name}_run.log", logging.INFO, log_module.FORMAT, "a")
        self._precision = self._enable_precision()
        self._streams = RandomStreams(backend)
        self._streams.seed(config.seed)
        self._parts = Assembly(config, backend, self._streams)
        self._interlude = Interlude(backend, self._parts, self._streams, config.seed)
        self._parts.warn = self._warn_of_workers
        self._records = Records(backend)
        self._stepper = Stepper(backend, config.accumulate_steps, config.clip_grad_norm)
        self._stepper.scaler = LossScaler(enabled=self._precision == "fp16")
        self._viewer_folder = self._out_dir / "log"
        # Nothing that closes the files at the end may hold the trainer: it would never end before the program does.
        warn = partial(self._run_log.write, level=logging.WARNING)
        self._lock = RunLock(self._out_dir, warn)
        path, read = self._out_dir / "metrics.jsonl", partial(_read, backend)
        open_tracker = _tracker_opener(config, backend, self._viewer_folder)
        waits, alone = config.resume is not None, self._lock.moment
        self._metrics = MetricLog(path, self._viewer_folder, open_tracker, warn, read, alone, waits=waits)
        weakref.finalize(self, _close, self._metrics, self._run_log)
        self._checkpoints = CheckpointFolder(self._out_dir / "checkpoint", self._warn)
        self._position = Position()
        self._epoch = 0
        self._best_func: Callable[[Any], Any] | None = None
        self._loss: Any = None
        self._bar_state: dict[str, Any] = {}

    # ---- what it is given

    def set_save_best_calc_func(self, func: Callable[[Any], Any]) -> None:
        """Has ``func(trainer)`` compute the value that decides which checkpoint is the best.

        Args:
            func: gets the trainer, whose ``get_records`` are those of all processes, and gives a number. Without it
                the value is the mean of the record ``save_best_rec``.
        """
        if not callable(func):
            raise ConfigError(f"set_save_best_calc_func got {func!r:.80}, which can't be called. Give a function.")
        self._best_func = func

    def set_train_dataloader(self, train_loader: Any) -> None:
        """Sets the data to train on: a DataLoader, or anything that can be iterated over again and again."""
        self._parts.set_loader("train", train_loader)

    def set_val_dataloader(self, val_loader: Any) -> None:
        """Sets the data to validate on."""
        self._parts.set_loader("val", val_loader)

    def set_test_dataloader(self, test_loader: Any) -> None:
        """Sets the data that ``test`` runs over."""
        self._parts.set_loader("test", test_loader)

    def set_model(self, model: Any) -> None:
        """Sets the model and moves it to the device."""
        self.set_models([model])

    def set_models(self, model_list: Sequence[Any]) -> None:
        """Sets the models and moves them to the device."""
        self._parts.set_models(model_list)

    def get_models(self) -> list[Any]:
        """The models to compute with, wrapped for as many processes as there are."""
        return list(self._parts.models)

    def get_raw_models(self) -> list[Any]:
        """The models as they were given, without a wrapper."""
        return self._parts.raw_models()

    def set_component(self, component: Any) -> None:
        """Sets the component: a module (or any object) without anything to train, such as a loss function."""
        self.set_components([component])

    def set_components(self, component_list: Sequence[Any]) -> None:
        """Sets the components; those that are modules move to the device."""
        self._parts.set_components(component_list)

    def get_components(self) -> list[Any]:
        """The components."""
        return list(self._parts.components)

    def set_optimizer(self, optimizer: Any, lr_scheduler: Any = None) -> None:
        """Sets the optimizer and its learning rate scheduler, if it has one."""
        self.set_optimizers([optimizer], [lr_scheduler])

    def set_optimizers(self, optimizer_list: Sequence[Any], lr_scheduler_list: Sequence[Any] | None = None) -> None:
        """Sets the optimizers and their learning rate schedulers, with None for those that have none."""
        self._parts.set_optimizers(optimizer_list, lr_scheduler_list)

    def get_optimizers(self) -> tuple[list[Any], list[Any]]:
        """The optimizers, and a list as long of their schedulers (None for those that have none)."""
        return list(self._parts.optimizers), list(self._parts.schedulers)

    # ---- what it tells

    @property
    def epoch(self) -> int:
        """The running epoch, from 1; 0 before the first."""
        return self._epoch

    @property
    def global_step(self) -> int:
        """Training steps that are done, over all epochs."""
        return self._position.train_step

    @property
    def rank(self) -> int:
        """Number of this process among all processes."""
        return self._backend.rank

    @property
    def world_size(self) -> int:
        """How many processes train together."""
        return self._backend.world_size

    @property
    def precision(self) -> str:
        """The precision in force; ``'no'`` where the device can't do what ``mixed_precision`` asks."""
        return self._precision

    def device(self) -> Any:
        """The device that this process computes on."""
        return self._backend.device()

    def is_main_process(self) -> bool:
        """Whether this is the process that writes files and logs."""
        return self._backend.rank == 0

    def is_local_main_process(self) -> bool:
        """Whether this is the first process on its machine."""
        return self._backend.local_rank == 0

    # ---- what it writes down

    def print(self, txt: object) -> None:
        """Prints a line, and appends it to ``out_dir/{name}_run.log``; in the main process only."""
        if self.is_main_process():
            self._run_log.write(txt)

    def log(self, value_dict: Mapping[str, Any], step: int) -> None:
        """Adds one point to each named curve, in ``out_dir/metrics.jsonl`` and in the viewer.

        Args:
            value_dict: numbers or one-element tensors by name.
            step: where on the axis the points stand.
        """
        if not isinstance(value_dict, Mapping):
            raise ConfigError(f"log got {value_dict!r:.80}, which is no dict. Give {{name: number}}.")
        if isinstance(step, bool) or not isinstance(step, int):
            raise ConfigError(f"log got step={step!r} of type {type(step).__name__}. Give an int.")
        if not self.is_main_process():
            return
        numbers: dict[str, Any] = {}
        for name, value in value_dict.items():
            number = self._number_or_tensor(value)
            if number is None or not isinstance(name, str):
                raise ConfigError(
                    f"log got {value!r:.80} under the name {name!r}. Give numbers or one-element tensors by names of "
                    "type str."
                )
            numbers[name] = number
        self._metrics.write(numbers, step, self._epoch)

    def _number_or_tensor(self, value: Any) -> Any:
        """A number, or a copy of a tensor where reading one waits for the device; None for anything else."""
        if self._backend.asynchronous:
            described = self._backend.describe_tensor(value)
            if described is not None and math.prod(described[1]) == 1 and not described[0].startswith("complex"):
                return self._backend.keep_tensor(value)
        return as_number(value, self._backend.to_float)

    def set_records(self, value_dict: Mapping[str, Any]) -> None:
        """Adds one value to each named record, without waiting for the device.

        Args:
            value_dict: numbers, bools, arrays or tensors by name; under one name always of one shape.
        """
        self._records.add(value_dict)

    def get_records(self) -> dict[str, Any]:
        """The records of this epoch (or test) so far, those of all processes once it is over.

        Returns:
            For each name one tensor on the device, of shape (number of values, *shape of a value): int64 for integers,
            bool for bools, float32 for other numbers, float64 where a value had that type.
        """
        return dict(self._records.stacked())

    def set_bar_state(self, state_dict: Mapping[str, Any]) -> None:
        """Shows values beside the loss in the progress bar; read only when the bar is drawn."""
        if not isinstance(state_dict, Mapping):
            raise ConfigError(f"set_bar_state got {state_dict!r:.80}, which is no dict. Give {{name: value}}.")
        self._bar_state.update(state_dict)

    # ---- for the loop

    def _warn(self, text: str) -> None:
        if self.is_main_process():
            self._run_log.write(text, logging.WARNING)

    def _warn_of_workers(self, text: str) -> None:
        """Tells of the workers of this process, whichever it is: nobody else knows of them."""
        log_module.warn(text) if self.rank else self._warn(text)

    def _describe_state(self) -> str:
        """What the progress display says: the loss, then what set_bar_state gave."""
        said = []
        for name, value in {"loss": self._loss, **self._bar_state}.items():
            if value is None:
                continue
            if isinstance(value, int):
                said.append(f"{name}={value}")
                continue
            number = as_number(value, self._backend.to_float)
            if number is not None:
                said.append(f"{name}={number:.4g}")
            elif isinstance(value, str):
                said.append(f"{name}={value}")
        return ", ".join(said)

    def _enable_precision(self) -> str:
        asked = self.config.mixed_precision
        precision = self._backend.enable_precision(asked)
        if precision != asked:
            self._warn(
                f"mixed_precision={asked!r} can't be had on {self._backend.device()} with {self._backend.name}; "
                f"{precision!r} is in force."
            )
        return precision


def _tracker_opener(config: TrainerConfig, backend: Backend, folder: Path) -> Callable[[], Tracker] | None:
    asked = config.log_with
    if asked == "none" or not backend.trackers:
        return None
    return partial(backend.open_tracker, backend.trackers[0] if asked == "auto" else asked, folder)


def _read(backend: Backend, value: Any) -> float:
    return value if isinstance(value, float) else backend.to_float(value)


def _close(*files: log_module.RunLog | MetricLog) -> None:
    for file in files:
        file.close()


def _check_config(config: TrainerConfig, backend: Backend) -> None:
    """The checks that need more than one field, or the backend."""
    accepted = ("auto", "none", *backend.trackers)
    if config.log_with not in accepted:
        listed = ", ".join(repr(name) for name in accepted)
        raise ConfigError(f"log_with={config.log_with!r} is not one of {listed}.")
    if config.accumulate_steps > 1 and not config.auto_optimize:
        raise ConfigError(
            f"accumulate_steps={config.accumulate_steps} needs auto_optimize=True. With auto_optimize=False call "
            "zero_grad, backward and step in train_step as often as you like."
        )


def _writable(out_dir: Path) -> Path:
    try:
        make_folder(out_dir)
    except OSError as error:
        raise ConfigError(f"out_dir={str(out_dir)!r} can't be made: {error}. Give a folder that can be.") from error
    if not os.access(out_dir, os.W_OK | os.X_OK):
        raise ConfigError(f"out_dir={str(out_dir)!r} can't be written to. Give a folder that can be.")
    return out_dir

"""What one run is made of, put together once and handed to whoever works on it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from dowdyboy_core import log
from dowdyboy_core._config import TrainerConfig
from dowdyboy_core._disk.folders import make_folder
from dowdyboy_core._disk.lock import RunLock
from dowdyboy_core._errors import ConfigError, SetupError
from dowdyboy_core.backend.points import Tracker
from dowdyboy_core.backend.random_streams import RandomStreams
from dowdyboy_core.backend.seam import Backend

from .assembly import Assembly
from .averaging import Averaging
from .carried import Carried
from .following import Following
from .loader_states import LoaderStates
from .losses import Losses
from .metrics import MetricLog
from .overruled import ScriptNumbers
from .position import Position
from .records import Records
from .stepping import LossScaler, Stepper
from .stopping import Stopping
from .untrained import Untrained
from .weighing import Weighing


@dataclass
class Run:
    """The parts of a run that more than one collaborator needs.

    Attributes:
        config: the settings.
        backend: the framework, in this process.
        out_dir: where the run's files go.
        precision: the precision in force.
        lock: keeps other runs out of ``out_dir``.
        messages: the text log.
        streams: the random streams of this process.
        parts: loaders, models, components, optimizers and schedulers.
        records: those of training and validation.
        stepper: backward and step.
        following: what decides the best.
        averaging: the average of the weights.
        position: how far the run has come.
        metrics: the curves.
        stopping: whether a signal asks to stop.
        losses: whether the training can go on.
        script: the plain numbers that the script gave.
        weighing: the weights of batches.
        loader_states: where a loader stands that has a state of its own.
        untrained: what training has left as it was.
        begins_epochs: whether the fit has an ``on_epoch_begin``.
        carried: what only other frameworks have a place for.
    """

    config: TrainerConfig
    backend: Backend
    out_dir: Path
    precision: str
    lock: RunLock
    messages: log.RunLog
    streams: RandomStreams
    parts: Assembly
    records: Records
    stepper: Stepper
    following: Following
    averaging: Averaging
    position: Position
    metrics: MetricLog
    stopping: Stopping
    losses: Losses
    script: ScriptNumbers
    weighing: Weighing
    loader_states: LoaderStates
    untrained: Untrained
    begins_epochs: bool = False
    carried: Carried = field(default_factory=Carried)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and logs."""
        return self.backend.rank == 0

    def tell(self, text: object) -> None:
        """Says a line on the screen and in the text log; in the main process only."""
        if self.is_main:
            self.messages.write(text)

    def gathered(self) -> dict[str, list[Any]]:
        """What each process has of its own: its random streams, and where its training loader stands if it says so.

        All processes come here.
        """
        found = self.backend.gather((self.streams.capture(), self.loader_states.capture()))
        states = [item[1] for item in found]
        return {"rng": [item[0] for item in found], **({} if None in states else {"loader": states})}

    def scale_state(self) -> dict[str, Any]:
        """The loss scale, and what the weights of batches are measured by."""
        return {**self.stepper.scaler.state(), **self.weighing.state()}

    def load_scale_state(self, state: dict[str, Any]) -> None:
        """Takes up what ``scale_state`` gave.

        Raises:
            ValueError: it is none.
        """
        self.weighing.load_state(state)
        self.stepper.scaler.load_state(state)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps other runs out of ``out_dir``: nothing in it is changed by a fit before, or once that has ended.

        Raises:
            SetupError: another one is under way there; in all processes, of which the first one looks.
        """
        problem = self.backend.gather(self.lock.take() if self.is_main else "")[0]
        if problem:
            raise SetupError(problem)
        try:
            yield
        finally:
            self.lock.release()

    def warn(self, text: str) -> None:
        """Says what the user should know; in the main process only."""
        if self.is_main:
            self.messages.write(text, logging.WARNING)


def set_up(config: TrainerConfig, backend: Backend) -> Run:
    """Takes the device, makes the folder and the text log, and puts the parts of a run together.

    Raises:
        ConfigError: the settings contradict each other or the backend, or ``out_dir`` can't be written to.
    """
    if not isinstance(config, TrainerConfig):
        raise ConfigError(f"Trainer got {config!r:.80}, which is no TrainerConfig. Give TrainerConfig(...).")
    _check_config(config, backend)
    backend.open(config.device_request)
    out_dir = _writable(Path(config.out_dir))
    messages = log.RunLog()
    if backend.rank == 0:
        messages.open(out_dir / f"{config.name}_run.log", logging.INFO, log.FORMAT, "a")
    # Nothing that closes the files at the end may hold the trainer: it would never end before the program does.
    warn = partial(messages.write, level=logging.WARNING)
    precision = _enable_precision(config.mixed_precision, backend, warn)
    streams = RandomStreams(backend)
    streams.seed(config.seed)
    lock = RunLock(out_dir, warn)
    # Of the workers of a process nobody else knows.
    position = Position()
    parts = Assembly(config, backend, streams, warn=warn if backend.rank == 0 else log.warn, position=position)
    stepper = Stepper(
        backend,
        config.accumulate_steps,
        config.clip_grad_norm,
        LossScaler(enabled=precision == "fp16"),
        clip_grad_value=config.clip_grad_value,
    )
    return Run(
        config=config,
        backend=backend,
        out_dir=out_dir,
        precision=precision,
        lock=lock,
        messages=messages,
        streams=streams,
        parts=parts,
        records=Records(backend),
        stepper=stepper,
        following=Following(config, backend, parts),
        averaging=Averaging(config.ema_decay, backend, parts, stepper, warn if backend.rank == 0 else _say_nothing),
        position=position,
        metrics=MetricLog(
            out_dir / "metrics.jsonl",
            out_dir / "log",
            _tracker_opener(config, backend, out_dir / "log"),
            warn,
            partial(_read, backend),
            lock.moment,
            waits=config.resume is not None,
        ),
        stopping=Stopping(backend.largest, backend.rank, backend.world_size, config.stop_after_seconds),
        losses=Losses(config.nonfinite, backend, stepper.scaler, position, warn),
        script=ScriptNumbers(backend, parts),
        weighing=Weighing(backend, config.accumulate_steps, parts, stepper),
        loader_states=LoaderStates(backend, parts, position, warn if backend.rank == 0 else log.warn),
        untrained=Untrained(config, backend, parts, warn if backend.rank == 0 else _say_nothing),
    )


def _say_nothing(text: str) -> None:
    """What a process does with what the first one says."""


def _enable_precision(asked: str, backend: Backend, warn: Callable[[str], None]) -> str:
    precision = backend.enable_precision(asked)
    if precision != asked and backend.rank == 0:
        warn(
            f"mixed_precision={asked!r} can't be had on {backend.device()} with {backend.name}; {precision!r} is in "
            "force."
        )
    return precision


def _tracker_opener(config: TrainerConfig, backend: Backend, folder: Path) -> Callable[[], Tracker] | None:
    asked = config.log_with
    if asked == "none" or not backend.trackers:
        return None
    return partial(backend.open_tracker, backend.trackers[0] if asked == "auto" else asked, folder)


def _read(backend: Backend, value: Any) -> float:
    return value if isinstance(value, float) else backend.to_float(value)


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

"""A framework of plain Python, just large enough for a whole Trainer, and a way to have a process die at any moment."""

from __future__ import annotations

import gc
import os
import signal
import struct
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_core import Trainer, TrainerConfig
from dowdyboy_core.backend.arrays import Array
from dowdyboy_core.backend.seam import Backend
from dowdyboy_core.backend.weights import Weights

DONE_TO_FILES = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir")
"""What Python tells of right before it does it."""


class Parameter:
    """One number, its gradient, and its shape."""

    shape = ()

    def __init__(self, value: float) -> None:
        self.value = value
        self.grad = 0.0
        self.trained = True


class Model:
    """One parameter, ``w``."""

    def __init__(self) -> None:
        self.w = Parameter(1.0)


class Component:
    """A module with nothing to train: a number, or not even that."""

    def __init__(self, number: float | None = None) -> None:
        self.number = number


class Optimizer:
    """Gradient descent with momentum."""

    def __init__(self, model: Model, lr: float) -> None:
        self.parameter = model.w
        self.lr = lr
        self.velocity = 0.0


class Halving:
    """A scheduler that halves the rate with each step."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.steps = 0

    def step(self) -> None:
        """Halves it."""
        self.steps += 1
        self.optimizer.lr /= 2


class PlainWeights(Weights):
    """Of numbers alone."""

    def masked(self, parameters: Any, factor: Any) -> AbstractContextManager[None]:
        return nullcontext()


class PlainBackend(Backend):
    """Models of one number; a loss is the gradient that it has."""

    name = "plain"
    version = "1"

    def __init__(self) -> None:
        self._stream = 0

    def weights(self) -> Weights:
        return PlainWeights()

    def draw(self) -> float:
        """A number of the global stream."""
        self._stream = (self._stream * 6364136223846793005 + 1442695040888963407) % 2**63
        return self._stream / 2**63

    def open(self, request: Any) -> None:
        pass

    def device(self) -> str:
        return "cpu"

    def enable_precision(self, precision: str) -> str:
        return "no"

    def seed(self, seed: int) -> None:
        self._stream = seed

    def get_rng_state(self) -> Any:
        return self._stream

    def set_rng_state(self, state: Any) -> None:
        self._stream = int(state)

    def split_loader(self, loader: Any, isolate: Any) -> None:
        return None

    def to_device(self, batch: Any) -> Any:
        return batch

    def is_model(self, value: Any) -> bool:
        return isinstance(value, (Model, Component))

    def prepare_model(self, model: Any, *, sync_bn: bool, find_unused_parameters: bool) -> Any:
        return model

    def set_training(self, model: Any, training: bool) -> None:
        pass

    def keep_modes(self, model: Any) -> Callable[[], None]:
        return lambda: None

    def named_parameters(self, model: Model | Component) -> list[tuple[str, Parameter]]:
        return [("w", model.w)] if isinstance(model, Model) else []

    def wants_gradient(self, parameter: Parameter) -> bool:
        return parameter.trained

    def set_wants_gradient(self, parameter: Parameter, wanted: bool) -> None:
        parameter.trained = wanted

    def copy_parameters(self, parameters: Sequence[Parameter]) -> list[Parameter]:
        return [Parameter(item.value) for item in parameters]

    def average_parameters(self, average: Sequence[Parameter], parameters: Sequence[Parameter], decay: float) -> None:
        for mean, item in zip(average, parameters, strict=True):
            mean.value += (1 - decay) * (item.value - mean.value)

    def swap_parameters(self, average: Sequence[Parameter], parameters: Sequence[Parameter]) -> None:
        for mean, item in zip(average, parameters, strict=True):
            mean.value, item.value = item.value, mean.value

    def is_optimizer(self, value: Any) -> bool:
        return isinstance(value, Optimizer)

    def optimizer_parameters(self, optimizer: Optimizer) -> list[Parameter]:
        return [optimizer.parameter]

    def zero_grad(self, optimizer: Optimizer) -> None:
        optimizer.parameter.grad = 0.0

    def loss_problem(self, loss: Any) -> None:
        return None

    def backward(self, loss: Any, factor: float) -> None:
        parameter, gradient = loss
        parameter.grad += gradient * factor

    def scale_gradients(self, optimizer: Optimizer, factor: float, *, check: bool) -> bool:
        optimizer.parameter.grad *= factor
        return True

    def clip_gradients(self, optimizer: Any, max_norm: float) -> None:
        pass

    def clip_gradient_values(self, optimizer: Any, bound: float) -> None:
        pass

    def step(self, optimizer: Optimizer) -> None:
        optimizer.velocity = 0.9 * optimizer.velocity + optimizer.parameter.grad
        optimizer.parameter.value -= optimizer.lr * optimizer.velocity

    def scheduler_drives(self, scheduler: Any, optimizer: Any) -> bool:
        return True

    def plateau_mode(self, scheduler: Any) -> None:
        return None

    def step_scheduler(self, scheduler: Halving, value: float | None) -> None:
        scheduler.step()

    def forward_context(self, training: bool) -> AbstractContextManager[Any]:
        return nullcontext()

    def to_float(self, value: Any) -> float:
        return float(value)

    def describe_tensor(self, value: Any) -> None:
        return None

    def keep_tensor(self, value: Any) -> Any:
        return value

    def stack(self, values: Sequence[Any], dtype: str) -> Any:
        return np.asarray(values, dtype)

    def cast(self, tensor: Any, dtype: str) -> Any:
        return tensor.astype(dtype)

    def concatenate(self, tensors: Sequence[Any]) -> Any:
        return np.concatenate(tensors)

    def mean(self, tensor: Any) -> float:
        return float(tensor.astype("float64").mean())

    def model_state(self, model: Model | Component) -> dict[str, Array]:
        if isinstance(model, Model):
            return {"w": self.tensor_state(model.w)}
        return {} if model.number is None else {"number": Array("F64", (), struct.pack("<d", model.number))}

    def load_model_state(self, model: Model | Component, state: Mapping[str, Array]) -> None:
        for array in state.values():
            [value] = struct.unpack("<d", bytes(array.data))
            if isinstance(model, Model):
                model.w.value = value
            else:
                model.number = value

    def optimizer_state(self, optimizer: Optimizer, names: Mapping[int, str]) -> Any:
        return {"params": [names[id(optimizer.parameter)]], "velocity": optimizer.velocity, "lr": optimizer.lr}

    def load_optimizer_state(self, optimizer: Optimizer, names: Mapping[int, str], state: Any) -> None:
        optimizer.velocity, optimizer.lr = state["velocity"], state["lr"]

    def scheduler_state(self, scheduler: Halving) -> Any:
        return {"steps": scheduler.steps}

    def load_scheduler_state(self, scheduler: Halving, state: Any) -> None:
        scheduler.steps = state["steps"]

    def tensor_state(self, tensor: Any) -> Array:
        if isinstance(tensor, Parameter):
            return Array("F64", (), struct.pack("<d", tensor.value))
        return Array({"float32": "F32", "int64": "I64"}[tensor.dtype.name], tensor.shape, tensor.tobytes())

    def tensor_from_state(self, array: Array, like: Any = None, *, host: bool = False) -> Any:
        return np.frombuffer(bytes(array.data), {"F32": "float32", "I64": "int64"}[array.dtype]).reshape(array.shape)

    def open_tracker(self, name: str, folder: Path) -> Any:
        raise AssertionError("it has no viewers")

    def free_memory(self) -> None:
        pass


class OneOfSeveral(PlainBackend):
    """One of several processes, with the others in words: what each of them gives is made of what this one gives.

    Args:
        world_size: how many there are.
        rank: the number of this one.
        others: makes what another process gives of what this one gives; as it is, they all do the same.
    """

    def __init__(self, world_size: int, rank: int = 0, others: Callable[[Any], Any] = lambda value: value) -> None:
        super().__init__()
        self.world_size = world_size
        self.rank = rank
        self._others = others

    def gather(self, value: Any) -> list[Any]:
        return [value if rank == self.rank else self._others(value) for rank in range(self.world_size)]


BATCHES = 2
"""Of training, in each epoch."""


def plain_trainer(out_dir: Path, backend: PlainBackend, batches: int = BATCHES, **settings: Any) -> Trainer:
    """A trainer of the plain model, with an optimizer, a scheduler, and so many batches 0.0, 1.0, … in an epoch."""
    trainer = Trainer(TrainerConfig(out_dir=out_dir, disable_tqdm=True, log_with="none", **settings), backend)
    model = Model()
    optimizer = Optimizer(model, 0.25)
    trainer.set_model(model)
    trainer.set_optimizer(optimizer, Halving(optimizer))
    trainer.set_train_dataloader([float(number) for number in range(batches)])
    return trainer


def train_plain(out_dir: Path, values: Sequence[float], **settings: Any) -> Trainer:
    """Fits the plain model, of which everything that a checkpoint holds goes into the next step; gives the trainer.

    Args:
        out_dir: where everything is written.
        values: the value of each epoch that decides the best.
        settings: of the configuration.
    """
    backend = PlainBackend()
    trainer = plain_trainer(out_dir, backend, epoch=len(values), **settings)
    [model] = trainer.get_raw_models()
    trainer.set_save_best_calc_func(lambda trainer: values[trainer.epoch - 1])

    def step(trainer: Any, bat: float, bat_idx: int, global_step: int) -> Any:
        trainer.set_records({"seen": model.w.value})
        gradient = model.w.value * backend.draw() + bat + len(trainer.get_records()["seen"])
        trainer.log({"gradient": gradient}, global_step)
        return [model.w, gradient]

    trainer.fit(step)
    return trainer


class HalfWritten:
    """A file that is opened for writing, of which every operation may be the last that the process does."""

    def __init__(self, file: Any, count: Callable[[], bool]) -> None:
        self._file = file
        self._count = count

    def __enter__(self) -> HalfWritten:
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, content: Any) -> int:
        if self._count():
            self._file.write(memoryview(content)[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return int(self._file.write(content))


def die_after(operations: int, folder: Path) -> None:
    """Has this process end by SIGKILL in the operation after so many on files and folders in ``folder``."""
    left, lock = [operations], threading.Lock()

    def count() -> bool:
        with lock:
            left[0] -= 1
            return left[0] < 0

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in DONE_TO_FILES and _is_within(arguments, folder) and count():
            os.kill(os.getpid(), signal.SIGKILL)

    def opened(path: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        file = real_open(path, mode, *rest, **named)
        return HalfWritten(file, count) if set(mode) & set("wxa+") and path.is_relative_to(folder) else file

    def synced(descriptor: int) -> None:
        if count():
            os.kill(os.getpid(), signal.SIGKILL)
        real_sync(descriptor)

    real_open, real_sync = Path.open, os.fsync
    Path.open, os.fsync = opened, synced  # type: ignore[method-assign, assignment]
    sys.addaudithook(audit)


def _is_within(arguments: tuple[Any, ...], folder: Path) -> bool:
    path = arguments[0]
    if isinstance(path, int):
        return False
    # Whole trees are removed by the names in them; of all that is done here, only they are relative.
    return not Path(os.fsdecode(path)).is_absolute() or os.fsdecode(path).startswith(str(folder))


def in_a_process(job: Callable[[], None]) -> int:
    """Runs a job in a process of its own, which ends as if killed, whatever it holds; gives its exit status."""
    gc.freeze()  # or the child would copy every page that its collector looks at
    process = os.fork()
    if process == 0:
        status = 1
        try:
            with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
                job()
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)
    gc.unfreeze()
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@pytest.fixture
def crashing() -> Any:
    """The helpers of this file, for tests that can't import it."""
    return sys.modules[__name__]

"""Several processes: models whose gradients are averaged, and ``spawn`` to start them.

Who launches the processes sets DOWDYBOY_RANK, DOWDYBOY_LOCAL_RANK, DOWDYBOY_WORLD_SIZE and DOWDYBOY_MASTER (the
``host:port`` where process 0 listens) in their environment; nothing here asks for more.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np

from dowdyboy_core import SetupError
from dowdyboy_core.backend import (
    Exchange,
    ProcessFailure,
    Work,
    check_process_count,
    end_together,
    run_spawned,
    unused_parameters,
    wait_for_spawned,
)
from dowdyboy_core.backend import Replica as _Replica
from dowdyboy_core.backend import replicate as _replicate

from ._sockets import Group
from ._state import from_array, to_array
from .framework.layers import BatchNorm, Module
from .framework.tensor import Array, Parameter, Tensor, is_recording, quiet

_group: Group | None = None  # one job, one group: it outlives a trainer


def from_environment() -> tuple[int, int, int]:
    """Rank, local rank and world size as the launcher says; (0, 0, 1) without one."""
    world_size = int(os.environ.get("DOWDYBOY_WORLD_SIZE", "1"))
    if world_size == 1:
        return 0, 0, 1
    missing = [name for name in ("DOWDYBOY_RANK", "DOWDYBOY_LOCAL_RANK", "DOWDYBOY_MASTER") if name not in os.environ]
    if missing:
        raise SetupError(
            f"DOWDYBOY_WORLD_SIZE={world_size} is set and {', '.join(missing)} not. Start the script with spawn, or "
            "set them all."
        )
    return int(os.environ["DOWDYBOY_RANK"]), int(os.environ["DOWDYBOY_LOCAL_RANK"]), world_size


def join(rank: int, world_size: int) -> None:
    """Meets the other processes."""
    global _group
    if _group is None:
        master = os.environ["DOWDYBOY_MASTER"]
        host, _, port = master.rpartition(":")
        if not (host and port.isdecimal()):
            raise SetupError(f"DOWDYBOY_MASTER={master!r} is no address. Give host:port, where process 0 can listen.")
        _group = Group(rank, world_size, (host, int(port)))
        atexit.register(leave)


def leave() -> None:
    """Waits at the end of the program for the others."""
    global _group
    if _group is not None and end_together(gather):
        _group.close()
        _group = None


def exchange(kind: str, value: Any) -> list[Any]:
    """One value of every process, in the order of the ranks."""
    assert _group is not None, "join comes first"
    return _group.exchange(kind, value)


def gather(value: Any) -> list[Any]:
    """What the trainer has to say to the other processes."""
    return exchange("news", value)


def total(array: Array) -> Array:
    """The sum of an array over all processes; added up in the order of the ranks, so that all get the same bits."""
    first, *others = (from_array(item) for item in exchange("sums", to_array(array)))
    for other in others:
        first = first + other
    return first


def synchronise_batch_norm(model: Module) -> None:
    """Has every BatchNorm of a model computed over the joined batch of all processes."""
    for _, layer in model.modules():
        if isinstance(layer, BatchNorm):
            layer.total = total


class Replica(_Replica, Module):
    """What stands for a model whose gradients are averaged over the processes."""


class NumpyExchange(Exchange):
    """The exchange of one model's gradients, after each backward pass."""

    def named_parameters(self) -> Iterable[tuple[str, Any]]:
        return self.model.parameters().items()  # type: ignore[no-any-return]

    def wants_gradient(self, parameter: Any) -> bool:
        return bool(parameter.trainable)

    def set_trained(self, parameter: Any, trained: bool) -> None:
        parameter.trainable = trained

    def is_recording(self) -> bool:
        return is_recording()

    def connect(self) -> None:
        """There is nothing to make."""

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.model(*inputs, **named)

    def prepare_backward(self, loss: Any) -> None:
        """There is nothing to make ready."""

    @quiet
    def average_gradients(self) -> None:
        """Gives all processes the mean of their gradients, if the backward pass has gone through the model.

        Raises:
            SetupError: a parameter got a gradient in some processes only.
        """
        trained = dict(zip(self.names, self.parameters, strict=True))
        own: dict[str, Any] = {
            "fresh": [path for path, item in trained.items() if item.fresh],
            "gradients": {path: to_array(item.grad) for path, item in trained.items() if item.grad is not None},
        }
        all_own = exchange("gradients", own)
        fresh = set().union(*(each["fresh"] for each in all_own))
        if not fresh:  # the model's output was cut off from this loss
            return
        if not self.find_unused:
            _refuse_unused(list(trained), [each["fresh"] for each in all_own])
        for path, parameter in trained.items():
            if path in fresh:
                _set_mean(parameter, [each["gradients"].get(path) for each in all_own])


def replicate(exchange: NumpyExchange) -> Replica:
    """What stands for the model of an exchange."""
    return _replicate(Replica, Module, exchange)


def _refuse_unused(trained: list[str], fresh: list[list[str]]) -> None:
    for rank, found in enumerate(fresh):
        unused = [path for path in trained if path not in found]
        if unused:
            raise unused_parameters(unused, f"process {rank}")


def _set_mean(parameter: Parameter, gradients: list[Any]) -> None:
    mean = np.zeros_like(parameter.data)
    for gradient in gradients:  # in the order of the ranks, so that all get the same bits
        mean = mean if gradient is None else mean + from_array(gradient)
    parameter.grad = (mean / len(gradients)).astype(mean.dtype)
    parameter.fresh = False


def align_untrained(models: Sequence[Module]) -> None:
    """Gives every process the buffers of the first one."""
    for model in models:
        buffers = _buffers(model)
        if buffers:
            first = exchange("buffers", {path: to_array(item.data) for path, item in buffers.items()})[0]
            for path, item in buffers.items():
                item.data = from_array(first[path])


@contextmanager
def aligned(models: Sequence[Module]) -> Iterator[None]:
    """Does so for the time of the context, and then gives each process its own again."""
    own = [(item, item.data) for model in models for item in _buffers(model).values()]
    align_untrained(models)
    try:
        yield
    finally:
        for item, data in own if from_environment()[0] else ():
            item.data = data


def _buffers(model: Module) -> dict[str, Tensor]:
    return {path: item for path, item in model.state().items() if not isinstance(item, Parameter)}


def spawn(function: Callable[..., Any], nprocs: int, args: Sequence[Any] = ()) -> None:
    """Runs ``function(*args)`` in ``nprocs`` processes on this machine.

    Args:
        function: a function that can be imported, since each process starts afresh.
        nprocs: how many processes.
        args: what it gets.

    Raises:
        ConfigError: ``nprocs`` is no positive int.
        RuntimeError: one of them failed, with its traceback; the others were ended.
    """
    check_process_count(nprocs)
    wait_for_spawned(lambda work: _Spawned(f"127.0.0.1:{free_port()}", nprocs, work), function, args, _error)


def _error(failure: ProcessFailure) -> Exception:
    return RuntimeError(failure.text)


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Spawned:
    """Processes that were started: forked by a server, which has imported what they need and done nothing else."""

    def __init__(self, master: str, nprocs: int, work: Work) -> None:
        context = multiprocessing.get_context("forkserver")
        self.processes: list[Any] = []
        for rank in range(nprocs):
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": nprocs, "MASTER": master}
            environment = {**os.environ, **{f"DOWDYBOY_{name}": str(value) for name, value in place.items()}}
            self.processes.append(context.Process(target=_run, args=(environment, _Screen(), work)))
            self.processes[-1].start()


class _Screen:
    """Where this process writes to: on its way to another one, it has that write there, too."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _Descriptors, tuple(map(DupFd, (1, 2)))


class _Descriptors:
    def __init__(self, *given: Any) -> None:
        for number, descriptor in enumerate(given, start=1):
            copy = descriptor.detach()
            os.dup2(copy, number)
            os.close(copy)


def _run(environment: dict[str, str], screen: _Descriptors, work: Work) -> None:
    # The server has the environment and the random numbers of the moment at which it was started.
    os.environ.clear()
    os.environ.update(environment)
    np.random.seed()
    try:
        run_spawned(work)
    finally:
        leave()  # since a process that was forked does nothing of what atexit was told

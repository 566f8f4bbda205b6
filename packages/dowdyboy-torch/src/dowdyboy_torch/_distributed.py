"""Several processes on PyTorch: torch.distributed and DistributedDataParallel, wired by hand.

Who launches the processes (torchrun, Slurm, ``spawn`` below) sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and
MASTER_PORT in their environment; nothing here asks for more.
"""

from __future__ import annotations

import atexit
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from dowdyboy_core import SetupError, UnsupportedError
from dowdyboy_core._config import check_process_count
from dowdyboy_core._together import apart_on_error, end_together


def from_environment() -> tuple[int, int, int]:
    """Rank, local rank and world size as the launcher says; (0, 0, 1) without one."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        return 0, 0, 1
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise SetupError(
            f"WORLD_SIZE={world_size} is set and {', '.join(missing)} not. Start the script with torchrun, or set "
            "them all."
        )
    return int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"]), world_size


def join(device: torch.device) -> None:
    """Meets the other processes: over NCCL on GPUs, over gloo on CPUs."""
    if not dist.is_available():
        raise UnsupportedError(
            "This build of PyTorch has no torch.distributed. Run in one process, or install another."
        )
    if not dist.is_initialized():
        if device.type == "cuda":
            dist.init_process_group("nccl", device_id=device)
        else:
            dist.init_process_group("gloo")
        # Its threads would otherwise outlive the interpreter now and then, which ends the process with an abort.
        atexit.register(_leave)


def _leave() -> None:
    # One that ends while another still talks to it may abort.
    if dist.is_initialized() and end_together(gather):
        dist.destroy_process_group()


def gather(value: Any) -> list[Any]:
    """A plain value of every process, in the order of the ranks."""
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


class Replica(DistributedDataParallel):
    """A model whose gradients are averaged over the processes.

    Evaluation goes straight to the model: there the processes may have different numbers of batches, and a
    collective in one of them would wait for ever.
    """

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Computes the model, in step with the other processes only where gradients are to come."""
        if self.training and torch.is_grad_enabled():
            return super().forward(*inputs, **named)  # type: ignore[no-untyped-call]
        return self.module(*inputs, **named)


def replicate(model: torch.nn.Module, device: torch.device, find_unused_parameters: bool) -> torch.nn.Module:
    """The model wrapped for several processes; as it is if it has nothing to train."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return model
    ids = [device.index] if device.type == "cuda" else None
    return Replica(model, device_ids=ids, find_unused_parameters=find_unused_parameters)


def unsynchronised(models: Sequence[Any]) -> AbstractContextManager[Any]:
    """Keeps gradients in this process for the time of the context."""
    stack = ExitStack()
    for model in models:
        if isinstance(model, DistributedDataParallel):
            stack.enter_context(model.no_sync())
    return stack


def align_untrained(models: Sequence[Any]) -> None:
    """Gives every process the buffers of the first one."""
    for model in models:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def spawn(function: Callable[..., Any], nprocs: int, args: Sequence[Any] = ()) -> None:
    """Runs ``function(*args)`` in ``nprocs`` processes on this machine, as torchrun would start them.

    Args:
        function: a function that can be imported, since each process starts afresh.
        nprocs: how many processes.
        args: what it gets.

    Raises:
        ConfigError: ``nprocs`` is no positive int.
        torch.multiprocessing.ProcessRaisedException: one of them failed; the others were ended.
    """
    check_process_count(nprocs)
    from torch.multiprocessing.spawn import spawn as start

    start(_run_as_rank, (nprocs, _free_port(), function, tuple(args)), nprocs)


def _run_as_rank(rank: int, world_size: int, port: int, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    with apart_on_error():
        function(*args)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

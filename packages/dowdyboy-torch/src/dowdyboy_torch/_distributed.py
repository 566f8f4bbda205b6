"""Several processes on PyTorch: torch.distributed and DistributedDataParallel, wired by hand.

Who launches the processes (torchrun, Slurm, ``spawn`` below) sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and
MASTER_PORT in their environment; nothing here asks for more.
"""

from __future__ import annotations

import atexit
import os
import pickle  # noqa: TID251 - between the processes of one job, as all_gather_object does it
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import UninitializedParameter

from dowdyboy_core import SetupError, UnsupportedError
from dowdyboy_core._config import check_process_count
from dowdyboy_core._errors import unused_parameters
from dowdyboy_core._together import end_together, run_spawned, wait_for_spawned


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
        store, rank, world_size = next(rendezvous("env://"))
        # torchrun keeps its store when it starts the processes again, and in it the addresses of those that failed.
        store = PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        backend, device_id = ("nccl", device) if device.type == "cuda" else ("gloo", None)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, device_id=device_id)
        # Its threads would otherwise outlive the interpreter now and then, which ends the process with an abort.
        atexit.register(_leave)


def _leave() -> None:
    # One that ends while another still talks to it may abort.
    if dist.is_initialized() and end_together(gather):
        dist.destroy_process_group()


def gather(value: Any) -> list[Any]:
    """A plain value of every process, in the order of the ranks."""
    # Not all_gather_object, since nobody could wait for its tensors.
    device = _device()
    content = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8).to(device)
    sizes = [int(size) for size in _all_gather(torch.tensor([len(content)], device=device))]
    padded = content.new_zeros(max(sizes))
    padded[: len(content)] = content
    texts = _all_gather(padded)
    return [pickle.loads(text[:size].cpu().numpy().tobytes()) for text, size in zip(texts, sizes, strict=True)]


def largest(numbers: Sequence[int]) -> list[int]:
    """For each place the largest of the numbers that the processes give."""
    found: list[int] = torch.stack(_all_gather(torch.tensor(numbers, device=_device()))).amax(0).tolist()
    return found


def _device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


def _all_gather(own: torch.Tensor) -> list[torch.Tensor]:
    received = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    with until_released(own, *received):
        dist.all_gather(received, own)
    return received


@contextmanager
def until_released(*tensors: torch.Tensor) -> Iterator[None]:
    """Runs a collective, and waits until no thread of gloo's holds its tensors any longer.

    Gloo says that a collective is over, and lets go of the tensors after that, in a thread of its own, which needs the
    interpreter for it. A process that comes to its end in between, in order or by an exception, would abort: with
    another exit status than its own, and the launcher would report the wrong process as the first one to fail.
    """
    held = [sys.getrefcount(tensor) for tensor in tensors]
    try:
        yield
    finally:
        latest = time.monotonic() + _LET_GO
        while [sys.getrefcount(tensor) for tensor in tensors] > held and time.monotonic() < latest:
            time.sleep(0)  # gives the interpreter to whoever waits for it


# In seconds; reached only where a collective has failed and another thread waits for a process that is gone.
_LET_GO = 1.0


# What DistributedDataParallel says of parameters that it has waited for in vain: their places among the trained ones.
_UNUSED = re.compile(r"Parameter indices which did not receive grad for rank \d+: ([\d ]*\d)")


class Replica(DistributedDataParallel):
    """A model whose gradients are averaged over the processes.

    Evaluation goes straight to the model: there the processes may have different numbers of batches, and a
    collective in one of them would wait for ever.
    """

    def __init__(self, model: torch.nn.Module, device: torch.device, find_unused_parameters: bool) -> None:
        ids = [device.index] if device.type == "cuda" else None
        super().__init__(model, device_ids=ids, find_unused_parameters=find_unused_parameters)
        if ids is None and not find_unused_parameters:
            self._fix_layout()

    def _fix_layout(self) -> None:
        """Lays the gradients out once and for all.

        By itself the reducer lays them out anew after the first step, in the order in which they came. With three
        processes or more gloo adds the same numbers in another order where they stand in another place, and a run that
        was resumed, whose first step comes later, would differ from one that was not in the last bits.
        """
        self.reducer._push_all_rebuilt_params()
        self.reducer._rebuild_buckets()

    def _build_params_for_reducer(self) -> tuple[list[torch.nn.Parameter], list[bool]]:
        """The parameters from the last to the first, about as their gradients come: so sending can begin early."""
        parameters, sparse = super()._build_params_for_reducer()  # type: ignore[no-untyped-call]
        return parameters[::-1], sparse[::-1]

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Computes the model, in step with the other processes only where gradients are to come."""
        if not (self.training and torch.is_grad_enabled()):
            return self.module(*inputs, **named)
        try:
            return super().forward(*inputs, **named)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            unused = _UNUSED.search(str(error))
            if unused is None:
                raise
            trained = [name for name, item in self.module.named_parameters() if item.requires_grad][::-1]
            raise unused_parameters([trained[int(place)] for place in unused[1].split()]) from error


def replicate(model: torch.nn.Module, device: torch.device, find_unused_parameters: bool) -> torch.nn.Module:
    """The model wrapped for several processes; as it is if it has nothing to train."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return model
    lazy = [path for path, item in model.named_parameters() if isinstance(item, UninitializedParameter)]
    if lazy:
        raise SetupError(
            f"The parameters {lazy[:5]} ({len(lazy)} in all) have no shape yet, and in several processes they need "
            "one. Run the model once on an input like yours before set_models."
        )
    return Replica(model, device, find_unused_parameters)


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
            with until_released(buffer):
                dist.broadcast(buffer, 0)


@contextmanager
def aligned(models: Sequence[Any]) -> Iterator[None]:
    """Gives every process the buffers of the first one for the time of the context, and then its own again.

    Their memory is exchanged and put back, and nothing is written to it: a backward pass that is still to come may need
    what a forward pass saw in them, and would refuse buffers that were written to since.
    """
    own = [(buffer, buffer.data) for model in models for buffer in model.buffers()]
    try:
        for buffer, data in own:
            sent = data.clone() if dist.get_rank() else data
            with until_released(sent):
                dist.broadcast(sent, 0)
            buffer.data = sent
        yield
    finally:
        for buffer, data in own:
            buffer.data = data


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

    spawned: Any = start(_run_as_rank, (nprocs, _free_port(), function, tuple(args)), nprocs, join=False)
    wait_for_spawned(spawned)


def _run_as_rank(rank: int, world_size: int, port: int, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    run_spawned(function, args)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

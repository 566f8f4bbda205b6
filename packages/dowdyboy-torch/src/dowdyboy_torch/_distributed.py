"""Several processes on PyTorch: torch.distributed and DistributedDataParallel, wired by hand.

Who launches the processes (torchrun, Slurm, ``spawn`` below) sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and
MASTER_PORT in their environment; nothing here asks for more.
"""

from __future__ import annotations

import atexit
import json
import os
import pickle  # noqa: TID251 - between the processes of one job, as all_gather_object does it
import re
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import UninitializedParameter

from dowdyboy_core import SetupError, UnsupportedError
from dowdyboy_core.backend import (
    Exchange,
    ProcessFailure,
    Work,
    check_process_count,
    end_together,
    is_consequence,
    run_spawned,
    unused_parameters,
    wait_for_spawned,
)
from dowdyboy_core.backend import Replica as _Replica
from dowdyboy_core.backend import replicate as _replicate

from ._names import named_parameters


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
        _show_failures()


def _show_failures() -> None:
    """Has torchrun name the exception of this process as the cause, if it was the first.

    By itself it goes by who is seen to end first: often one whose partner is gone, and that was aborted for it, while
    the partner is still about to end.
    """
    told = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if told is None:
        return
    show_here = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        brief = "".join(traceback.format_exception_only(kind, error)).strip()
        # It takes the earliest of whole seconds, in which another one may have followed.
        when = int(time.time()) - (not is_consequence(brief))
        stack = "".join(traceback.format_exception(kind, error, trace))
        about = {"message": brief, "extraInfo": {"py_callstack": stack, "timestamp": str(when)}}
        file = Path(told)
        if not (file.exists() and file.stat().st_size):  # else the script records its errors itself
            with suppress(OSError):
                file.write_text(json.dumps({"message": about}), encoding="utf-8")
        show_here(kind, error, trace)

    sys.excepthook = show


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


def total(number: torch.Tensor) -> torch.Tensor:
    """The sum of one number of each process, added up in the order of the ranks, so that all get the same bits."""
    return torch.stack(_all_gather(number)).sum()


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


class Replica(_Replica, torch.nn.Module):
    """What stands for a model whose gradients are averaged over the processes."""


class _Parallel(DistributedDataParallel):
    """PyTorch's own exchange, with an order and a layout of the gradients that never change."""

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


class TorchExchange(Exchange):
    """The exchange of one model's gradients by DistributedDataParallel."""

    def __init__(self, model: torch.nn.Module, device: torch.device, find_unused: bool) -> None:
        super().__init__(model, find_unused)
        self._device = device
        self._parallel: _Parallel | None = None

    def named_parameters(self) -> Iterable[tuple[str, Any]]:
        return named_parameters(self.model)

    def wants_gradient(self, parameter: Any) -> bool:
        return parameter.requires_grad  # type: ignore[no-any-return]

    def set_trained(self, parameter: Any, trained: bool) -> None:
        parameter.requires_grad_(trained)

    def is_recording(self) -> bool:
        return torch.is_grad_enabled()

    def connect(self) -> None:
        self._parallel = None  # first, so that its memory is free
        self._parallel = _Parallel(self.model, self._device, self.find_unused)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        assert self._parallel is not None, "follow comes first"
        with self._named_unused(), nullcontext() if self.synchronised else self._parallel.no_sync():
            return self._parallel(*inputs, **named)

    def prepare_backward(self, loss: Any) -> None:
        assert self._parallel is not None, "follow comes first"
        reducer = self._parallel.reducer
        with self._named_unused():
            reducer._rebuild_buckets()  # once, on GPUs; as before each forward
            reducer.prepare_for_backward([loss] if self.find_unused else [])

    def attributes(self) -> dict[str, Any]:
        return {"module": self.model, "no_sync": self.no_sync}

    @contextmanager
    def _named_unused(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            unused = _UNUSED.search(str(error))
            if unused is None:
                raise
            names = self.names[::-1]  # as they were handed over
            raise unused_parameters([names[int(place)] for place in unused[1].split()]) from error


def replicate(exchange: TorchExchange) -> Replica:
    """What stands for the model of an exchange.

    Raises:
        SetupError: parameters of it have no shape yet.
    """
    lazy = [path for path, item in exchange.named_parameters() if isinstance(item, UninitializedParameter)]
    if lazy:
        raise SetupError(
            f"The parameters {lazy[:5]} ({len(lazy)} in all) have no shape yet, and in several processes they need "
            "one. Run the model once on an input like yours before set_models."
        )
    return _replicate(Replica, torch.nn.Module, exchange)


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
        torch.multiprocessing.ProcessExitedException: a signal or ``sys.exit`` ended one.
    """
    check_process_count(nprocs)
    from torch.multiprocessing.spawn import spawn as start

    def launch(work: Work) -> Any:
        return start(_run_as_rank, (nprocs, _free_port(), work), nprocs, join=False)

    wait_for_spawned(launch, function, args, _error)


def _error(failure: ProcessFailure) -> Exception:
    from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

    if failure.raised:
        return ProcessRaisedException(failure.text, failure.rank, failure.pid)
    name = signal.Signals(-failure.status).name if failure.status < 0 else None
    return ProcessExitedException(failure.text, failure.rank, failure.pid, failure.status, name)


def _run_as_rank(rank: int, world_size: int, port: int, work: Work) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    run_spawned(work)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

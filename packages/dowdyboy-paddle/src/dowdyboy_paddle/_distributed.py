"""Several processes on PaddlePaddle: paddle.distributed and its DataParallel, the data-parallel part of fleet.

Who launches the processes (python -m paddle.distributed.launch, ``spawn`` below) sets PADDLE_TRAINER_ID,
PADDLE_TRAINERS_NUM and the endpoints in their environment; nothing here asks for more.
"""

from __future__ import annotations

import atexit
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

import paddle
import paddle.distributed as dist
from paddle.nn.layer.rnn import RNNBase

from dowdyboy_core import SetupError, UnsupportedError
from dowdyboy_core._config import check_process_count
from dowdyboy_core._errors import unused_parameters
from dowdyboy_core._together import end_together, run_spawned, wait_for_spawned

from . import _state

# The parameters of a wrapped model call the reducer in every backward pass, whether it is still there or not: with a
# model that is wrapped again, for another trainer, the process would crash. So it lives as long as the model does.
_reducers: WeakKeyDictionary[paddle.nn.Layer, list[Any]] = WeakKeyDictionary()


def from_environment() -> tuple[int, int, int]:
    """Rank, local rank and world size as the launcher says; (0, 0, 1) without one."""
    world_size = int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))
    if world_size == 1:
        return 0, 0, 1
    missing = [name for name in ("PADDLE_TRAINER_ID", "PADDLE_TRAINER_ENDPOINTS") if name not in os.environ]
    if "PADDLE_BACKUP_ENV_PATH" in os.environ and missing == ["PADDLE_TRAINER_ENDPOINTS"]:
        missing = []  # the launcher keeps a list of thousands in that file, where paddle looks for it
    if missing:
        raise SetupError(
            f"PADDLE_TRAINERS_NUM={world_size} is set and {', '.join(missing)} not. Start the script with "
            "python -m paddle.distributed.launch, or set them all."
        )
    rank = int(os.environ["PADDLE_TRAINER_ID"])
    return rank, _local_rank(rank), world_size


def _local_rank(rank: int) -> int:
    """The number of this process on its machine: as the launcher says, else counted among the endpoints."""
    if "PADDLE_RANK_IN_NODE" in os.environ:
        return int(os.environ["PADDLE_RANK_IN_NODE"])
    hosts = [endpoint.rsplit(":", 1)[0] for endpoint in os.environ["PADDLE_TRAINER_ENDPOINTS"].split(",")]
    if rank >= len(hosts):
        raise SetupError(
            f"PADDLE_TRAINER_ID={rank} has no endpoint among the {len(hosts)} of PADDLE_TRAINER_ENDPOINTS. Start the "
            "script with python -m paddle.distributed.launch, or name one host:port for each process."
        )
    return hosts[:rank].count(hosts[rank])


def join(device: str) -> None:
    """Meets the other processes: over NCCL on GPUs, over gloo on CPUs."""
    if device == "cpu" and sys.platform != "linux":
        raise UnsupportedError(
            f"PaddlePaddle has gloo on Linux only, and this is {sys.platform!r}. Run in one process, or on Linux."
        )
    if not dist.is_initialized():
        # What fleet.init starts from; it would go on to make a group for each kind of model parallelism, and on gloo
        # each of them is slow and one more chance for a connection to fail.
        dist.init_parallel_env()
        atexit.register(end_together, gather)
        _show_failures()


def _show_failures() -> None:
    """Has an exception of this process printed where paddle's launcher shows it.

    The launcher shows the output of its first process as it comes, and at the end that of the first one that it finds
    failed: seldom the one that failed first, since the others follow at once.
    """
    shown = Path(os.environ.get("PADDLE_LOG_DIR", ""), "workerlog.0")
    rank, local_rank, _ = from_environment()
    if local_rank == 0 or not shown.is_file():
        return
    show_here = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        show_here(kind, error, trace)
        text = "".join(traceback.format_exception(kind, error, trace))
        with suppress(OSError), shown.open("a", encoding="utf-8") as file:
            file.write(f"Process {rank} failed:\n{text}")

    sys.excepthook = show


def gather(value: Any) -> list[Any]:
    """A plain value of every process, in the order of the ranks."""
    values: list[Any] = []
    dist.all_gather_object(values, value)
    return values


def largest(numbers: Sequence[int]) -> list[int]:
    """For each place the largest of the numbers that the processes give."""
    tensor = paddle.to_tensor(list(numbers), dtype="int64")
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    found: Any = tensor.tolist()
    return list(found)


def replicate(model: paddle.nn.Layer, find_unused_parameters: bool) -> paddle.nn.Layer:
    """The model wrapped for several processes; as it is if it has nothing to train."""
    if all(parameter.stop_gradient for parameter in model.parameters()):
        return model
    # What fleet.distributed_model makes for data parallelism; said directly, since find_unused_parameters is a
    # setting of the whole job there and of a model here.
    replica = paddle.DataParallel(model, find_unused_parameters=find_unused_parameters)
    _reducers.setdefault(model, []).append(replica._reducer)
    return replica


# What the reducer says when a parameter that was skipped in one step gets a gradient in the next.
_UNUSED = re.compile(r"parameter\[\d+\]\[(\S+)\] has been ready before")


def backward(loss: paddle.Tensor, models: Iterable[paddle.nn.Layer]) -> None:
    """Computes gradients, which the reducers of wrapped models exchange on the way.

    Raises:
        SetupError: a parameter of a wrapped model was left out before.
        UnsupportedError: the gradients would go through one of the ``models`` where PaddlePaddle can't have them.
    """
    try:
        loss.backward()
    except ValueError as error:
        frozen = _frozen_recurrent(models) if "shall not be nullptr" in str(error) else {}
        if not frozen:
            raise
        raise UnsupportedError(
            f"Gradients can't pass through recurrent layers with frozen parameters, and here are {frozen}: "
            "PaddlePaddle's kernel wants to give a gradient to each of them. Leave all parameters of such a layer "
            "trainable (stop_gradient=False), and give the optimizer those of the other layers only: then they stay as "
            "they are."
        ) from error
    except RuntimeError as error:
        unused = _UNUSED.search(str(error))
        if unused is None:
            raise
        paths = {item.name: path for model in _reducers for path, item in model.named_parameters()}
        raise unused_parameters([paths.get(unused[1], unused[1])]) from error


def _frozen_recurrent(models: Iterable[paddle.nn.Layer]) -> dict[str, list[str]]:
    """The frozen parameters of each recurrent layer that PaddlePaddle computes by one kernel, by its path."""
    found = {}
    for model in models:
        for path, layer in model.named_sublayers(include_self=True):
            if isinstance(layer, RNNBase) and layer.could_use_cudnn:
                frozen = [name for name, item in layer.named_parameters() if item.stop_gradient]
                if frozen:
                    found[path or type(layer).__name__] = frozen
    return found


def unsynchronised(models: Sequence[Any]) -> AbstractContextManager[Any]:
    """Keeps gradients in this process for the time of the context."""
    stack = ExitStack()
    for model in models:
        if isinstance(model, paddle.DataParallel):
            stack.enter_context(model.no_sync())
    return stack


def align_untrained(models: Sequence[Any]) -> None:
    """Gives every process the buffers of the first one, and what is kept as parameters without a gradient.

    The running statistics of a BatchNorm are such parameters.
    """
    for tensor in _untrained(models):
        dist.broadcast(tensor, 0)


@contextmanager
def aligned(models: Sequence[Any]) -> Iterator[None]:
    """Does so for the time of the context, and then gives each process its own again."""
    own = [(tensor, tensor.clone()) for tensor in _untrained(models)] if dist.get_rank() else []
    align_untrained(models)
    try:
        yield
    finally:
        for tensor, kept in own:
            tensor.set_value(kept)


def _untrained(models: Sequence[Any]) -> list[Any]:
    tensors = [tensor for model in models for tensor in model.state_dict().values()]
    return [tensor for tensor in tensors if tensor.stop_gradient and _state.has_content(tensor)]


def spawn(function: Callable[..., Any], nprocs: int, args: Sequence[Any] = ()) -> None:
    """Runs ``function(*args)`` in ``nprocs`` processes on this machine, as paddle's launcher would start them.

    Args:
        function: a function that can be imported, since each process starts afresh.
        nprocs: how many processes.
        args: what it gets.

    Raises:
        ConfigError: ``nprocs`` is no positive int.
        Exception: one of them failed; the others were ended.
    """
    check_process_count(nprocs)
    backend = "nccl" if paddle.device.is_compiled_with_cuda() and paddle.device.cuda.device_count() else "gloo"
    start: Any = dist.spawn  # annotated without the options that it documents
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Your model will be trained under CPUONLY mode")  # as it was meant
        spawned = start(run_spawned, args=(function, tuple(args)), nprocs=nprocs, backend=backend, join=False)
    wait_for_spawned(spawned)

"""Several processes on PaddlePaddle: paddle.distributed and its DataParallel, the data-parallel part of fleet.

Who launches the processes (python -m paddle.distributed.launch, ``spawn`` below) sets PADDLE_TRAINER_ID,
PADDLE_TRAINERS_NUM and the endpoints in their environment; nothing here asks for more.
"""

from __future__ import annotations

import atexit
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

import paddle
import paddle.distributed as dist
from paddle.distributed.parallel import sync_params_buffers
from paddle.nn.layer.rnn import RNNBase

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

from . import _arrays
from ._names import named_parameters

# The parameters of a model call each reducer that was made for them in every backward pass, and the process crashes
# where that is gone. So reducers live as long as the model does, each with its settings and its parameters, and serve
# again where the same are asked for. One that was not made ready does nothing when it is called.
_reducers: WeakKeyDictionary[paddle.nn.Layer, list[tuple[bool, list[Any], Any]]] = WeakKeyDictionary()


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
    """Has an exception of this process printed where paddle's launcher shows it, with the process's number.

    The launcher shows the output of its first process as it comes, and at the end that of the first one that it finds
    failed: seldom the one that failed first, since the others follow at once.
    """
    shown = Path(os.environ.get("PADDLE_LOG_DIR", ""), "workerlog.0")
    rank, local_rank, _ = from_environment()
    if not shown.is_file():
        return
    show_here = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        trouble = "".join(traceback.format_exception_only(kind, error))
        heading = f"Process {rank} failed{', since another one is gone' if is_consequence(trouble) else ''}:\n"
        if local_rank:
            text = heading + "".join(traceback.format_exception(kind, error, trace))
            with suppress(OSError), shown.open("a", encoding="utf-8") as file:
                file.write(text)
        sys.stderr.write(heading)
        show_here(kind, error, trace)

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


class Replica(_Replica, paddle.nn.Layer):
    """What stands for a model whose gradients are averaged over the processes."""


class PaddleExchange(Exchange):
    """The exchange of one model's gradients by the reducer of DataParallel."""

    def __init__(self, model: paddle.nn.Layer, find_unused: bool) -> None:
        super().__init__(model, find_unused)
        self._reducer: Any = None

    def named_parameters(self) -> Iterable[tuple[str, Any]]:
        return named_parameters(self.model)

    def wants_gradient(self, parameter: Any) -> bool:
        return not parameter.stop_gradient

    def set_trained(self, parameter: Any, trained: bool) -> None:
        parameter.stop_gradient = not trained

    def is_recording(self) -> bool:
        return bool(paddle.is_grad_enabled())

    def connect(self) -> None:
        known = _reducers.setdefault(self.model, [])
        for find_unused, parameters, reducer in known:
            if find_unused == self.find_unused and _same(parameters, self.parameters):
                sync_params_buffers(self.model, fuse_params=False)  # as in making a new one
                self._reducer = reducer
                return
        if known and self._sparse():
            raise UnsupportedError(
                "PaddlePaddle can't exchange other gradients of a model with an Embedding(sparse=True): the process "
                "would crash. Freeze and unfreeze it before set_models, or make it with sparse=False."
            )
        # What fleet.distributed_model makes for data parallelism; said directly, since find_unused_parameters is a
        # setting of the whole job there and of a model here.
        self._reducer = paddle.DataParallel(self.model, find_unused_parameters=self.find_unused)._reducer
        known.append((self.find_unused, list(self.parameters), self._reducer))
        if not self.find_unused:
            self._use_all()

    def _use_all(self) -> None:
        """Has the reducer see one backward pass with a gradient, of zero, for each parameter.

        By itself it takes those that its first pass leaves out for unused in all passes to come: and that first pass
        may be of a loss that this model has no part in.
        """
        before = [item.grad for item in self.parameters]
        for item in self.parameters:
            item.clear_gradient(False)
        sparse = self._sparse()
        with paddle.enable_grad():
            first = paddle.zeros([1], "int64")
            parts = [
                paddle.nn.functional.embedding(first, item, sparse=True) if id(item) in sparse else item
                for item in self.parameters
            ]
            zero = paddle.add_n([(part.flatten()[:1].astype("float32") * 0.0) for part in parts])
        self._reducer.prepare_for_backward([zero])
        zero.backward()
        for item, gradient in zip(self.parameters, before, strict=True):
            item.clear_gradient(False)
            if gradient is not None:
                item.grad = gradient

    def _sparse(self) -> set[int]:
        """The ids of the parameters whose gradients are sparse, and for which an idle reducer crashes."""
        layers = self.model.sublayers(include_self=True)
        return {id(item.weight) for item in layers if isinstance(item, paddle.nn.Embedding) and item._sparse}

    def forward(self, *inputs: Any, **named: Any) -> Any:
        outputs = self.model(*inputs, **named)
        if self.synchronised:
            self._prepare(list(_tensors(outputs)))
        return outputs

    def prepare_backward(self, loss: Any) -> None:
        self._prepare([loss])

    def _prepare(self, outputs: list[Any]) -> None:
        try:
            self._reducer.prepare_for_backward(outputs)
        except RuntimeError as error:
            if _UNFINISHED not in str(error):
                raise
            raise unused_parameters(None) from error

    def attributes(self) -> dict[str, Any]:
        return {"_layers": self.model, "no_sync": self.no_sync}


# What the reducer says when the backward pass before left a parameter out.
_UNFINISHED = "Expected groups_need_finalize_ == false"


def _same(some: Sequence[Any], others: Sequence[Any]) -> bool:
    return len(some) == len(others) and all(one is other for one, other in zip(some, others, strict=True))


def _tensors(outputs: Any) -> Iterator[Any]:
    if isinstance(outputs, paddle.Tensor):
        yield outputs
    elif isinstance(outputs, (list, tuple)):
        for item in outputs:
            yield from _tensors(item)
    elif isinstance(outputs, dict):
        yield from _tensors(list(outputs.values()))


def replicate(exchange: PaddleExchange) -> Replica:
    """What stands for the model of an exchange."""
    return _replicate(Replica, paddle.nn.Layer, exchange)


def check_used(exchanges: Sequence[Exchange]) -> None:
    """Refuses a backward pass that has left parameters without a gradient, which the reducers would wait for.

    Raises:
        SetupError: there are some, and ``find_unused_parameters`` is not set.
    """
    for exchange in exchanges:
        if not exchange.find_unused:
            unused = [
                path for path, item in zip(exchange.names, exchange.parameters, strict=True) if item.grad_ is None
            ]
            # With no gradient at all it was the loss of another model.
            if unused and len(unused) < len(exchange.names):
                raise unused_parameters(unused)


def backward(loss: paddle.Tensor, models: Iterable[paddle.nn.Layer]) -> None:
    """Computes gradients, which the reducers of replicated models exchange on the way.

    Raises:
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
    return [tensor for tensor in tensors if tensor.stop_gradient and _arrays.has_content(tensor)]


def spawn(function: Callable[..., Any], nprocs: int, args: Sequence[Any] = ()) -> None:
    """Runs ``function(*args)`` in ``nprocs`` processes on this machine, as paddle's launcher would start them.

    Args:
        function: a function that can be imported, since each process starts afresh.
        nprocs: how many processes.
        args: what it gets.

    Raises:
        ConfigError: ``nprocs`` is no positive int.
        RuntimeError: one of them failed; the others were ended.
    """
    check_process_count(nprocs)
    backend = "nccl" if paddle.device.is_compiled_with_cuda() and paddle.device.cuda.device_count() else "gloo"
    start: Any = dist.spawn  # annotated without the options that it documents

    def launch(work: Work) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Your model will be trained under CPUONLY mode")  # as it was meant
            return start(run_spawned, args=(work,), nprocs=nprocs, backend=backend, join=False)

    wait_for_spawned(launch, function, args, _error)


def _error(failure: ProcessFailure) -> Exception:
    return RuntimeError(failure.text)

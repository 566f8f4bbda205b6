"""PaddlePaddle's workers: how they are started, what they send, and how they are waited for."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import paddle
from paddle.io import DataLoader, get_worker_info
from paddle.io.dataloader import worker as native_worker
from paddle.io.dataloader.flat import _flatten_batch

from dowdyboy_core.backend import Failure, Workers, map_leaves, wait_until_still

_PATIENCE = 5.0
"""Seconds to wait for each worker that is told to end."""


class PaddleWorkers(Workers):
    """Those of a DataLoader with the settings of another one."""

    def __init__(self, loader: DataLoader) -> None:
        self.count = loader.num_workers
        self.persistent = loader._persistent_workers
        self.timeout = loader.timeout
        self.init = loader.worker_init_fn
        self._settings: dict[str, Any] = {
            name: getattr(loader, name)
            for name in (
                "places",
                "num_workers",
                "use_buffer_reader",
                "reader_buffer_size",
                "prefetch_factor",
                "use_shared_memory",
                "timeout",
            )
            if hasattr(loader, name)  # reader_buffer_size came with PaddlePaddle 3.3
        }
        self._settings["persistent_workers"] = self.persistent

    def build(
        self, dataset: Any, batch_sampler: Any, collate: Callable[[Any], Any], begin: Callable[[int], None]
    ) -> _Unpacked:
        packed: Any = _Packed(collate)
        settings = {**self._settings, "worker_init_fn": begin}
        return _Unpacked(DataLoader(dataset, batch_sampler=batch_sampler, collate_fn=packed, **settings))

    def build_stream(
        self, loader: DataLoader, dataset: Any, collate: Callable[[Any], Any], begin: Callable[[int], None]
    ) -> _Unpacked:
        """A native loader over a dataset without indices, read in batches as ``loader`` has them."""
        # PaddlePaddle waits without end for the second epoch of a stream whose workers persist.
        settings: dict[str, Any] = {**self._settings, "persistent_workers": False, "worker_init_fn": begin}
        packed: Any = _Packed(collate)
        size: Any = loader.batch_size  # annotated as an int, though None is accepted
        return _Unpacked(
            DataLoader(dataset, batch_size=size, drop_last=loader.drop_last, collate_fn=packed, **settings)
        )

    def end(self, batches: _UnpackedBatches, *, now: bool) -> None:
        if now:
            core: Any = paddle.base.core
            core._erase_process_pids(id(batches.native))  # or PaddlePaddle would raise an error for each
            for process in batches.native._workers:
                process.kill()
        # Letting go is not enough: a thread of the iterator reads on, and holds it. Who is stuck is not waited for.
        batches.native._try_shutdown_all(timeout=_PATIENCE)

    def processes(self, batches: _UnpackedBatches) -> Sequence[Any]:
        return batches.native._workers  # type: ignore[no-any-return]

    def awaited(self, batches: _UnpackedBatches) -> int | None:
        task = batches.native._task_infos.get(batches.native._rcvd_idx)
        return task[0] if task else None

    def interrupt(self, batches: _UnpackedBatches) -> None:
        # PaddlePaddle takes the timeout for a pace to look around at, and waits on. Where the workers that persist are
        # to begin again, it waits for one that is no more, too.
        batches.native._exit_thread_unexpectedly()
        batches.native._resume_worker_cnt = 0

    @classmethod
    def tell(cls, dataset: Any) -> None:
        info: Any = get_worker_info()
        native: Any = native_worker
        native._worker_info = native_worker.WorkerInfo(
            id=info.id, num_workers=info.num_workers, dataset=dataset, seed=info.seed
        )

    @classmethod
    def substitute(cls, sent: Any, failure: Failure) -> Any:
        if not isinstance(sent, tuple) or len(sent) != 3 or not isinstance(sent[0], int):
            return None
        arrays, structure = _flatten_batch(_pack(failure))
        return sent[0], [_dense(array) for array in arrays] if isinstance(sent[1], list) else arrays, structure

    @classmethod
    def dumps(cls, value: Any) -> bytes:
        buffer = io.BytesIO()
        _Pickler(buffer).dump(value)
        return buffer.getvalue()


class _Pickler(ForkingPickler):
    """Sends tensors as arrays: what PaddlePaddle's own way makes of them crashes in the process that gets them."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        kinds = (paddle.Tensor, paddle.base.framework.EagerParamBase)
        table: Any = self.dispatch_table  # a copy of this pickler's own
        table.update(dict.fromkeys(kinds, _reduce))


def _reduce(tensor: paddle.Tensor) -> tuple[Any, ...]:
    return _tensor, (*_array(tensor), tensor.stop_gradient)


def _array(tensor: paddle.Tensor) -> tuple[Any, str]:
    """The values of a tensor, and the name of its type, which NumPy may not have."""
    return tensor.detach().numpy(), str(tensor.dtype).removeprefix("paddle.")


def _tensor(array: Any, kind: str, stop_gradient: bool) -> paddle.Tensor:
    return _as_it_was(paddle.to_tensor(array), kind, stop_gradient)


def _as_it_was(tensor: paddle.Tensor, kind: str, stop_gradient: bool) -> paddle.Tensor:
    if str(tensor.dtype) != f"paddle.{kind}":
        of_kind: Any = kind
        tensor = tensor.view(of_kind)
    if not stop_gradient:
        tensor.stop_gradient = False
    return tensor


def _dense(array: Any) -> Any:
    tensor = paddle.base.core.DenseTensor()
    tensor.set(array, paddle.CPUPlace())
    return tensor


class _Slot:
    """Stands for a tensor in the shape of a batch, and says what it was."""

    def __init__(self, number: int, kind: str, stop_gradient: bool) -> None:
        self.number = number
        self.kind = kind
        self.stop_gradient = stop_gradient


class _Empty:
    """Stands for a tensor without elements, which PaddlePaddle's queue loses the type and shape of."""

    def __init__(self, array: Any, kind: str, stop_gradient: bool) -> None:
        self.array = array
        self.kind = kind
        self.stop_gradient = stop_gradient


class _Shape:
    """A batch with slots for its tensors. Workers send arrays and shape apart: sent whole, types would be lost."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch


def _pack(batch: Any) -> list[Any]:
    """Gives the values of the tensors and arrays of a batch, then its shape.

    A tensor itself would leave a worker with other values: its memory is handed to a thread, and used again before that
    has sent it.
    """
    arrays: list[Any] = []

    def take_out(leaf: Any) -> Any:
        if isinstance(leaf, paddle.Tensor):
            array, kind = _array(leaf)
            stop_gradient = bool(leaf.stop_gradient)
        elif isinstance(leaf, np.ndarray) and leaf.dtype in _SENT:
            array, kind, stop_gradient = leaf, _SENT[leaf.dtype], True
        else:
            return leaf
        if not array.size:
            return _Empty(array, kind, stop_gradient)
        arrays.append(np.ascontiguousarray(array).reshape(array.shape))
        return _Slot(len(arrays) - 1, kind, stop_gradient)

    shape = _Shape(map_leaves(take_out, batch))
    # The queue between the processes wants at least one array.
    return [*arrays, np.zeros(1, np.int8), shape]


_SENT: dict[Any, str] = {
    np.dtype(name): name
    for name in (
        "float16",
        "float32",
        "float64",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "bool",
        "complex64",
        "complex128",
    )
} | {np.dtype("uint16"): "bfloat16"}
"""The arrays that PaddlePaddle makes tensors of, and of which type; it takes uint16 for what NumPy lacks."""


class _Packed:
    """Collates, then takes the tensors out of the batch."""

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self._collate = collate

    def __call__(self, samples: Any) -> list[Any]:
        return _pack(self._collate(samples))


# Native iterators, as long as their threads live. A thread outlives its iteration by some seconds, and would free what
# has been read ahead, just when the next workers are forked maybe: PaddlePaddle counts its memory under a lock, which
# would stay locked in them. So what they hold is freed here, by whoever forks.
_kept: list[Any] = []


_REST = 0.05
"""Seconds that the threads of earlier iterations have to come to rest in."""


def _start(loader: DataLoader) -> Any:
    """Starts an iteration, and its workers where they don't persist."""
    wait_until_still(_REST)  # who moves tensors right now has that lock
    native: Any = iter(loader)
    _kept[:] = [item for item in _kept if item._thread.is_alive() and item is not native] + [native]
    return native


class _Unpacked:
    """Puts the tensors back into the batches."""

    def __init__(self, loader: DataLoader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        return _UnpackedBatches(_start(self._loader))


class _UnpackedBatches:
    """The batches of one iteration."""

    def __init__(self, native: Any) -> None:
        self.native = native

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return _put_back(next(self.native))


def _put_back(packed: list[Any]) -> Any:
    *tensors, _, shape = packed

    def restored(leaf: Any) -> Any:
        if isinstance(leaf, _Slot):
            return _as_it_was(tensors[leaf.number], leaf.kind, leaf.stop_gradient)
        return _tensor(leaf.array, leaf.kind, leaf.stop_gradient) if isinstance(leaf, _Empty) else leaf

    return map_leaves(restored, shape.batch)

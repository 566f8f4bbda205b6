"""PyTorch's workers: how they are started, what they send, and how they are waited for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data._utils import signal_handling
from torch.utils.data._utils import worker as native_worker

from dowdyboy_core.backend import Failure, Workers


class TorchWorkers(Workers):
    """Those of a DataLoader with the settings of another one."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.count = loader.num_workers
        self.persistent = loader.persistent_workers
        self.timeout = loader.timeout
        self.init = loader.worker_init_fn
        self._settings: dict[str, Any] = {
            "num_workers": loader.num_workers,
            "pin_memory": loader.pin_memory,
            "timeout": loader.timeout,
            "multiprocessing_context": loader.multiprocessing_context,
            "prefetch_factor": loader.prefetch_factor,
            "persistent_workers": loader.persistent_workers,
        }

    def build(
        self, dataset: Any, batch_sampler: Any, collate: Callable[[Any], Any], begin: Callable[[int], None]
    ) -> DataLoader[Any]:
        settings: dict[str, Any] = {**self._settings, "worker_init_fn": begin}
        return DataLoader(dataset, batch_sampler=batch_sampler, collate_fn=collate, **settings)

    def end(self, batches: Any, *, now: bool) -> None:
        if now:
            native: Any = signal_handling
            native._remove_worker_pids(id(batches))  # or PyTorch would raise an error for each
            batches._worker_pids_set = False
            for process in batches._workers:
                process.kill()
        batches._shutdown_workers()

    def processes(self, batches: Any) -> Sequence[Any]:
        return batches._workers  # type: ignore[no-any-return]

    def awaited(self, batches: Any) -> int | None:
        task = batches._task_info.get(batches._rcvd_idx)
        return task[0] if task else None

    @classmethod
    def tell(cls, dataset: Any) -> None:
        info: Any = get_worker_info()
        native_worker._worker_info = replace(info, dataset=dataset)

    @classmethod
    def substitute(cls, sent: Any, failure: Failure) -> Any:
        is_batch = isinstance(sent, tuple) and len(sent) == 2 and isinstance(sent[0], int)
        return (sent[0], failure) if is_batch else None

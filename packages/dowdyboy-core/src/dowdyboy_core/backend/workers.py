"""Workers of a loader: what they begin with, and what they read with."""

from __future__ import annotations

import multiprocessing.queues
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any

from dowdyboy_core._errors import SetupError

from .reports import Reports
from .sent_errors import Failure
from .worker_signals import WorkerInit


class Workers(ABC):
    """What a backend says of the workers of one native loader.

    Attributes:
        count: how many there are.
        persistent: whether they stay for the next epoch.
        timeout: seconds after which the user has a wait for a batch end the run; 0 for never.
        init: what the user has a worker begin with, or None.
    """

    count: int
    persistent: bool = False
    timeout: float = 0
    init: Callable[[int], Any] | None = None

    @abstractmethod
    def build(
        self, dataset: Any, batch_sampler: Any, collate: Callable[[Any], Any], begin: Callable[[int], None]
    ) -> Iterable[Any]:
        """A native loader with as many workers and the same settings, in which each begins with ``begin``.

        Args:
            dataset: is to be read by what ``batch_sampler`` yields.
            batch_sampler: yields what is read as one batch, in order; worker by worker, round and round.
            collate: makes a batch.
            begin: takes the number of the worker, instead of what the user's loader has it begin with.
        """

    @abstractmethod
    def end(self, batches: Any, *, now: bool) -> None:
        """Ends the workers of an iterator of that loader that was not read to its end.

        Args:
            batches: the iterator.
            now: kill them, and don't wait for them; they don't answer.
        """

    @abstractmethod
    def processes(self, batches: Any) -> Sequence[Any]:
        """The workers of an iterator, as multiprocessing has them."""

    def awaited(self, batches: Any) -> int | None:
        """The number of the worker whose batch is the next; None if nobody knows."""
        return None

    def interrupt(self, batches: Any) -> None:  # noqa: B027 # there may be nothing to do
        """Has whoever waits for the next batch get an error; for native loaders that would wait on without end.

        It is called from another thread, when a worker is no more or has taken longer than ``timeout``.
        """

    @classmethod
    @abstractmethod
    def tell(cls, dataset: Any) -> None:
        """Has the framework tell a worker, in it, that this is the dataset that it reads."""

    @classmethod
    def when_unsendable(cls, failure_of: Callable[[Exception], Failure]) -> None:
        """Has a worker, in it, send a failure in the place of a batch that can't be pickled.

        Without this it would be dropped, and waited for without end.
        """
        queues: Any = multiprocessing.queues.Queue
        otherwise = queues._on_queue_feeder_error

        def refuse(queue: Any, error: Exception, sent: Any) -> None:
            instead = cls.substitute(sent, failure_of(error))
            if instead is None:
                otherwise(error, sent)
            else:
                queue.put(instead)

        queues._on_queue_feeder_error = refuse

    @classmethod
    def substitute(cls, sent: Any, failure: Failure) -> Any:
        """What a worker sends by its queue in the place of a batch; None if ``sent`` is no batch."""
        return None

    @classmethod
    def dumps(cls, value: Any) -> bytes:
        """What a worker that starts afresh is to read with, pickled."""
        return bytes(ForkingPickler.dumps(value))


def alike(one: Workers | None, other: Workers | None) -> bool:
    """Whether the workers that were started for one would do for the other."""
    if one is None or other is None:
        return one is other
    return type(one) is type(other) and vars(one) == vars(other)


class KeyDataset:
    """Stands in for the dataset in a native loader: gives back the key, since a :class:`Reader` does the reading."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, key: Any) -> Any:
        return key


class Reader(ABC):
    """Reads batches in a worker. It stands in for the collate function of a native loader.

    To a worker that starts afresh it is sent packed, and unpacked by the first thing that runs there, so that what
    can't be unpacked is told like any other error.

    Args:
        dataset: the user's, which ``worker_init_fn`` finds in the worker.
        workers: how it is sent; None where nobody else reads.
    """

    worker: int | None = None
    failure: Failure | None = None
    packed: bytes | None = None

    def __init__(self, dataset: Any, workers: Workers | None) -> None:
        self.dataset = dataset
        self.init = None if workers is None else workers.init
        self._dumps = Workers.dumps if workers is None else type(workers).dumps
        self._home = os.getpid()
        self.name = "a worker"

    def __reduce__(self) -> tuple[Any, ...]:
        state = {key: value for key, value in self.__dict__.items() if key != "_dumps"}
        return _receive, (type(self), self.packed or self._dumps(state))

    def unpack(self) -> None:
        """Takes up what was sent, if that has not been done yet."""
        packed, self.packed = self.packed, None
        if packed is not None:
            # From the process that has started this one, by a pipe.
            self.__dict__.update(ForkingPickler.loads(packed))

    def __call__(self, keys: list[Any]) -> Any:
        """Gives the batch of the one key in ``keys``; in a worker a :class:`Failure`, if that can't be read."""
        if self.packed is not None:
            self.unpack()
        (key,) = keys
        if os.getpid() == self._home:
            return self.read_here(key)
        if self.failure is not None:
            return self.failure
        try:
            return self.read(key)
        except BaseException as error:  # SystemExit, too: it would end the worker without a word
            return Failure(error, self.where())

    def where(self) -> str:
        """Names this worker."""
        return f"{self.name.format(self.worker)} (process {os.getpid()})"

    @abstractmethod
    def read(self, key: Any) -> Any:
        """Reads a batch in a worker, which has random streams to itself."""

    @abstractmethod
    def read_here(self, key: Any) -> Any:
        """Reads a batch in the process that trains."""


def _receive(kind: type[Reader], packed: bytes) -> Reader:
    reader = kind.__new__(kind)
    reader.packed = packed
    return reader


class Begin:
    """What a worker of a loader begins with, in the place of the user's ``worker_init_fn``, which it calls.

    Args:
        reader: what reads there.
        kind: the backend's knowledge of its workers.
        reports: how the worker tells that it is up, and where it was when it crashed.
    """

    def __init__(self, reader: Reader, kind: type[Workers], reports: Reports) -> None:
        self._reader = reader
        self._kind = kind
        self._reports = reports

    def __call__(self, worker_id: int) -> None:
        """Runs in the worker, at its start."""
        reader = self._reader
        reader.worker = worker_id
        WorkerInit(None)(worker_id)
        self._reports.begin(worker_id)
        self._kind.when_unsendable(lambda error: Failure(unsendable(error, reader.where()), reader.where()))
        try:
            reader.unpack()
            self._kind.tell(reader.dataset)
            if reader.init is not None:
                reader.init(worker_id)
        except BaseException as error:
            reader.failure = Failure(error, reader.where())


def unsendable(error: Exception, who: str) -> SetupError:
    """The error for a batch that a worker has read and can't send."""
    who = who[:1].upper() + who[1:]
    told = SetupError(
        f"{who} can't send a batch: {type(error).__name__}: {error}. What workers read is pickled. "
        "Have the dataset and the collate function give tensors, arrays, numbers, texts and containers of these, or "
        "set num_workers=0."
    )
    told.__cause__ = error
    return told

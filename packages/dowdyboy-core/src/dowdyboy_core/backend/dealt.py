"""What a loader is made of: whom to tell the epoch, and who may have dealt out the data over the processes already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from dowdyboy_core._errors import SetupError

DECLARED = "dealt_out"
"""The attribute by which a user says that a loader, dataset or sampler gives each process its part, or doesn't."""

# How samplers and streams name the number of parts and that of their own.
_PAIRS = (
    ("num_replicas", "rank"),
    ("nranks", "local_rank"),
    ("world_size", "rank"),
    ("_world_size", "_rank"),
    ("num_processes", "process_index"),
    ("data_parallel_size", "data_parallel_rank"),
)

_SAMPLERS = ("batch_sampler", "sampler")
_DATASETS = ("dataset", "datasets", "_distributed")
_DEPTH = 8


@dataclass(frozen=True)
class Dealing:
    """How the data came to be dealt out.

    Attributes:
        dealer: the object that says so, as its kind.
        part: which part this process has; None where the user has declared it, and nothing is known.
    """

    dealer: str
    part: int | None


def tell_epoch(loader: Any, epoch: int) -> None:
    """Tells the epoch to the loader, its dataset, sampler and batch sampler, as far as they have ``set_epoch``.

    What lies inside one of them (the dataset of a subset, the sampler of a batch sampler) is told where that itself has
    no ``set_epoch`` to pass it on.
    """
    if isinstance(loader, (list, tuple)):  # of batches
        return
    told: set[int] = set()
    _tell(loader, epoch, told, _DEPTH)
    for name in (*_DATASETS, *_SAMPLERS):
        _tell(_attribute(loader, name), epoch, told, _DEPTH)
    if not _is_loader(loader):
        for inner in loaders_within(loader):
            tell_epoch(inner, epoch)


def _tell(thing: Any, epoch: int, told: set[int], depth: int) -> None:
    if thing is None or id(thing) in told or not depth:
        return
    told.add(id(thing))
    if isinstance(thing, (list, tuple)):
        for item in thing:  # the datasets of one that is put together
            if hasattr(item, "__dict__"):
                _tell(item, epoch, told, depth - 1)
        return
    set_epoch = _attribute(thing, "set_epoch")
    if callable(set_epoch):
        set_epoch(epoch)
    elif not _is_loader(thing):
        for name in (*_DATASETS, *_SAMPLERS):
            _tell(_attribute(thing, name), epoch, told, depth - 1)


def loaders_within(thing: Any) -> list[Any]:
    """The loaders that an object of the user's holds as its attributes."""
    return [item for item in getattr(thing, "__dict__", {}).values() if _is_loader(item)]


def find_dealing(
    loader: Any, samplers: Sequence[Any], streams: Sequence[Any], world_size: int
) -> Dealing | bool | None:
    """Whether the data comes dealt out.

    Args:
        loader: what the user gave.
        samplers: those that run as they are.
        streams: data that is read as it comes. (One that is read by index may know of the processes for other reasons.)
        world_size: the number of processes.

    Returns:
        How it is dealt out; False where the user says that it isn't; None where nothing says that it is.

    Raises:
        SetupError: it is dealt out for another number of processes.
    """
    for thing in _declaring(loader):
        declared = _attribute(thing, DECLARED)
        if isinstance(declared, bool):
            return Dealing(type(thing).__name__, None) if declared else False
    within = [_and_within(sampler, _SAMPLERS, _DEPTH) for sampler in samplers]
    within += [_and_within(stream, _DATASETS, _DEPTH) for stream in streams]
    for thing in chain.from_iterable(within):
        size, part = _pair_of(thing) or (1, 0)
        if size == 1:
            continue
        kind = type(thing).__name__
        if size != world_size:
            raise SetupError(
                f"{kind} deals out the data over {size} processes (it has part {part}), and there are {world_size}. "
                f"Make it for {world_size}, or set its attribute {DECLARED}=False if every process is given all."
            )
        return Dealing(kind, part)
    return None


def _declaring(loader: Any) -> Iterator[Any]:
    for thing in (loader, *loaders_within(loader)):
        yield from _and_within(thing, (*_SAMPLERS, *_DATASETS), _DEPTH)


def _and_within(thing: Any, names: Sequence[str], depth: int) -> Iterator[Any]:
    if thing is None or not depth or isinstance(thing, (list, tuple)):
        return
    yield thing
    for name in names:
        yield from _and_within(_attribute(thing, name), names, depth - 1)


def _pair_of(thing: Any) -> tuple[int, int] | None:
    for size_name, part_name in _PAIRS:
        size, part = _attribute(thing, size_name), _attribute(thing, part_name)
        if type(size) is int and type(part) is int:
            return size, part
    return None


def _attribute(thing: Any, name: str) -> Any:
    try:
        return getattr(thing, name, None)
    except Exception:  # a property of the user's that doesn't work yet, which only the user's own reading may need
        return None


def _is_loader(thing: Any) -> bool:
    return hasattr(type(thing), "__iter__") and hasattr(thing, "dataset") and hasattr(thing, "batch_sampler")

"""Whether all processes see the same data, or each of them its part: found out before anything waits for another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

from dowdyboy_core._errors import SetupError
from dowdyboy_core.backend.dealt import DECLARED, Dealing

Gather = Callable[[Any], list[Any]]

_WAYS = (
    f"If each process has its own part on purpose, say so: set the attribute {DECLARED}=True of the loader, its "
    "dataset or its sampler, and it is taken as it is. If all are to have the same data, make it the same (seed what "
    f"draws it, read the same files in the same order), or set {DECLARED}=False to go on all the same."
)


def check_same(role: str, gather: Gather, batches: int | None, seen: Sequence[str | None]) -> None:
    """Compares what the processes see of data that the trainer deals out.

    Args:
        role: of the loader.
        gather: brings together a value of each process.
        batches: how many there are in all; None if only running them tells.
        seen: digests of the first batch and of what it is made of, None for each that doesn't count.

    Raises:
        SetupError: they differ, in all processes.
    """
    found = gather((batches, list(seen)))
    counts = [item[0] for item in found]
    if any(number != counts[0] for number in counts):
        raise SetupError(
            f"The processes don't see the same {role} data: by process they count {_listed(counts)} batches in all. "
            f"{_WAYS}"
        )
    for digests in zip(*(item[1] for item in found), strict=True):
        known = [digest for digest in digests if digest is not None]
        if len(known) == len(found) and len(set(known)) > 1:
            others = [rank for rank, digest in enumerate(known) if digest != known[0]]
            raise SetupError(
                f"The processes don't see the same {role} data: the first batch of process {others[0]} is not that of "
                f"process 0. {_WAYS}"
            )


def check_parts(role: str, gather: Gather, dealing: Dealing, batches: int | None, seen: str | None) -> None:
    """Compares the parts that processes have of data that is dealt out already.

    Args:
        role: of the loader; only in training all need equally many batches.
        gather: brings together a value of each process.
        dealing: how it is dealt out.
        batches: how many this process has; None if only running them tells.
        seen: a digest of the first one; None where that was not looked at.

    Raises:
        SetupError: two have the same part, or the numbers differ, in all processes.
    """
    found = gather((dealing.part, seen, batches))
    parts, digests, counts = ([item[place] for item in found] for place in range(3))
    given = [part for part in parts if part is not None]
    if len(set(given)) < len(given):
        raise SetupError(
            f"{dealing.dealer} of the {role} loader deals out the data, but by process the parts are {_listed(parts)}. "
            f"Give each process its own, or set its attribute {DECLARED}=False if every process is given all."
        )
    if None not in digests and len(set(digests)) == 1:
        raise SetupError(
            f"{dealing.dealer} of the {role} loader knows of the processes, but gives all the same first batch. "
            f"Set the attribute {DECLARED}=False of it if every process is given all the data, which the trainer then "
            f"deals out, or {DECLARED}=True if these are parts all the same."
        )
    if role == "train" and None not in counts and len(set(counts)) > 1:
        raise uneven(dealing.dealer, counts)


def in_rounds(
    batches: Iterator[Any],
    start: int,
    gather: Gather,
    largest: Callable[[Sequence[int]], Sequence[int]],
    dealer: str,
    done: int = 0,
    head: Callable[[int], list[Any]] | None = None,
) -> Iterator[Any]:
    """Yields a process's part of a stream in training, in rounds that all processes have; nobody knows its length.

    A last round that not all have a batch for is filled up: who has none takes its first one again.

    Args:
        batches: all of this process in an epoch.
        start: how many rounds are done and left out.
        gather: brings together a value of each process.
        largest: gives for each place the largest of the numbers that the processes give.
        dealer: what to call the stream in an error.
        done: how many rounds came before ``batches``.
        head: gives the first so many of all, where ``batches`` doesn't begin with them.

    Raises:
        SetupError: a process has at least two batches more than another one, or one has none.
    """
    first: list[Any] = []
    given, filled, none = done, False, object()
    for place in count(done):
        batch = next(batches, none)
        there = batch is not none
        given += there
        if there and not first and not done:
            first.append(batch)
        if place >= start:
            ended, going, over = largest((not there, there, filled))
            if not going:
                return
            if ended and (over or not place):
                raise uneven(dealer, gather(given))
            filled = bool(ended)
        elif not there:
            filled = True
        if place >= start:
            if not there and done and head is not None:
                first = head(1)
            yield batch if there else first[0]


def uneven(dealer: str, counts: Sequence[int]) -> SetupError:
    """The error where the processes would wait for one another."""
    return SetupError(
        f"{dealer} of the train loader gives the processes unequal numbers of batches: {_listed(counts)}, by "
        "process. Every step needs all of them: leave out what is too much, or repeat some."
    )


def _listed(values: Sequence[Any]) -> str:
    return ", ".join("unknown" if value is None else str(value) for value in values)

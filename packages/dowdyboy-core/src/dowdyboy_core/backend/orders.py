"""The order of an epoch: a function of (seed, epoch) alone, and so the same on every framework.

An *order* yields the sample indices of an epoch; a *batching* cuts an order into batches of indices.
Both are pure: asking twice gives the same answer, and no global random stream is touched.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import TYPE_CHECKING, Any

from dowdyboy_core._errors import SetupError
from dowdyboy_core.rand import derive_seed

if TYPE_CHECKING:
    import numpy as np

Isolate = Callable[[int], AbstractContextManager[None]]
"""Runs a block with every random stream seeded, and puts the streams back afterwards."""


class Order(ABC):
    """The sample indices of an epoch."""

    @abstractmethod
    def __len__(self) -> int:
        """How many indices an epoch has."""

    @abstractmethod
    def indices(self, seed: int, epoch: int) -> Sequence[Any]:
        """The indices of one epoch, in order."""

    def start(self, seed: int, epoch: int) -> Iterator[Any]:
        """The same, asked for one by one; the caller cares for the random streams."""
        return iter(_plain(self.indices(seed, epoch)))

    def samplers(self) -> Sequence[Any]:
        """The user's own samplers that it asks."""
        return ()


def _generator(seed: int, epoch: int) -> np.random.Generator:
    import numpy as np

    # PCG64 is named, not left to default_rng, so that a later numpy can't change an epoch's order.
    return np.random.Generator(np.random.PCG64(derive_seed(seed, "order", epoch)))


class SequentialOrder(Order):
    """0, 1, …, size-1."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size

    def indices(self, seed: int, epoch: int) -> Sequence[int]:
        """Gives a range: nothing is stored."""
        return range(self._size)


class ShuffledOrder(Order):
    """A permutation of 0 … size-1; with ``count`` another number of draws, repeated passes if it is larger."""

    def __init__(self, size: int, count: int | None = None, replacement: bool = False) -> None:
        self._size = size
        self._count = size if count is None else count
        self._replacement = replacement

    def __len__(self) -> int:
        return self._count

    def indices(self, seed: int, epoch: int) -> Sequence[int]:
        """Gives an int64 array of shape (count,)."""
        import numpy as np

        generator = _generator(seed, epoch)
        if self._replacement:
            drawn: Any = generator.integers(0, self._size, self._count)
            return drawn  # type: ignore[no-any-return]
        passes = -(-self._count // self._size) if self._size else 0
        if passes == 1:
            shuffled: Any = generator.permutation(self._size)[: self._count]
        else:
            parts = [generator.permutation(self._size) for _ in range(passes)]
            shuffled = np.concatenate([*parts, np.empty(0, np.int64)])[: self._count].astype(np.int64)
        return shuffled  # type: ignore[no-any-return]


class WeightedOrder(Order):
    """``count`` indices drawn with probability proportional to ``weights``."""

    def __init__(self, weights: Any, count: int, replacement: bool = True) -> None:
        import numpy as np

        self._weights = np.asarray(weights, dtype=np.float64)
        self._count = count
        self._replacement = replacement

    def __len__(self) -> int:
        return self._count

    def indices(self, seed: int, epoch: int) -> Sequence[int]:
        """Gives an int64 array of shape (count,)."""
        chances = self._weights / self._weights.sum()
        generator = _generator(seed, epoch)
        drawn: Any = generator.choice(len(chances), self._count, self._replacement, chances)
        return drawn  # type: ignore[no-any-return]


_LEAST, _TIMES = 2**20, 8
"""A sampler without a length that yields more indices than the first, and as many times the samples, has no end."""


class SamplerOrder(Order):
    """What a sampler of the user's own yields, run with every random stream seeded for the epoch.

    Args:
        sampler: the sampler, or a batch sampler.
        isolate: seeds the streams, and puts them back.
        reseed: seeds the generators that a sampler carries.
        data: what the indices are of.
        batched: whether it yields lists of indices.
    """

    def __init__(
        self,
        sampler: Any,
        isolate: Isolate,
        reseed: Callable[[Any, int], None],
        data: Any = None,
        batched: bool = False,
    ) -> None:
        self._sampler = sampler
        self._isolate = isolate
        self._reseed = reseed
        self._data = data
        self._batched = batched

    def __len__(self) -> int:
        return len(self._sampler)

    def samplers(self) -> Sequence[Any]:
        """The one sampler."""
        return (self._sampler,)

    def indices(self, seed: int, epoch: int) -> Sequence[Any]:
        """Gives the list of what the sampler yields.

        Raises:
            SetupError: it doesn't come to an end.
        """
        epoch_seed = derive_seed(seed, "order", epoch)
        with self._isolate(epoch_seed):
            self._reseed(self._sampler, epoch_seed)
            return self._drawn()

    def start(self, seed: int, epoch: int) -> Iterator[Any]:
        """Starts the sampler, which may go on without an end."""
        self._reseed(self._sampler, derive_seed(seed, "order", epoch))
        return (list(item) if self._batched else item for item in self._sampler)

    def _drawn(self) -> list[Any]:
        length, size = known_length(self._sampler), known_length(self._data) or 0
        # What it says of itself is not binding, as in the frameworks' own loaders, but tells what to expect.
        most = max(_LEAST, _TIMES * size) if length is None else max(1024, _TIMES * length)
        drawn, number = [], 0
        for item in self._sampler:
            drawn.append(list(item) if self._batched else item)
            number += max(1, len(drawn[-1])) if self._batched and length is None else 1
            if number > most:
                raise SetupError(self._endless(number, length, size))
        return drawn

    def _endless(self, number: int, length: int | None, size: int) -> str:
        kind = type(self._sampler).__name__
        what = "batches" if self._batched and length is not None else "indices"
        known = f"and has no length (the data has {size} samples)" if length is None else f"with a length of {length}"
        return (
            f"{kind} has given {number} {what} for one epoch {known}, and goes on: it seems to have no end. "
            "An epoch ends with its sampler: have it stop after one pass over the data, or give it a __len__ that says "
            "how much comes."
        )


class Batching(ABC):
    """The batches of an epoch, each a list of indices (or one index, where the data comes batched)."""

    @abstractmethod
    def count(self) -> int | None:
        """How many batches an epoch has; None if only running it tells."""

    @abstractmethod
    def batches(self, seed: int, epoch: int) -> Iterator[Any]:
        """The batches of one epoch, in order."""

    def draw(self, seed: int, epoch: int) -> DrawnBatches:
        """The same, drawn once, so that their number is known however often they are gone through."""
        drawn = list(self.batches(seed, epoch))
        return DrawnBatches(len(drawn), drawn.__iter__)

    def start(self, seed: int, epoch: int) -> Iterator[Any]:
        """The same, each drawn when it is asked for; the caller cares for the random streams."""
        return self.batches(seed, epoch)

    def samplers(self) -> Sequence[Any]:
        """The user's own samplers that it asks."""
        return ()


class DrawnBatches(Batching):
    """The batches of one epoch, whichever is asked for."""

    def __init__(self, number: int, start: Callable[[], Iterator[Any]]) -> None:
        self._number = number
        self._start = start

    def count(self) -> int:
        """How many there are."""
        return self._number

    def batches(self, seed: int, epoch: int) -> Iterator[Any]:
        """Yields what was drawn."""
        return self._start()


class FixedSizeBatches(Batching):
    """Cuts an order into batches of ``batch_size``; the short last one stays unless ``drop_last``."""

    def __init__(self, order: Order, batch_size: int, drop_last: bool) -> None:
        self._order = order
        self._size = batch_size
        self._drop_last = drop_last

    def count(self) -> int | None:
        """Samples over batch size, rounded down with ``drop_last`` and up without."""
        length = known_length(self._order)
        if length is None:
            return None
        return length // self._size if self._drop_last else -(-length // self._size)

    def batches(self, seed: int, epoch: int) -> Iterator[Any]:
        """Yields lists of indices."""
        return self.draw(seed, epoch).batches(seed, epoch)

    def draw(self, seed: int, epoch: int) -> DrawnBatches:
        """Draws the order, and cuts it where it is read."""
        indices = self._order.indices(seed, epoch)
        end = len(indices) - len(indices) % self._size if self._drop_last else len(indices)
        starts = range(0, end, self._size)
        return DrawnBatches(
            len(starts), lambda: (_plain(indices[start : min(start + self._size, end)]) for start in starts)
        )

    def start(self, seed: int, epoch: int) -> Iterator[Any]:
        """Cuts the order while it is drawn."""
        indices = self._order.start(seed, epoch)
        while batch := list(islice(indices, self._size)):
            if len(batch) < self._size and self._drop_last:
                return
            yield batch

    def samplers(self) -> Sequence[Any]:
        """That of the order."""
        return self._order.samplers()


class SingleIndices(Batching):
    """One index at a time, for datasets whose items are whole batches already."""

    def __init__(self, order: Order) -> None:
        self._order = order

    def count(self) -> int | None:
        """One batch an index."""
        return known_length(self._order)

    def batches(self, seed: int, epoch: int) -> Iterator[Any]:
        """Yields indices."""
        yield from _plain(self._order.indices(seed, epoch))

    def start(self, seed: int, epoch: int) -> Iterator[Any]:
        """Yields indices while they are drawn."""
        return self._order.start(seed, epoch)

    def samplers(self) -> Sequence[Any]:
        """That of the order."""
        return self._order.samplers()


class SampledBatches(Batching):
    """What a batch sampler of the user's own yields."""

    def __init__(
        self, batch_sampler: Any, isolate: Isolate, reseed: Callable[[Any, int], None], data: Any = None
    ) -> None:
        self._order = SamplerOrder(batch_sampler, isolate, reseed, data, batched=True)

    def count(self) -> int | None:
        """Its length, where it has one."""
        return known_length(self._order)

    def batches(self, seed: int, epoch: int) -> Iterator[Any]:
        """Yields lists of indices."""
        yield from self._order.indices(seed, epoch)

    def start(self, seed: int, epoch: int) -> Iterator[Any]:
        """Yields batches while they are drawn."""
        return self._order.start(seed, epoch)

    def samplers(self) -> Sequence[Any]:
        """The batch sampler."""
        return self._order.samplers()


def known_length(thing: Any) -> int | None:
    """The length of anything, None where it has none or doesn't know it."""
    try:
        return len(thing)
    except (TypeError, NotImplementedError, ValueError, RuntimeError):  # as frameworks say it of data without indices
        return None


def _plain(indices: Any) -> list[Any]:
    """Python ints, since a dataset may use an index as a key or in a file name."""
    return indices.tolist() if hasattr(indices, "tolist") else list(indices)

"""Randomness: seeding, seeds derived from seeds, and the roulette wheel."""

from __future__ import annotations

import bisect
import itertools
import math
import numbers
import operator
import random
import reprlib
from collections.abc import Callable, Iterable, Mapping, Set
from hashlib import blake2b

from ._errors import ConfigError

__all__ = ["derive_seed", "set_seed", "wheel_rand_index", "wheel_ratio"]


def set_seed(seed: int) -> None:
    """Seed Python's ``random`` and numpy's global generator, so that what they draw next repeats.

    Python takes the seed as it is. numpy's global generator takes 32 bits: it gets ``seed % 2**32``.

    Args:
        seed: An integer of at least 0.

    Raises:
        ConfigError: ``seed`` is not such an integer.
    """
    try:
        number = -1 if isinstance(seed, bool) else operator.index(seed)
    except TypeError:
        number = -1
    # random.seed takes the absolute value: -1 and 1 would silently be one seed.
    if number < 0:
        raise ConfigError(f"seed={seed!r} is not an integer of at least 0.")
    import numpy as np

    random.seed(number)
    np.random.seed(number % 2**32)


def derive_seed(seed: int | str, *keys: int | str) -> int:
    """A seed of its own for every purpose: 0 to 2**63 - 1, a pure function of ``seed`` and ``keys``.

    The value is the same on every machine and in every process, and is kept over versions. Seeds of different
    keys are unrelated: ``derive_seed(0, "epoch", 1)`` tells nothing of ``derive_seed(0, "epoch", 2)``.

    It is the first 63 bits of BLAKE2b (RFC 7693, digest of 8 bytes, read big-endian) of the UTF-8 text that
    strings together ``i<decimal>;`` for an integer and ``s<length in characters>:<text>`` for a text. So 1
    and "1" differ, and so do ("a", "b") and ("ab",).

    Args:
        seed: The seed to start from.
        *keys: What the new seed is for, such as "epoch" and its number.

    Raises:
        ConfigError: A value is neither an integer nor a text.
    """
    return _seed_of(_hash(seed, *keys))


def numbered_seeds(seed: int | str, *keys: int | str) -> Callable[[int], int]:
    """Gives ``derive_seed(seed, *keys, number)`` for one number after another, in a third of the time."""
    begun = _hash(seed, *keys)

    def seed_of(number: int) -> int:
        whole = begun.copy()
        whole.update(_encode_key(number).encode())
        return _seed_of(whole)

    return seed_of


def _hash(*keys: int | str) -> blake2b:
    # surrogatepass: a file name that is not valid UTF-8 comes as lone surrogates.
    return blake2b("".join(map(_encode_key, keys)).encode("utf-8", "surrogatepass"), digest_size=8)


def _seed_of(whole: blake2b) -> int:
    return int.from_bytes(whole.digest(), "big") >> 1


def _encode_key(key: int | str) -> str:
    if type(key) is int:
        return f"i{key};"
    if isinstance(key, str):
        return f"s{len(key)}:{str.__str__(key)}"  # an enumeration's own would give its name
    try:
        number = None if isinstance(key, bool) else operator.index(key)
    except TypeError:
        number = None
    if number is None:
        raise ConfigError(f"{key!r} can't derive a seed. Give integers and texts.")
    return f"i{number};"


def wheel_rand_index(weight_list: Iterable[float], rng: random.Random | None = None) -> int:
    """An index drawn by a roulette wheel: index i with a chance of weight i over the sum of the weights.

    A weight of zero is never drawn. One number is taken from the generator per call.

    Args:
        weight_list: The weights, at least 0 and one above, of any sum; a list, a tuple or a 1-D array.
        rng: The generator to draw from; without it Python's global one, which ``set_seed`` seeds.

    Raises:
        ConfigError: No weights, a negative, infinite or NaN one, or none above zero.
    """
    bounds = _wheel(weight_list)
    if rng is not None and not callable(getattr(rng, "random", None)):
        raise ConfigError(f"rng={rng!r} has no random(). Give a random.Random, or None.")
    point = (random if rng is None else rng).random() * bounds[-1]
    # The product can round up to the sum itself; bisect_left then finds the last index with a weight.
    return min(bisect.bisect_right(bounds, point), bisect.bisect_left(bounds, bounds[-1]))


def wheel_ratio(weight_list: Iterable[float]) -> list[float]:
    """The upper bounds of the wheel's sectors: cumulative weights over their sum, the last exactly 1.0.

    Args:
        weight_list: The weights, as for ``wheel_rand_index``.

    Raises:
        ConfigError: As for ``wheel_rand_index``.
    """
    bounds = _wheel(weight_list)
    return [bound / bounds[-1] for bound in bounds]


def _wheel(weight_list: Iterable[float]) -> list[float]:
    """Cumulative sums of the weights over their maximum, so that no sum of finite weights overflows."""
    weights = _weights(weight_list)
    top = max(weights, default=0.0)
    if top <= 0:
        raise ConfigError(f"weight_list={reprlib.repr(weight_list)} has no weight above 0. Give at least one.")
    return list(itertools.accumulate(weight / top for weight in weights))


def _weights(weight_list: Iterable[float]) -> list[float]:
    # tolist turns an array of any library into plain numbers at once.
    plain = weight_list.tolist() if hasattr(weight_list, "tolist") else weight_list
    if isinstance(plain, (str, bytes, Mapping, Set)) or not isinstance(plain, Iterable):
        raise ConfigError(f"weight_list={reprlib.repr(weight_list)} is not a list, tuple or 1-D array.")
    weights = []
    for index, weight in enumerate(plain):
        try:
            number = float(weight) if isinstance(weight, numbers.Real) else math.nan
        except OverflowError:
            number = math.inf
        if not 0 <= number < math.inf:
            raise ConfigError(f"weight_list[{index}]={weight!r} is not a finite number of at least 0.")
        weights.append(number)
    return weights

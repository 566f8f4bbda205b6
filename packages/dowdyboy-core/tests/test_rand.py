"""Seeds, derived seeds and the roulette wheel."""

from __future__ import annotations

import enum
import itertools
import math
import os
import random
import subprocess
import sys
from enum import Enum, IntEnum
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dowdyboy_core
from dowdyboy_core._errors import ConfigError
from dowdyboy_core.rand import derive_seed, numbered_seeds, set_seed, wheel_rand_index, wheel_ratio


@pytest.fixture(autouse=True)
def _keep_the_global_generators() -> Any:
    python, array = random.getstate(), np.random.get_state()
    yield
    random.setstate(python)
    np.random.set_state(array)


def _draws() -> tuple[float, float]:
    return random.random(), float(np.random.random())


# ----------------------------------------------------------------------------------------------- set_seed


def test_set_seed_repeats_what_is_drawn() -> None:
    set_seed(7)
    first = _draws()
    assert _draws() != first
    set_seed(7)
    assert _draws() == first
    set_seed(8)
    assert all(a != b for a, b in zip(_draws(), first, strict=True))


def test_set_seed_gives_what_the_libraries_own_seeding_gives() -> None:
    random.seed(7)
    np.random.seed(7)
    expected = _draws()
    set_seed(7)
    assert _draws() == expected


def test_a_large_seed_is_reduced_for_numpy_alone() -> None:
    set_seed(2**40 + 5)
    large = _draws()
    set_seed(5)
    small = _draws()
    assert large[0] != small[0]
    assert large[1] == small[1]
    for seed in (2**31 + 5, 2**32 - 1):  # numpy takes these as they are
        np.random.seed(seed)
        expected = np.random.random()
        set_seed(seed)
        assert np.random.random() == expected
    set_seed(0)
    assert _draws() == (random.Random(0).random(), np.random.RandomState(0).random_sample())
    set_seed(2**63 - 1)
    set_seed(np.int64(5))
    assert _draws() == small


@pytest.mark.parametrize("seed", [-1, 1.0, "1", True, None, math.nan])
def test_set_seed_refuses(seed: Any) -> None:
    random.seed(3)
    before = random.getstate()
    with pytest.raises(ConfigError, match=rf"seed={seed!r} is not an integer of at least 0"):
        set_seed(seed)
    assert random.getstate() == before


# -------------------------------------------------------------------------------------------- derive_seed


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ((0,), 6197665364228624309),
        ((1,), 5601734440706729827),
        (("1",), 7113259943041818258),
        ((42, "epoch", 3), 5063573740424002982),
        ((-1, "ä", "", 2**70), 5796373488058057821),
        ((0, "name \udcff.png"), 6220300499046954724),
    ],
)
def test_derived_seeds_never_change(keys: tuple[Any, ...], expected: int) -> None:
    # Runs are repeated from these numbers: a change here breaks every resumed run and every published result.
    assert derive_seed(*keys) == expected


class Phase(str, Enum):
    TRAIN = "train"


class Number(IntEnum):
    THREE = 3


@pytest.mark.parametrize(("key", "plain"), [(Phase.TRAIN, "train"), (Number.THREE, 3), (np.str_("a"), "a")])
def test_a_key_counts_as_the_text_or_number_that_it_is(key: Any, plain: int | str) -> None:
    assert derive_seed(1, key) == derive_seed(1, plain)


def test_derived_seeds_are_the_same_in_another_process() -> None:
    code = "from dowdyboy_core.rand import derive_seed; print(derive_seed(42, 'epoch', 3))"
    source = str(Path(dowdyboy_core.__file__).parents[1])
    for hash_seed in ("0", "1"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": source}
        out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert int(out.stdout) == derive_seed(42, "epoch", 3)


def test_keys_that_look_alike_differ() -> None:
    alike: list[tuple[Any, ...]] = [
        (1,),
        ("1",),
        ("i1;",),
        (1, 1),
        (11,),
        (1, "1"),
        ("1", 1),
        ("a", "b"),
        ("ab",),
        ("a", "b", ""),
        ("", "a", "b"),
        ("as1:b",),
        ("s1:a",),
        ("a;",),
        (1, 0),
        (10,),
        (-1,),
        ("1;", 1),
        ("1;i1;",),
    ]
    assert len({derive_seed(*keys) for keys in alike}) == len(alike)


_KEYS = st.lists(st.integers() | st.text(), min_size=1, max_size=4).map(tuple)


@given(_KEYS, _KEYS)
def test_only_equal_keys_give_equal_seeds(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    assert 0 <= derive_seed(*one) < 2**63
    assert (derive_seed(*one) == derive_seed(*other)) == (one == other)


def test_derived_seeds_use_all_63_bits() -> None:
    seeds = [derive_seed(0, number) for number in range(400)]
    for bit in range(63):
        # 400 fair coins: 200 with a standard deviation of 10
        assert 140 < sum(seed >> bit & 1 for seed in seeds) < 260


def test_numpy_integers_and_subclasses_of_str_count_as_what_they_are() -> None:
    assert derive_seed(np.int64(3), np.str_("a")) == derive_seed(3, "a")


@pytest.mark.parametrize("key", [1.0, None, b"a", True, ("a",)])
def test_derive_seed_refuses(key: Any) -> None:
    with pytest.raises(ConfigError, match="can't derive a seed"):
        derive_seed(0, key)
    with pytest.raises(ConfigError, match="can't derive a seed"):
        derive_seed(key)


# ---------------------------------------------------------------------------------------------- the wheel


def _fits(counts: list[int], weights: list[float]) -> bool:
    """Pearson's chi-square test; a fair wheel fails it once in a hundred thousand seeds."""
    total, drawn = sum(weights), sum(counts)
    wanted = [drawn * weight / total for weight in weights if weight]
    seen = [count for count, weight in zip(counts, weights, strict=True) if weight]
    statistic = sum((a - b) ** 2 / b for a, b in zip(seen, wanted, strict=True))
    freedom = len(wanted) - 1
    # Wilson and Hilferty's approximation of the quantile at 1 - 1e-5, 4.265 standard deviations
    return statistic < freedom * (1 - 2 / (9 * freedom) + 4.265 * math.sqrt(2 / (9 * freedom))) ** 3


@pytest.mark.parametrize(
    "weights", [[1, 2, 3, 4], [0.0, 5.0, 0.0, 1.0, 0.0], [1e-3, 1e3, 5e2], [1e308, 1e308, 1e308], [5e-324] * 3]
)
def test_the_wheel_draws_in_proportion(weights: list[float]) -> None:
    rng = random.Random(0)
    scaled = [weight / max(weights) for weight in weights]
    counts = [0] * len(weights)
    for _ in range(20_000):
        counts[wheel_rand_index(weights, rng)] += 1
    assert all(weight or not count for weight, count in zip(weights, counts, strict=True))
    assert _fits(counts, scaled), counts
    assert not _fits(counts, [*scaled[:-2], scaled[-2] + 0.1, scaled[-1] + 0.2])


class _Fixed(random.Random):
    def __init__(self, value: float) -> None:
        super().__init__(0)
        self.value = value

    def random(self) -> float:
        return self.value


@pytest.mark.parametrize("value", [0.0, math.nextafter(1.0, 0.0), 1.0])
@pytest.mark.parametrize("weights", [[0, 0, 2, 0, 0], [0, 1e-300, 0], [0, 1, 1e-30, 0], [0.1] * 10 + [0.0]])
def test_the_ends_of_the_wheel_have_a_weight(weights: list[float], value: float) -> None:
    assert weights[wheel_rand_index(weights, _Fixed(value))] > 0


def test_a_sector_begins_at_its_lower_bound() -> None:
    assert [wheel_rand_index([1, 1, 2], _Fixed(point)) for point in (0.0, 0.2, 0.25, 0.49, 0.5, 0.99)] == [
        *(0, 0, 1, 1, 2, 2)
    ]


def test_the_wheel_draws_from_the_global_generator_once() -> None:
    random.seed(5)
    drawn = [wheel_rand_index([1, 1, 1, 1]) for _ in range(20)]
    random.seed(5)
    assert drawn == [int(random.random() * 4) for _ in range(20)]
    before = random.getstate()
    wheel_rand_index([1, 2], random.Random(0))
    assert random.getstate() == before


@pytest.mark.parametrize("kind", [list, tuple, np.array, iter, lambda w: np.array(w, dtype=np.float32)])
def test_weights_come_in_any_kind_of_list(kind: Any) -> None:
    assert wheel_rand_index(kind([0, 0, 3]), random.Random(0)) == 2
    assert wheel_ratio(kind([1, 1, 2])) == [0.25, 0.5, 1.0]


def test_single_weights_may_be_of_any_kind_of_number() -> None:
    mixed = [np.float32(1), np.int64(1), Fraction(1, 2), 1.5]
    assert wheel_ratio(mixed) == [0.25, 0.5, 0.625, 1.0]


@given(st.lists(st.floats(0, 1e308), min_size=1, max_size=30).filter(any))
def test_ratios_rise_to_exactly_one(weights: list[float]) -> None:
    ratios = wheel_ratio(weights)
    assert len(ratios) == len(weights)
    assert ratios[-1] == 1.0
    assert all(0 <= low <= high for low, high in itertools.pairwise(ratios))
    assert all(type(ratio) is float for ratio in ratios)


@pytest.mark.parametrize("function", [wheel_rand_index, wheel_ratio])
@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ([], r"weight_list=\[\] has no weight above 0"),
        (np.array([]), "has no weight above 0"),
        ([0, 0.0], r"weight_list=\[0, 0.0\] has no weight above 0"),
        ([1, -1], r"weight_list\[1\]=-1 is not a finite number"),
        ([math.nan], r"weight_list\[0\]=nan"),
        ([1, math.inf], r"weight_list\[1\]=inf"),
        ([10**400], r"weight_list\[0\]=1000"),
        (["1"], r"weight_list\[0\]='1'"),
        ([None], r"weight_list\[0\]=None"),
        (np.ones((2, 2)), r"weight_list\[0\]=\[1.0, 1.0\]"),
        ("12", "weight_list='12' is not a list"),
        ({0: 1.0}, "is not a list"),
        ({1.0}, "is not a list"),
        (3, "weight_list=3 is not a list"),
    ],
)
def test_wheels_that_cannot_turn_are_refused(function: Any, weights: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        function(weights)


def test_a_generator_without_random_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"rng=3 has no random\(\)"):
        wheel_rand_index([1], 3)  # type: ignore[arg-type]


@given(st.integers(), st.lists(st.integers() | st.text(max_size=3), max_size=3), st.integers(0, 2**40))
def test_numbered_seeds_are_derived_seeds(seed: int, keys: list[int | str], number: int) -> None:
    seed_of = numbered_seeds(seed, *keys)
    assert [seed_of(number), seed_of(0)] == [derive_seed(seed, *keys, number), derive_seed(seed, *keys, 0)]


def test_a_text_that_is_a_member_of_an_enumeration_counts_as_the_text() -> None:
    class Phase(str, enum.Enum):
        TRAIN = "train"

    assert derive_seed(0, Phase.TRAIN) == derive_seed(0, "train")

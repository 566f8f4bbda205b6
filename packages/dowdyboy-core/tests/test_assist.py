"""Output sizes against the layers of both frameworks, and the timer."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from dowdyboy_core import assist
from dowdyboy_core._errors import ConfigError
from dowdyboy_core.assist import (
    calc_time_used,
    get_conv_out_size,
    get_dilated_conv_out_size,
    get_trans_conv_out_size,
)

CASES = 150


def _axes(rng: random.Random, low: int, high: int, axes: int) -> Any:
    """An int for all axes, or a tuple with one entry an axis."""
    return rng.randint(low, high) if rng.random() < 0.4 else tuple(rng.randint(low, high) for _ in range(axes))


def _wide(value: Any, axes: int) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,) * axes


def _torch_size(transposed: bool, size: tuple[int, ...], k: Any, s: Any, p: Any, d: Any, extra: Any) -> Any:
    """What torch's layer gives; None where it refuses."""
    torch = pytest.importorskip("torch")
    axes = len(size)
    kind = getattr(torch.nn, f"Conv{'Transpose' if transposed else ''}{axes}d")
    more = {"output_padding": extra} if transposed else {}
    try:
        layer = kind(1, 1, k, stride=s, padding=p, dilation=d, **more)
        with torch.no_grad():
            return tuple(layer(torch.zeros(1, 1, *size)).shape[2:])
    except RuntimeError:
        return None


def _paddle_size(transposed: bool, size: tuple[int, ...], k: Any, s: Any, p: Any, d: Any, extra: Any) -> Any:
    paddle = pytest.importorskip("paddle")
    axes = len(size)
    kind = getattr(paddle.nn, f"Conv{axes}D{'Transpose' if transposed else ''}")
    more = {"output_padding": list(extra) if isinstance(extra, tuple) else extra} if transposed else {}
    listed = [list(each) if isinstance(each, tuple) else each for each in (k, s, p, d)]
    layer = kind(1, 1, listed[0], stride=listed[1], padding=listed[2], dilation=listed[3], **more)
    with paddle.no_grad():
        return tuple(layer(paddle.zeros([1, 1, *size])).shape[2:])


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_conv_sizes_are_those_of_the_layers(axes: int) -> None:
    rng = random.Random(axes)
    compared = 0
    for _ in range(CASES):
        size = tuple(rng.randint(1, 12) for _ in range(axes))
        k, s, p, d = (_axes(rng, low, high, axes) for low, high in ((1, 5), (1, 4), (0, 3), (1, 3)))
        expected = _torch_size(False, size, k, s, p, d, 0)
        if expected is None:
            with pytest.raises(ConfigError, match="larger than the padded input"):
                get_dilated_conv_out_size(size, k, s, p, d)
            continue
        compared += 1
        assert get_dilated_conv_out_size(size, k, s, p, d) == expected, (size, k, s, p, d)
        assert _paddle_size(False, size, k, s, p, d, 0) == expected, (size, k, s, p, d)
        if _wide(d, axes) == (1,) * axes:
            assert get_conv_out_size(size, k, s, p) == expected, (size, k, s, p)
    assert compared > CASES // 3


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_transposed_conv_sizes_are_those_of_the_layers(axes: int) -> None:
    rng = random.Random(10 + axes)
    compared = refused = 0
    for _ in range(CASES):
        size = tuple(rng.randint(1, 6) for _ in range(axes))
        k, s, p, d = (_axes(rng, low, high, axes) for low, high in ((1, 5), (1, 4), (0, 2), (1, 3)))
        extra = _axes(rng, 0, 2, axes) if rng.random() < 0.7 else 0
        expected = _torch_size(True, size, k, s, p, d, extra)
        if expected is None or min(expected) < 1:
            refused += 1
            with pytest.raises(ConfigError, match=r"output_padding=|cuts the whole output away"):
                get_trans_conv_out_size(size, k, s, p, extra, d)
            continue
        compared += 1
        assert get_trans_conv_out_size(size, k, s, p, extra, d) == expected, (size, k, s, p, extra, d)
        # paddle's CPU kernel fails where the output padding reaches the stride, although its check lets it by
        if all(more < step for more, step in zip(_wide(extra, axes), _wide(s, axes), strict=True)):
            assert _paddle_size(True, size, k, s, p, d, extra) == expected, (size, k, s, p, extra, d)
    assert compared > CASES // 4
    assert refused


def test_int_in_int_out_tuple_in_tuple_out() -> None:
    assert get_conv_out_size(32, 3, 2, 1) == 16
    assert get_conv_out_size((32, 17), 3, 2, 1) == (16, 9)
    assert get_conv_out_size((32,), 3) == (30,)
    assert get_conv_out_size([32, 17], (3, 5), (1, 2), (1, 0)) == (32, 7)
    assert get_trans_conv_out_size(16, 4, 2, 1) == 32
    assert get_trans_conv_out_size((16, 9), 3, 2, 1, output_padding=(1, 0)) == (32, 17)
    assert get_trans_conv_out_size(8, 3, d=2) == 12
    assert get_dilated_conv_out_size(32, 3) == 30
    assert get_dilated_conv_out_size(32, 3, 1, 2, 2) == 32
    assert get_dilated_conv_out_size((32, 16, 8), 3, d=(1, 2, 3)) == (30, 12, 2)


def test_integers_of_numpy_become_plain_ones() -> None:
    out = get_conv_out_size(np.int64(8), np.int32(3))
    assert (out, type(out)) == (6, int)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: get_conv_out_size(4, 7, 1, 1), "k=7 is larger than the padded input, 4 + 2 * 1 = 6. Give"),
        (lambda: get_conv_out_size((9, 4), 5), "k=5 is larger than the padded input, 4 + 2 * 0 = 4. Give"),
        (lambda: get_dilated_conv_out_size(4, 3, d=2), "k=3 with d=2 spans 5, which is larger than the padded"),
        (lambda: get_conv_out_size(0, 1), "in_size=0 is not an integer of at least 1, or a tuple of such."),
        (lambda: get_conv_out_size((8, 0), 1), "in_size=0 is not an integer of at least 1"),
        (lambda: get_conv_out_size((8, 8), 0), "k=0 is not an integer of at least 1, or a tuple of such."),
        (lambda: get_conv_out_size((8, 8), (3, -1)), "k=-1 is not an integer of at least 1, or a tuple of such."),
        (lambda: get_conv_out_size(-3, 1), "in_size=-3"),
        (lambda: get_conv_out_size(8, 0), "k=0 is not an integer of at least 1"),
        (lambda: get_conv_out_size(8, 3, 0), "s=0 is not"),
        (lambda: get_conv_out_size(8, 3, 1, -1), "p=-1 is not an integer of at least 0"),
        (lambda: get_dilated_conv_out_size(8, 3, 1, 0, 0), "d=0 is not"),
        (lambda: get_conv_out_size(8.0, 3), "in_size=8.0"),  # type: ignore[call-overload]
        (lambda: get_conv_out_size(8, 3, 1.5), "s=1.5"),  # type: ignore[call-overload]
        (lambda: get_conv_out_size(True, 1), "in_size=True"),
        (lambda: get_conv_out_size((8, 8), (3, True)), "k=True"),
        (lambda: get_conv_out_size(8, 3, 1, "same"), "p='same'"),  # type: ignore[call-overload]
        (lambda: get_conv_out_size(None, 3), "in_size=None"),  # type: ignore[call-overload]
        (lambda: get_conv_out_size((), 3), "in_size=() has no axis"),
        (lambda: get_conv_out_size((8, 8), (3, 3, 3)), "k=(3, 3, 3) has 3 entries, but in_size has 2 axes"),
        (lambda: get_conv_out_size((8, 8), 3, (1,)), "s=(1,) has 1 entries"),
        (lambda: get_conv_out_size(8, (3, 3)), "k=(3, 3) is one value an axis"),  # type: ignore[call-overload]
        (
            lambda: get_trans_conv_out_size(8, 3, 2, 1, 4, 4),
            "output_padding=4 is not below the larger of stride s=2 and dilation d=4. Give 0 to 3.",
        ),
        (lambda: get_trans_conv_out_size(8, -2), "k=-2 is not an integer of at least 1"),
        (lambda: get_trans_conv_out_size(8, 3, 0), "s=0 is not an integer of at least 1"),
        (lambda: get_trans_conv_out_size(8, 3, 1, -2), "p=-2 is not an integer of at least 0"),
        (lambda: get_trans_conv_out_size(8, 3, d=0), "d=0 is not an integer of at least 1"),
        (lambda: get_trans_conv_out_size(8, 3, 1, 0, 1), "output_padding=1"),
        (lambda: get_trans_conv_out_size(8, 3, 2, 1, -1), "output_padding=-1 is not an integer"),
        (lambda: get_trans_conv_out_size(1, 1, 1, 1), "p=1 cuts the whole output away"),
        (
            lambda: get_trans_conv_out_size((4, 1), 2, 1, 1),
            "p=1 cuts the whole output away: in_size=1, k=2, s=1, d=1 and output_padding=0 give 0.",
        ),
    ],
)
def test_impossible_sizes_are_refused(call: Any, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        call()
    assert str(caught.value).startswith(says)


class _Clock:
    """A clock that goes on only while the timed function works."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now


def test_calc_time_used_is_the_total_of_the_timed_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = _Clock(), []
    monkeypatch.setattr(assist, "time", clock)

    def work(seconds: float, *, label: str) -> str:
        calls.append(label)
        clock.now += seconds
        return "a result that is thrown away"

    assert calc_time_used(work, (0.25,), 4, warmup=2, kwargs={"label": "x"}) == 1.0
    assert calls == ["x"] * 6
    assert calc_time_used(lambda: calls.append("once")) == 0.0
    assert calls == ["x"] * 6 + ["once"]


def test_calc_time_used_takes_a_list_as_the_original_did() -> None:
    seen: list[tuple[int, int]] = []
    used = calc_time_used(lambda a, b: seen.append((a, b)), [1, 2], count=3)
    assert used >= 0
    assert seen == [(1, 2)] * 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"count": 0}, "count=0 is not an integer of at least 1."),
        ({"count": 1.0}, "count=1.0 is not an integer of at least 1."),
        ({"count": True}, "count=True is not an integer of at least 1."),
        ({"warmup": -1}, "warmup=-1 is not an integer of at least 0."),
        ({"func": 3}, "func=3 is not callable. Give the function itself, not its result."),
    ],
)
def test_calc_time_used_refuses(arguments: dict[str, Any], says: str) -> None:
    calls: list[int] = []
    with pytest.raises(ConfigError) as caught:
        calc_time_used(**{"func": lambda: calls.append(1), **arguments})
    assert str(caught.value) == says
    assert not calls


def test_an_exception_of_the_function_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        calc_time_used(lambda: 1 // 0)

"""Small helpers: output sizes of convolutions, and how long a function takes."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, overload

from ._errors import ConfigError

__all__ = ["calc_time_used", "get_conv_out_size", "get_dilated_conv_out_size", "get_trans_conv_out_size"]

_Axes: TypeAlias = "int | Sequence[int]"


@overload
def get_conv_out_size(in_size: int, k: int, s: int = 1, p: int = 0) -> int: ...
@overload
def get_conv_out_size(in_size: Sequence[int], k: _Axes, s: _Axes = 1, p: _Axes = 0) -> tuple[int, ...]: ...
def get_conv_out_size(in_size: _Axes, k: _Axes, s: _Axes = 1, p: _Axes = 0) -> int | tuple[int, ...]:
    """The spatial size that a convolution gives, as torch's and paddle's Conv1d/2d/3d compute it.

    An int gives an int. A tuple, one entry an axis, gives a tuple; then the other arguments are an int for
    all axes or a tuple of the same length.

    Args:
        in_size: Size of the input, without batch and channels.
        k: Kernel size.
        s: Stride.
        p: Zero padding, on both sides of an axis.

    Raises:
        ConfigError: A value is not a usable integer, the lengths differ, or the kernel is larger than the
            padded input.
    """
    return get_dilated_conv_out_size(in_size, k, s, p, 1)  # type: ignore[arg-type]  # checked there


@overload
def get_dilated_conv_out_size(in_size: int, k: int, s: int = 1, p: int = 0, d: int = 1) -> int: ...
@overload
def get_dilated_conv_out_size(
    in_size: Sequence[int], k: _Axes, s: _Axes = 1, p: _Axes = 0, d: _Axes = 1
) -> tuple[int, ...]: ...
def get_dilated_conv_out_size(
    in_size: _Axes, k: _Axes, s: _Axes = 1, p: _Axes = 0, d: _Axes = 1
) -> int | tuple[int, ...]:
    """The spatial size that a dilated convolution gives; ``get_conv_out_size`` with a dilation ``d``.

    ``floor((in + 2p - d(k - 1) - 1) / s) + 1`` for each axis, the formula in the documentation of
    torch.nn.Conv2d and paddle.nn.Conv2D.

    Args:
        in_size: Size of the input, an int or a tuple with one entry an axis.
        k: Kernel size.
        s: Stride.
        p: Zero padding, on both sides of an axis.
        d: Dilation, the distance between the points of the kernel; 1 is an ordinary convolution.

    Raises:
        ConfigError: As in ``get_conv_out_size``.
    """

    def one_axis(size: int, k: int, s: int, p: int, d: int) -> int:
        extent = d * (k - 1) + 1
        if extent > size + 2 * p:
            dilated = f" with d={d} spans {extent}, which" if d > 1 else ""
            raise ConfigError(
                f"k={k}{dilated} is larger than the padded input, {size} + 2 * {p} = {size + 2 * p}. "
                f"Give a smaller kernel, a larger in_size or more padding p."
            )
        return (size + 2 * p - extent) // s + 1

    return _each_axis(one_axis, in_size, {"k": (k, 1), "s": (s, 1), "p": (p, 0), "d": (d, 1)})


@overload
def get_trans_conv_out_size(
    in_size: int, k: int, s: int = 1, p: int = 0, output_padding: int = 0, d: int = 1
) -> int: ...
@overload
def get_trans_conv_out_size(
    in_size: Sequence[int], k: _Axes, s: _Axes = 1, p: _Axes = 0, output_padding: _Axes = 0, d: _Axes = 1
) -> tuple[int, ...]: ...
def get_trans_conv_out_size(
    in_size: _Axes, k: _Axes, s: _Axes = 1, p: _Axes = 0, output_padding: _Axes = 0, d: _Axes = 1
) -> int | tuple[int, ...]:
    """The spatial size that a transposed convolution gives.

    ``(in - 1)s - 2p + d(k - 1) + output_padding + 1`` for each axis, the formula in the documentation of
    torch.nn.ConvTranspose2d and paddle.nn.Conv2DTranspose.

    Args:
        in_size: Size of the input, an int or a tuple with one entry an axis.
        k: Kernel size.
        s: Stride.
        p: Padding, that is, what is cut off both sides of the output.
        output_padding: What is added to one side of the output; below the larger of ``s`` and ``d``. (paddle
            3.3 on a CPU fails where it is not below ``s`` either.)
        d: Dilation.

    Raises:
        ConfigError: A value is not a usable integer, the lengths differ, or nothing of the output is left.
    """

    def one_axis(size: int, k: int, s: int, p: int, output_padding: int, d: int) -> int:
        if output_padding >= max(s, d):
            raise ConfigError(
                f"output_padding={output_padding} is not below the larger of stride s={s} and dilation d={d}."
                f" Give 0 to {max(s, d) - 1}."
            )
        out = (size - 1) * s - 2 * p + d * (k - 1) + output_padding + 1
        if out < 1:
            raise ConfigError(
                f"p={p} cuts the whole output away: in_size={size}, k={k}, s={s}, d={d} and "
                f"output_padding={output_padding} give {out}. Give a smaller padding p."
            )
        return out

    others = {"k": (k, 1), "s": (s, 1), "p": (p, 0), "output_padding": (output_padding, 0), "d": (d, 1)}
    return _each_axis(one_axis, in_size, others)


def _each_axis(
    one_axis: Callable[..., int], in_size: _Axes, others: Mapping[str, tuple[_Axes, int]]
) -> int | tuple[int, ...]:
    """Apply ``one_axis`` along the axes; ``others`` maps a name to its value and the least allowed."""
    if not isinstance(in_size, (tuple, list)):
        size = _integer("in_size", in_size, 1)
        for name, (value, _) in others.items():
            if isinstance(value, (tuple, list)):
                raise ConfigError(
                    f"{name}={value!r} is one value an axis, but in_size={in_size!r} is a single int. "
                    f"Give in_size as a tuple of {len(value)} ints, or {name} as an int."
                )
        return one_axis(size, *(_integer(name, value, least) for name, (value, least) in others.items()))
    if not in_size:
        raise ConfigError(f"in_size={in_size!r} has no axis. Give an int, or a tuple with one int an axis.")
    sizes = [_integer("in_size", size, 1) for size in in_size]
    columns = [_per_axis(name, value, least, len(sizes)) for name, (value, least) in others.items()]
    return tuple(one_axis(*axis) for axis in zip(sizes, *columns, strict=True))


def _per_axis(name: str, value: _Axes, least: int, axes: int) -> list[int]:
    if not isinstance(value, (tuple, list)):
        return [_integer(name, value, least)] * axes
    if len(value) != axes:
        raise ConfigError(
            f"{name}={value!r} has {len(value)} entries, but in_size has {axes} axes. "
            f"Give an int, or a tuple of {axes} ints."
        )
    return [_integer(name, entry, least) for entry in value]


def _integer(name: str, value: object, least: int, also: str = ", or a tuple of such") -> int:
    # operator.index lets numpy's integers in and keeps floats out, but takes a bool for 0 or 1.
    try:
        number = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or number < least:
        raise ConfigError(f"{name}={value!r} is not an integer of at least {least}{also}.")
    return number


def calc_time_used(
    func: Callable[..., object],
    args: Sequence[Any] = (),
    count: int = 1,
    warmup: int = 0,
    kwargs: Mapping[str, Any] | None = None,
) -> float:
    """The seconds that ``count`` calls of ``func(*args, **kwargs)`` take together, by a monotonic clock.

    Divide by ``count`` for the time of one call. Work that a function only queues on a device is counted as
    far as the call waits for it: let ``func`` synchronise when that work is what you want to time.

    Args:
        func: What to call; its results are thrown away.
        args: Positional arguments for each call.
        count: How many calls are timed, at least 1.
        warmup: How many calls go before them untimed, for caches and lazy set-up.
        kwargs: Keyword arguments for each call.

    Raises:
        ConfigError: ``func`` is not callable, or ``count`` or ``warmup`` is not a usable integer.
    """
    if not callable(func):
        raise ConfigError(f"func={func!r} is not callable. Give the function itself, not its result.")
    timed, untimed = _integer("count", count, 1, ""), _integer("warmup", warmup, 0, "")
    keywords = dict(kwargs or {})
    for _ in range(untimed):
        func(*args, **keywords)
    start = time.perf_counter()
    for _ in range(timed):
        func(*args, **keywords)
    return time.perf_counter() - start

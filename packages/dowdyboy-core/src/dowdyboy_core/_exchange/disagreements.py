"""What two frameworks compute otherwise from the same settings: said by name when a run crosses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dowdyboy_core.backend.layouts import BUFFERS
from dowdyboy_core.backend.words import OptimizerWords

from .pairing import Key, Pair


def disagreements(source: OptimizerWords, target: OptimizerWords, scheduled: bool) -> list[str]:
    """What goes on otherwise with an optimizer than it would have in the other framework, in words.

    Args:
        source: what it was there.
        target: what it is here.
        scheduled: whether a scheduler moves its learning rate.
    """
    lines = []
    if source.kind == "rmsprop":
        lines.append(
            "RMSprop's eps stands outside of the root in PyTorch and inside in PaddlePaddle: give PaddlePaddle the "
            "square of PyTorch's"
        )
        if scheduled and (source.settings.get("momentum") or target.settings.get("momentum")):
            lines.append("RMSprop's momentum holds the learning rate in PaddlePaddle: it lags behind a schedule there")
    if source.kind == "momentum" and (source.settings.get("dampening") or target.settings.get("dampening")):
        lines.append("PaddlePaddle's Momentum has no dampening")
    if source.kind == "adamax":
        lines.append("Adamax's eps is added at another place: the smaller it is, the less that matters")
    for name in sorted(source.settings.keys() & target.settings.keys()):
        there, here = source.settings[name], target.settings[name]
        if not _same(there, here) and not (source.kind == "rmsprop" and name == "epsilon"):
            lines.append(f"{name} is {_shown(there)} in the checkpoint and {_shown(here)} here, which is in force")
    return lines


def of_layers(models: Mapping[str, Mapping[Key, Pair]]) -> list[str]:
    """What goes on otherwise with layers, in words.

    Args:
        models: the pairs of each model and component, by its name.
    """
    lines = []
    made_up = [
        f"{name} {path}: {role}"
        for name, pairs in models.items()
        for (path, role), one in pairs.items()
        if one.source is None and role not in BUFFERS
    ]
    if made_up:
        lines.append(
            f"{', '.join(made_up)}: not in the checkpoint, and so made such as to change nothing; it stays so only if "
            "it is not trained"
        )
    if any(one.kind == "batch_norm" for pairs in models.values() for one in pairs.values()):
        lines.append(
            "BatchNorm: PyTorch adds a batch's variance over n - 1 to running_var, PaddlePaddle over n: what is "
            "evaluated with it differs from now on by up to that factor"
        )
    return lines


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=1e-6)
    return bool(one == other)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)

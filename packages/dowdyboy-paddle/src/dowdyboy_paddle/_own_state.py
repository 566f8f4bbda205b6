"""What objects keep outside of a ``state_dict``: the metrics of paddle.metric, which have none, by their attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import paddle
from paddle.incubate import LookAhead, ModelAverage
from paddle.optimizer import LBFGS, Optimizer


def own_state(value: Any) -> Any:
    """The attributes of a metric but for functions; None of what is none, or has a ``state_dict`` of its own."""
    if not isinstance(value, paddle.metric.Metric) or hasattr(value, "state_dict"):
        return None
    return {name: kept for name, kept in vars(value).items() if not callable(kept)}


def load_own_state(value: Any, state: Mapping[str, Any]) -> None:
    """Puts such attributes in place.

    Raises:
        ValueError: they are of another metric.
    """
    other = state.keys() ^ own_state(value).keys()
    if other:
        raise ValueError(f"the {type(value).__name__} that is stored has other attributes: {sorted(other)}")
    vars(value).update(state)


def unsaved_state(optimizer: Any) -> str | None:
    """What an optimizer keeps elsewhere than in accumulators; None if nothing."""
    if isinstance(optimizer, (LBFGS, LookAhead, ModelAverage)):
        return "what it remembers lies outside of the framework's accumulators"
    inner = [name for name, kept in vars(optimizer).items() if isinstance(kept, Optimizer)]
    return f"there is another optimizer in it, {inner[0]!r}, and only its own state is stored" if inner else None

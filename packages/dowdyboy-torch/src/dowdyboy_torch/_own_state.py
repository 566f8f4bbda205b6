"""What modules keep outside of their ``state_dict``: the states of torchmetrics, persistent or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ._names import plain_paths

_COUNTS = ("_update_count", "_num_vals_seen")


def is_metric(module: Any) -> bool:
    """Whether a module is a metric as torchmetrics has them, which ``add_state`` gives states."""
    kept = vars(module)
    return all(isinstance(kept.get(name), dict) for name in ("_defaults", "_persistent")) and hasattr(
        module, "add_state"
    )


def _metrics(module: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    for path, item in module.named_modules():
        share = getattr(item, "_compute_groups_create_state_ref", None)
        if callable(share):  # a collection, in which one metric may count for others until somebody looks
            share(True)
        if is_metric(item):
            yield path, item


def own_state(value: Any) -> Any:
    """The states of all metrics in a module by their paths, and None where there is no metric."""
    if not isinstance(value, torch.nn.Module):
        return None
    plain = plain_paths(value)
    found = {plain(path): {name: getattr(item, name) for name in _names(item)} for path, item in _metrics(value)}
    return found or None


def load_own_state(value: Any, state: Mapping[str, Mapping[str, Any]]) -> None:
    """Puts such states in place.

    Raises:
        ValueError: they are of other metrics, or of other states of theirs.
    """
    plain = plain_paths(value)
    metrics = {plain(path): item for path, item in _metrics(value)}
    if metrics.keys() != state.keys():
        raise ValueError(f"metrics at {sorted(state)} are stored, and there are metrics at {sorted(metrics)}")
    for path, item in metrics.items():
        if state[path].keys() - vars(item).keys():
            raise ValueError(f"the metric at {path!r} has no {sorted(state[path].keys() - vars(item).keys())}")
    for path, item in metrics.items():
        for name, kept in state[path].items():
            setattr(item, name, kept)
        if "_computed" in vars(item):
            setattr(item, "_computed", None)  # noqa: B010  (to the types a module has no such attribute)


def _names(metric: Any) -> list[str]:
    tensors = [name for name, kept in vars(metric).items() if isinstance(kept, torch.Tensor) and name != "_computed"]
    counts = [name for name in _COUNTS if name in vars(metric)]
    return list(dict.fromkeys([*metric._defaults, *tensors, *counts]))


def listed_states(model: torch.nn.Module) -> set[str]:
    """The paths of states that are lists, which ``state_dict`` gives where they are persistent, and no tensors are."""
    return {
        f"{path}.{name}" if path else name
        for path, item in model.named_modules()
        if is_metric(item)
        for name, default in item._defaults.items()
        if isinstance(default, list)
    }


def unsaved_state(optimizer: Any) -> str | None:
    """What an optimizer keeps beside state and groups, as one around another does; None if nothing."""
    inner = [name for name, kept in vars(optimizer).items() if isinstance(kept, torch.optim.Optimizer)]
    if inner:
        return f"there is another optimizer in it, {inner[0]!r}, and only its own state is stored"
    keys = set(optimizer.state_dict())
    if keys == {"state", "param_groups"}:
        return None
    return f"its state_dict has the keys {sorted(map(str, keys))}, and only 'state' and 'param_groups' are stored"

"""State of PyTorch objects as plain trees, and back."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter, is_lazy

from dowdyboy_core import CheckpointError
from dowdyboy_core.backend import Array, check_entries, check_groups, leaves_out_unmade

from ._arrays import as_tensor, layout_of, to_array
from ._names import identity, plain_paths
from ._own_state import listed_states

_ALIGNMENT = 64  # bytes


def to_tensor(array: Array) -> torch.Tensor:
    """A new CPU tensor, with memory of its own, from plain data."""
    return as_tensor(array).clone()


def _taken_over(array: Array) -> torch.Tensor:
    """A CPU tensor in the memory of plain data, which is its alone from now on, or in new memory.

    That is where the data isn't aligned as PyTorch aligns its own: a kernel may then add up in another order.
    """
    tensor = as_tensor(array)
    return tensor if tensor.layout is torch.strided and tensor.data_ptr() % _ALIGNMENT == 0 else tensor.clone()


def to_tree(value: Any) -> Any:
    """A nested state with plain data for its tensors."""
    if isinstance(value, torch.Tensor):
        return to_array(value)
    if type(value) is Counter:
        return value
    if isinstance(value, Mapping):
        return {key: to_tree(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(to_tree(item) for item in value)
    return value


def from_tree(tree: Any) -> Any:
    """A nested state with tensors for its plain data, which it uses up."""
    if isinstance(tree, Array):
        return _taken_over(tree)
    if type(tree) is dict:
        return {key: from_tree(item) for key, item in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(from_tree(item) for item in tree)
    return tree


def _entries(model: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """The tensors of a model's state dict, and what its modules give as extra state, which may be anything plain."""
    elsewhere = listed_states(model)
    for name, value in model.state_dict().items():
        if name in elsewhere:
            continue
        if not isinstance(value, torch.Tensor) and name.rpartition(".")[2] != _EXTRA:
            raise CheckpointError(
                f"The model's state {name!r} is a {type(value).__name__}, and only tensors can be stored. "
                "Return it from get_extra_state, or register a tensor."
            )
        yield name, value


_EXTRA = "_extra_state"  # the end of the names that PyTorch gives these


def model_state(model: torch.nn.Module) -> dict[str, Array]:
    """The state dict of a model as plain data, in which tied tensors are one object."""
    plain, copied = plain_paths(model), dict[Any, Array]()
    found = [(name, value, identity(value)) for name, value in _entries(model) if not _is_unmade(value)]
    for name, value, same in found:
        if same not in copied:
            tensor = isinstance(value, torch.Tensor)
            copied[same] = to_array(value, name) if tensor else Array("", (), to_tree(value), "state")
    return {plain(name): copied[same] for name, _, same in found}


def _is_unmade(value: Any) -> bool:
    """Whether this will be made by the first forward, and isn't wanted."""
    return leaves_out_unmade() and isinstance(value, torch.Tensor) and is_lazy(value)


def model_layout(model: torch.nn.Module) -> dict[str, Array]:
    """The types and shapes in that state, without its data."""
    plain = plain_paths(model)
    return {plain(name): layout_of(value) for name, value in _entries(model)}


def layout_when_loaded(model: torch.nn.Module, state: Mapping[str, Array]) -> dict[str, Array] | None:
    """The types and shapes that a copy of a model has after ``load_state_dict``; None if that fails."""
    try:
        # PyTorch can't copy lazy buffers, nor what a forward left with its graph.
        odd = [item for item in (*model.parameters(), *model.buffers()) if is_lazy(item) or not item.is_leaf]
        trial = copy.deepcopy(model, {id(item): _copied(item) for item in odd})
        load_model_state(trial, state)
        return model_layout(trial)
    except Exception:  # whatever a copy or the model's own hooks raise: then it doesn't load
        return None


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    if not is_lazy(tensor):
        return tensor.detach().clone()
    kind: Any = UninitializedBuffer if isinstance(tensor, UninitializedBuffer) else UninitializedParameter
    made: torch.Tensor = kind(requires_grad=tensor.requires_grad, device=tensor.device, dtype=tensor.dtype)
    return made


def load_model_state(model: torch.nn.Module, state: Mapping[str, Array]) -> None:
    """Puts a state that is known to fit into a model."""
    plain = plain_paths(model)
    paths = {plain(path): path for path in model.state_dict()}
    given = {
        paths.get(name, name): from_tree(array.data) if array.layout == "state" else as_tensor(array)
        for name, array in state.items()
    }
    model.load_state_dict(given, strict=True)


def _parameter_names(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> list[str]:
    """The names of an optimizer's parameters, in the order that its state dict numbers them in."""
    parameters = [item for group in optimizer.param_groups for item in group["params"]]
    return [names.get(id(item), f"unnamed/{number}") for number, item in enumerate(parameters)]


def optimizer_state(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> Any:
    """The state dict of an optimizer with names instead of numbers."""
    known = _parameter_names(optimizer, names)
    state = optimizer.state_dict()
    return {
        # In the order of the parameters, since that of the first steps depends on what was frozen when.
        "state": {known[number]: to_tree(slots) for number, slots in sorted(state["state"].items())},
        "param_groups": [
            {**to_tree(group), "params": [known[number] for number in group["params"]]}
            for group in state["param_groups"]
        ],
    }


def load_optimizer_state(optimizer: torch.optim.Optimizer, names: Mapping[int, str], state: Any) -> None:
    """Puts a state into an optimizer.

    Raises:
        CheckpointError: its parameters are not the same.
    """
    known = _parameter_names(optimizer, names)
    numbers = {name: number for number, name in enumerate(known)}
    wanted = [[known[number] for number in group["params"]] for group in optimizer.state_dict()["param_groups"]]
    stored = [group["params"] for group in state["param_groups"]]
    check_groups(stored, wanted)
    pairs = zip(state["param_groups"], optimizer.param_groups, strict=True)
    groups = [_options(from_tree(group), live, optimizer.defaults) for group, live in pairs]
    _check_shapes(optimizer, known, state["state"])
    optimizer.load_state_dict(
        {
            "state": {numbers[name]: from_tree(slots) for name, slots in state["state"].items()},
            # In the optimizer's own order, since load_state_dict pairs parameters by their place.
            "param_groups": [
                {**group, "params": [numbers[name] for name in names_here]}
                for group, names_here in zip(groups, wanted, strict=True)
            ],
        }
    )
    # So that a scheduler that steps before the next batch doesn't warn that nothing was optimized before.
    optimizer._opt_called = True  # type: ignore[attr-defined]


def _options(stored: dict[str, Any], live: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a stored parameter group, and those of the optimizer that another version of PyTorch had not.

    Raises:
        CheckpointError: there are others than the optimizer has, and some of its own are missing: it is another one.
    """
    missing = defaults.keys() - stored.keys()
    if missing and stored.keys() - live.keys() - _OF_SCHEDULERS:
        check_entries("optimizer", stored, live)
    common = stored.keys() & live.keys()
    check_entries("optimizer", *({name: options[name] for name in common} for options in (stored, live)))
    return {**stored, **{name: live[name] for name in missing}}


_OF_SCHEDULERS = {"initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum"}
"""Options that schedulers add, which a loop that is written by hand may make only after it has loaded."""


def _check_shapes(optimizer: torch.optim.Optimizer, known: list[str], stored: Mapping[str, Any]) -> None:
    """Compares the slots that an optimizer has already with the stored ones.

    Raises:
        CheckpointError: the message lists all that have another shape.
    """
    lines = []
    for number, slots in optimizer.state_dict()["state"].items():
        for slot, live in slots.items():
            found = stored.get(known[number], {}).get(slot)
            if isinstance(found, Array) and isinstance(live, torch.Tensor) and found.shape != tuple(live.shape):
                lines.append(f"shape of {known[number]} {slot}: stored {found.shape}, wanted {tuple(live.shape)}")
    if lines:
        raise CheckpointError("The optimizer's state doesn't fit. Differences:\n  " + "\n  ".join(sorted(lines)))


def load_scheduler_state(scheduler: Any, state: Any) -> None:
    """Puts a state into a scheduler.

    Raises:
        CheckpointError: it is that of another of PyTorch's schedulers. One of the user's may keep what it likes.
    """
    state = from_tree(state)
    if type(scheduler).__module__ == torch.optim.lr_scheduler.__name__:
        check_entries("scheduler", *(_public(entries) for entries in (state, scheduler.state_dict())))
    scheduler.load_state_dict(state)


def _public(entries: Any) -> Any:
    """The entries that don't change from one version of PyTorch to the next."""
    if not isinstance(entries, dict):
        return entries
    return {name: value for name, value in entries.items() if not name.startswith("_") and name != "verbose"}

"""State of PaddlePaddle objects as plain trees, and back."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import paddle
from paddle.optimizer.lr import CosineAnnealingWarmRestarts

from dowdyboy_core import CheckpointError, ConfigError
from dowdyboy_core.backend import Array, check_entries, check_groups, describe_differences, leaves_out_unmade

from ._arrays import has_content, layout_of, put, to_array, to_tensor
from ._names import identity


def move(model: paddle.nn.Layer, place: Any) -> paddle.nn.Layer:
    """A layer at a place; as it is if it is there.

    What has no content yet stays as it is: a recurrent layer holds such a buffer, which its kernel fills where it runs.
    ``Layer.to`` would raise.

    Raises:
        ConfigError: parameters have no content; the message names them.
    """
    empty = [path for path, item in model.named_parameters() if not has_content(item)]
    if empty:
        raise ConfigError(
            f"The parameters {empty[:5]} ({len(empty)} in all) were never initialized. Call initialize() of each of "
            "them, or make the model outside of LazyGuard."
        )
    tensors = [*model.parameters(), *model.buffers()]
    if tensors and all(item.place == place or not has_content(item) for item in tensors):
        return model
    layers = model.sublayers(include_self=True)
    unfilled = [
        (layer._buffers, name, item)
        for layer in layers
        for name, item in layer._buffers.items()
        if item is not None and not has_content(item)
    ]
    for buffers, name, _ in unfilled:
        buffers[name] = None
    try:
        return model.to(place)
    finally:
        for buffers, name, item in unfilled:
            buffers[name] = item


def to_tree(value: Any) -> Any:
    """A nested state with plain data for its tensors."""
    if isinstance(value, paddle.Tensor):
        return to_array(value)
    if type(value) is Counter:
        return value
    if isinstance(value, Mapping):
        return {key: to_tree(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(to_tree(item) for item in value)
    return value


def from_tree(tree: Any) -> Any:
    """A nested state with tensors for its plain data."""
    if isinstance(tree, Array):
        return to_tensor(tree)
    if type(tree) is dict:
        return {key: from_tree(item) for key, item in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(from_tree(item) for item in tree)
    return tree


def _tensors(model: paddle.nn.Layer) -> Iterator[tuple[str, paddle.Tensor]]:
    """The tensors of a model's state dict, which holds nothing else."""
    for name, value in model.state_dict().items():
        if not isinstance(value, paddle.Tensor):
            raise CheckpointError(
                f"The model's state {name!r} is a {type(value).__name__}, and only tensors can be stored. "
                "Register a tensor as the buffer."
            )
        yield name, value


def model_state(model: paddle.nn.Layer) -> dict[str, Array]:
    """The state dict of a model as plain data, in which tied tensors are one object."""
    copied: dict[Any, Array] = {}
    made_only = leaves_out_unmade()
    given = [(name, value) for name, value in _tensors(model) if not made_only or has_content(value)]
    found = [(name, value, identity(value)) for name, value in given]
    for name, value, same in found:
        if same not in copied:
            copied[same] = to_array(value, name)
    return {name: copied[same] for name, _, same in found}


def model_layout(model: paddle.nn.Layer) -> dict[str, Array]:
    """The types and shapes in that state, without its data."""
    return {name: layout_of(value) for name, value in _tensors(model)}


def layout_when_loaded(model: paddle.nn.Layer, state: Mapping[str, Array]) -> dict[str, Array] | None:
    """The types and shapes that a copy of a model has after a ``set_state_dict`` of its own; None if that fails."""
    if type(model).set_state_dict is paddle.nn.Layer.set_state_dict:  # which leaves out what doesn't fit
        return None
    try:
        trial = copy.deepcopy(model)
        trial.set_state_dict({name: to_tensor(array) for name, array in state.items()})
        return model_layout(trial)
    except Exception:  # whatever a copy or the model's own method raises: then it doesn't load
        return None


def load_model_state(model: paddle.nn.Layer, state: Mapping[str, Array]) -> None:
    """Puts a state that is known to fit into a model."""
    if describe_differences(state, model_layout(model)):
        model.set_state_dict({name: to_tensor(array) for name, array in state.items()})
        return
    live = model.state_dict()
    for name, array in state.items():
        put(live[name], array)


def parameter_groups(optimizer: Any) -> list[list[Any]]:
    """The parameters of an optimizer, group by group."""
    given = optimizer._parameter_list
    if given and isinstance(given[0], dict):
        return [list(group["params"]) for group in given]
    return [list(given)]


def _named_groups(optimizer: Any, names: Mapping[int, str]) -> list[list[str]]:
    known, number = [], 0
    for group in parameter_groups(optimizer):
        known.append([names.get(id(item), f"unnamed/{number + place}") for place, item in enumerate(group)])
        number += len(group)
    return known


def _paths(optimizer: Any, names: Mapping[int, str]) -> dict[str, str]:
    """For the framework's own name of each parameter, its path in its model.

    The own names are counted over the whole process; another building order gives others.
    """
    parameters = [item for group in parameter_groups(optimizer) for item in group]
    named = [name for group in _named_groups(optimizer, names) for name in group]
    paths = {item.name: name for item, name in zip(parameters, named, strict=True)}
    # With multi_precision the slots go by the name of the parameter's float32 copy.
    return paths | {copied.name: paths[own_name] for own_name, copied in _master_weights(optimizer).items()}


def _master_weights(optimizer: Any) -> dict[str, Any]:
    masters: dict[str, Any] = getattr(optimizer, "_master_weights", {})
    return masters


def optimizer_state(optimizer: Any, names: Mapping[int, str]) -> Any:
    """The state of an optimizer by the paths of its parameters."""
    paths = _paths(optimizer, names)
    state: dict[str, dict[str, Any]] = {}
    for slot, tensors in optimizer._accumulators.items():
        for own_name, tensor in tensors.items():
            state.setdefault(paths[own_name], {})[slot] = to_array(tensor)
    masters = {paths[own_name]: to_array(tensor) for own_name, tensor in _master_weights(optimizer).items()}
    # In the order of the parameters, since that of the first steps depends on what was frozen when.
    order = list(paths.values())
    schedule = optimizer._learning_rate
    by_clock = isinstance(schedule, paddle.optimizer.lr.LRScheduler)
    return {
        "state": {path: state[path] for path in sorted(state, key=order.index)},
        "master_weights": {path: masters[path] for path in sorted(masters, key=order.index)},
        "param_groups": [{"params": group} for group in _named_groups(optimizer, names)],
        "learning_rate": None if by_clock else optimizer.get_lr(),
        "LR_Scheduler": scheduler_state(schedule) if by_clock else None,
    }


def scheduler_state(scheduler: Any) -> Any:
    """The state of a scheduler, with what the framework leaves out of it."""
    state = to_tree(scheduler.state_dict())
    if isinstance(scheduler, CosineAnnealingWarmRestarts):
        state |= {name: getattr(scheduler, name) for name in _PLACE_IN_CYCLE}
    return state


def load_scheduler_state(scheduler: Any, state: Any) -> None:
    """Puts such a state into a scheduler.

    Raises:
        CheckpointError: it is that of another of PaddlePaddle's schedulers. One of the user's may keep what it likes.
    """
    state = from_tree(state)
    if type(scheduler).__module__ == paddle.optimizer.lr.__name__:
        check_entries("scheduler", state, scheduler_state(scheduler))
    if isinstance(scheduler, CosineAnnealingWarmRestarts):
        for name in _PLACE_IN_CYCLE & state.keys():
            setattr(scheduler, name, state.pop(name))
    with warnings.catch_warnings():
        # A LinearWarmup over another scheduler warns of what its own state_dict gave.
        warnings.filterwarnings("ignore", "There are some unused values in state_dict")
        scheduler.set_state_dict(state)


_PLACE_IN_CYCLE = {"T_cur", "T_i"}


def load_optimizer_state(optimizer: Any, names: Mapping[int, str], state: Any) -> None:
    """Puts a state into an optimizer.

    Raises:
        CheckpointError: its parameters or slots are not the same.
    """
    stored = [group["params"] for group in state["param_groups"]]
    check_groups(stored, _named_groups(optimizer, names))
    by_clock = isinstance(optimizer._learning_rate, paddle.optimizer.lr.LRScheduler)
    if by_clock != (state["LR_Scheduler"] is not None):
        raise CheckpointError(
            "The optimizer was saved with a scheduler as its learning rate and now has a number, or the other way "
            "round. "
            "Make it as when it was saved, or load the weights alone with weights_only=True."
        )
    wanted = {(path, slot): array for path, slots in state["state"].items() for slot, array in slots.items()}
    wanted |= {(path, _MASTER): array for path, array in state["master_weights"].items()}
    for key, tensor in _live_slots(optimizer, names, wanted).items():
        put(tensor, wanted[key])
    _forget_slots(optimizer, names, state["state"])
    if by_clock:
        load_scheduler_state(optimizer._learning_rate, state["LR_Scheduler"])
    else:
        optimizer.set_lr(state["learning_rate"])


_MASTER = "master_weight"


def _live_slots(
    optimizer: Any, names: Mapping[int, str], wanted: Mapping[tuple[str, str], Array]
) -> dict[tuple[str, str], Any]:
    """The optimizer's own tensors for every stored slot, made now if it has not stepped yet."""
    stored = {path for path, _ in wanted}
    paths = _paths(optimizer, names)
    block = paddle.base.framework.default_main_program().global_block()
    for group in parameter_groups(optimizer):
        # set_state_dict would keep the values for later, under names that only that later step makes up.
        optimizer._create_accumulators(block, [item for item in group if paths[item.name] in stored])
    paths = _paths(optimizer, names)  # anew: the float32 copies may only just have been made
    kinds = {**optimizer._accumulators, _MASTER: _master_weights(optimizer)}
    live = {
        (paths[own_name], slot): tensor
        for slot, tensors in kinds.items()
        for own_name, tensor in tensors.items()
        if paths[own_name] in stored
    }
    lines = [f"missing: {path} {slot}" for path, slot in live.keys() - wanted.keys()]
    lines += [f"not in the optimizer: {path} {slot}" for path, slot in wanted.keys() - live.keys()]
    for key in live.keys() & wanted.keys():
        kept, own = wanted[key], layout_of(live[key])
        stored_as, live_as = (kept.shape, kept.dtype), (own.shape, own.dtype)
        if stored_as != live_as:
            lines.append(f"shape or type of {' '.join(key)}: stored {stored_as}, wanted {live_as}")
    if lines:
        raise CheckpointError("The optimizer's state doesn't fit. Differences:\n  " + "\n  ".join(sorted(lines)))
    return live


def _forget_slots(optimizer: Any, names: Mapping[int, str], stored: Mapping[str, Any]) -> None:
    """Drops the slots of parameters that had none when the state was saved; their next step starts afresh."""
    forgotten = [own_name for own_name, path in _paths(optimizer, names).items() if path not in stored]
    for tensors in (*optimizer._accumulators.values(), _master_weights(optimizer)):
        for own_name in forgotten:
            tensors.pop(own_name, None)
    optimizer._already_create_accumulator.difference_update(forgotten)


def rng_state(device: str) -> list[Any]:
    """The states of the generators: of the CPU, and of each GPU where the device is one."""
    states = paddle.get_rng_state("cpu") + ([] if device == "cpu" else paddle.get_rng_state())
    return [state.__getstate__() for state in states]


def set_rng_state(device: str, state: list[Any]) -> None:
    """Puts such states back."""
    kind = paddle.base.core.GeneratorState
    restored = []
    for plain in state:
        restored.append(kind.__new__(kind))
        restored[-1].__setstate__(plain)
    # Not paddle.set_rng_state(…, "cpu"), which PaddlePaddle before 3.3 refuses on a CPU.
    paddle.base.core.default_cpu_generator().set_state(restored[0])
    if device != "cpu" and len(restored) == 1 + paddle.device.cuda.device_count():
        paddle.set_rng_state(restored[1:])

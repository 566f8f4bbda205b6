"""State of the user's own: of objects that aren't modules, and of modules beside their ``state_dict``.

A counter, an average of the weights, a metric half-way through a validation: whatever is given to the trainer and has
a state is part of the run. Each process has a state of its own, since each sees data of its own; where they are all
equal, as those of an average of the weights, one is stored for all.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from enum import Enum
from hashlib import blake2b
from typing import Any, NamedTuple

from dowdyboy_core._errors import CheckpointError
from dowdyboy_core.backend.arrays import Array, Member, from_numpy
from dowdyboy_core.backend.seam import Backend
from dowdyboy_core.backend.trees import encode

from .assembly import Assembly

_FIRST_VERSION = 2
"""The format version from which on these states are stored."""


class Owner(NamedTuple):
    """An object with a state of its own, and the way to it.

    Attributes:
        state: what it is now, with the framework's tensors in it.
        load: puts such a state in place.
    """

    state: Any
    load: Callable[[Any], None]


def capture(backend: Backend, parts: Assembly) -> dict[str, Any]:
    """The state of every owner by the name of its file, a list: one for all processes, or one for each of them.

    All processes come here.
    """
    own = here(backend, parts)
    if backend.world_size == 1:
        return {name: [state] for name, state in own.items()}
    digests = backend.gather({name: _digest(name, state) for name, state in own.items()})
    different = {name for name in own if any(other.get(name) != digests[0].get(name) for other in digests)}
    everyone = backend.gather({name: own[name] for name in sorted(different)})
    return {
        name: [other[name] for other in everyone if name in other] if name in different else [state]
        for name, state in own.items()
    }


def here(backend: Backend, parts: Assembly) -> dict[str, Any]:
    """The state that every owner has in this process, by the name of its file."""
    return {name: plain_state(backend, owner.state) for name, owner in _owners(backend, parts).items()}


def check(backend: Backend, parts: Assembly, trees: Mapping[str, Any], version: int, folder: str) -> None:
    """Refuses a checkpoint whose states are not of the objects that have one here.

    Raises:
        CheckpointError: the message lists those that are on one side only.
    """
    owners = _owners(backend, parts).keys()
    here = {name for name in owners if not name.endswith("_beside")}
    stored = {name for name in trees if name.startswith(("model_", "component_"))}
    lines = [f"not in the trainer, or without a state there: {name}" for name in stored - owners]
    if version >= _FIRST_VERSION:
        lines += [f"not in the checkpoint: {name}" for name in here - stored]
    lines += [f"of the wrong kind: {name}" for name in stored if not isinstance(trees[name], list) or not trees[name]]
    if lines:
        listed = "\n  ".join(sorted(lines))
        raise CheckpointError(
            f"{folder!r} doesn't have the states of the components that were set; nothing was loaded. Give "
            "set_components the same, in the same order, as when it was saved, or load the weights alone with "
            f"weights_only=True. Differences:\n  {listed}"
        )


def missing(backend: Backend, parts: Assembly, trees: Mapping[str, Any]) -> list[str]:
    """The owners of which a checkpoint, an older one, has no state: they stay as the script made them."""
    return sorted(name for name in _owners(backend, parts) if name not in trees)


def load(backend: Backend, parts: Assembly, trees: Mapping[str, Any]) -> None:
    """Puts stored states in place; those of other processes than there are now stay out."""
    for name, owner in _owners(backend, parts).items():
        states = trees.get(name, [])
        if len(states) == 1 or backend.rank < len(states):
            owner.load(_revive(backend, states[0 if len(states) == 1 else backend.rank], owner.state))


def _owners(backend: Backend, parts: Assembly) -> dict[str, Owner]:
    """All that has a state of its own, by the name of its file."""
    found = {}
    named = [(f"model_{number}", item) for number, item in enumerate(parts.raw_models())]
    named += [(f"component_{number}", item) for number, item in enumerate(parts.components)]
    elsewhere = {id(item) for item in (*parts.optimizers, *parts.schedulers)}  # saved as what they are
    for name, item in named:
        is_model = backend.is_model(item)
        state = backend.own_state(item)
        if state is not None:
            found[f"{name}_beside" if is_model else name] = Owner(state, _loading(backend, item))
        elif not is_model and id(item) not in elsewhere:
            by_methods = _by_methods(item)
            if by_methods is not None:
                found[name] = by_methods
    return found


def _loading(backend: Backend, item: Any) -> Callable[[Any], None]:
    return lambda state: backend.load_own_state(item, state)


def _by_methods(item: Any) -> Owner | None:
    """An object that says by its methods that it has a state; a class isn't one."""
    give = getattr(item, "state_dict", None)
    take = getattr(item, "load_state_dict", None) or getattr(item, "set_state_dict", None)
    if isinstance(item, type) or not callable(give) or not callable(take):
        return None
    return Owner(give(), take)


def plain_state(backend: Backend, value: Any) -> Any:
    """A state with plain data for its tensors and arrays, all of it copied."""
    if backend.describe_tensor(value) is not None:
        return backend.tensor_state(value)
    if isinstance(value, Enum):
        return Member(plain_state(backend, value.value))
    if isinstance(value, Counter):
        return Counter(value)
    if isinstance(value, Mapping):
        return {key: plain_state(backend, item) for key, item in value.items()}
    if type(value) is deque:
        return deque((plain_state(backend, item) for item in value), value.maxlen)
    if isinstance(value, tuple):  # a named one is a tuple of its own class, which the script has
        return tuple(plain_state(backend, item) for item in value)
    if type(value) is list:
        return [plain_state(backend, item) for item in value]
    if type(value) is set:
        return set(value)
    if type(value).__module__ == "numpy" and from_numpy(value) is not None:
        return value.copy()
    return value


def _revive(backend: Backend, stored: Any, live: Any) -> Any:
    """A state from plain data, of the types that the script has at each place; no name in a file is ever looked up."""
    if isinstance(stored, Array):
        return backend.tensor_from_state(stored, live if backend.describe_tensor(live) is not None else None)
    if isinstance(stored, Member):
        if not isinstance(live, Enum):
            raise CheckpointError(
                f"A member of an enumeration is stored, {stored.value!r:.80}, where the object has {live!r:.80}. Have "
                "it begin with a member there."
            )
        return type(live)(_revive(backend, stored.value, live.value))
    if type(stored) is dict:
        known = live if isinstance(live, Mapping) else {}
        items = {key: _revive(backend, item, known.get(key)) for key, item in stored.items()}
        if isinstance(live, OrderedDict):
            return OrderedDict(items)
        return defaultdict(live.default_factory, items) if isinstance(live, defaultdict) else items
    if type(stored) in (list, tuple, deque):
        known_items = list(live) if isinstance(live, (list, tuple, deque)) else []
        known_items += [known_items[-1] if known_items else None] * (len(stored) - len(known_items))
        revived = [_revive(backend, item, known_items[place]) for place, item in enumerate(stored)]
        if type(stored) is deque:
            return deque(revived, stored.maxlen)
        if type(stored) is tuple and isinstance(live, tuple) and hasattr(live, "_fields"):
            return type(live)(*revived)
        return revived if type(stored) is list else tuple(revived)
    return stored


def _digest(name: str, state: Any) -> str:
    value, arrays = encode(state, name)
    whole = blake2b(repr(value).encode("utf-8", "surrogatepass"), digest_size=16)
    for key in sorted(arrays):
        whole.update(repr((key, arrays[key].dtype, tuple(arrays[key].shape))).encode("utf-8", "surrogatepass"))
        whole.update(memoryview(arrays[key].data).tobytes())
    return whole.hexdigest()

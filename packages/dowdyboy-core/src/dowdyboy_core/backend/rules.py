"""The rules of one framework: what its classes of layers are, and how a model is described by them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dowdyboy_core._errors import ConfigError

from .known_layouts import LAYOUTS
from .layouts import DEFAULTS, Layout, OwnTensor, places
from .words import BUFFER, PARAMETER, Layer, ModelWords, Place


class Rules:
    """The kinds of a framework's layers, by class.

    Args:
        own_modules: with what the names of the modules begin in which the framework's own layers are; a class in
            these that has no rule is no class of the user's.
        framework: the name of one whose layouts the core knows: then a kind is enough to add a class.
    """

    def __init__(self, *own_modules: str, framework: str = "") -> None:
        self.framework = framework
        self._own_modules = own_modules
        self._rules: dict[type, tuple[str, Layout]] = {}
        self._children: dict[type, dict[str, str]] = {}
        self._holders: tuple[type, ...] = ()

    def add(self, cls: type, kind: str, layout: Layout | str = "") -> None:
        """Adds a class of layers with a layout, or with that of its kind in a framework, this one if none is named."""
        known = LAYOUTS[layout or self.framework][kind] if isinstance(layout, str) else layout
        self._rules[cls] = kind, known

    def add_holders(self, *classes: type) -> None:
        """Adds classes of the framework's that hold tensors of the user's."""
        self._holders += classes

    def add_child(self, cls: type, name: str, neutral: str) -> None:
        """Adds how a module in those of a class is called in the neutral words."""
        self._children.setdefault(cls, {})[name] = neutral

    def register(self, cls: Any, base: type, kind: Any, tensors: Any) -> None:
        """Adds a class of the user's.

        Raises:
            ConfigError: it is no class of modules, or the roles are none.
        """
        if not (isinstance(cls, type) and issubclass(cls, base)):
            raise ConfigError(
                f"register_exchange got {cls!r:.80}, which is no class of modules. Give the class itself."
            )
        if not isinstance(kind, str) or not kind:
            raise ConfigError(f"register_exchange got kind={kind!r:.80}. Give a word, the same in both frameworks.")
        if not isinstance(tensors, Mapping) or not tensors:
            raise ConfigError(
                f"register_exchange got tensors={tensors!r:.80}. Give for the name of each tensor its role: "
                '{"kernel": "weight"}, or its role and the order of its axes: {"kernel": ("weight", (1, 0))}.'
            )
        self.add(cls, kind, tuple(_own(name, given) for name, given in tensors.items()))

    def of(self, cls: type) -> tuple[str, Layout] | None:
        """The kind and the layout of a class, by the nearest class above it that has a rule."""
        return next((self._rules[one] for one in cls.__mro__ if one in self._rules), None)

    def is_own(self, cls: type) -> bool:
        """Whether a class is the framework's and not the user's."""
        return cls.__module__.startswith(self._own_modules) and cls not in self._holders

    def neutral_child(self, cls: type, name: str) -> str:
        """How a module in one of a class is called in the neutral words."""
        return next((self._children[one].get(name, name) for one in cls.__mro__ if one in self._children), name)


def _own(name: Any, given: Any) -> OwnTensor:
    role, axes = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    fine = isinstance(name, str) and isinstance(role, str)
    if axes is not None:
        fine = fine and isinstance(axes, (list, tuple)) and sorted(axes) == list(range(len(axes)))
    if not fine:
        raise ConfigError(
            f"register_exchange got {name!r:.40}: {given!r:.80}. Give a role, a word, or a role and the order of the "
            'axes, ("weight", (1, 0)).'
        )
    return OwnTensor(name, role, None if axes is None else tuple(axes))


def describe_layers(
    rules: Rules,
    modules: Mapping[str, Any],
    tensors: Mapping[str, tuple[tuple[int, ...], Any]],
    trained: Iterable[str],
    reparametrised: Callable[[Any, set[str]], Layout],
) -> ModelWords:
    """Describes a model.

    Args:
        rules: of its framework.
        modules: its modules by path, itself first, those above before those below.
        tensors: what its ``state_dict`` has, by name: shape, and what two names of one tensor have in common.
        trained: the names of those that are parameters; the others are buffers.
        reparametrised: gives the further rules for what a layer keeps in the place of its weight.
    """
    first: dict[Any, str] = {}
    tied: dict[str, str] = {}
    for name, (_, same) in tensors.items():
        known = first.setdefault(same, name)
        if known != name:
            tied[name] = known
    left = dict.fromkeys(tensors)
    inside = _by_module(tensors)
    paths = _neutral_paths(rules, modules)
    parameters, layers = set(trained), list[Layer]()
    for path, module in modules.items():
        below = {name: full for name, full in inside.get(path, {}).items() if full in left}
        rule = rules.of(type(module))
        found: dict[str, Place] = {}
        if rule is not None:
            shapes = {name: tensors[full][0] for name, full in below.items()}
            found, named = places((*rule[1], *reparametrised(module, set(shapes))), shapes, path)
            for name in named:
                left.pop(below[name])
            below = {name: full for name, full in below.items() if name not in named}
            if found or any(kind == rule[0] for kind, _ in DEFAULTS):
                layers.append(Layer(paths[path], rule[0], type(module).__name__, _first_names(found, tied)))
        plain = {name: full for name, full in below.items() if "." not in name}
        for name, full in plain.items():
            left.pop(full)
            unknown = rules.is_own(type(module))
            kind = None if unknown else PARAMETER if full in parameters else BUFFER
            at = {"value": Place(tied.get(full, full), tensors[full][0])}
            cls = f"{type(module).__module__}.{type(module).__name__}" if unknown else type(module).__name__
            layers.append(Layer(f"{paths[path]}.{name}" if path else name, kind, cls, at))
    for full in left:  # below a module that no walk comes to
        layers.append(Layer(full, None, "tensor", {"value": Place(full, tensors[full][0])}))
    return ModelWords(tuple(layers), tied)


def _by_module(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """For the path of each module the tensors at and below it, by their names in it."""
    found: dict[str, dict[str, str]] = {}
    for full in names:
        parts = full.split(".")
        for depth in range(len(parts)):
            found.setdefault(".".join(parts[:depth]), {})[".".join(parts[depth:])] = full
    return found


def _first_names(found: Mapping[str, Place], tied: Mapping[str, str]) -> dict[str, Place]:
    return {
        role: Place(tied.get(place.array, place.array), place.stored, place.rows, place.axes, place.flat)
        for role, place in found.items()
    }


def _neutral_paths(rules: Rules, modules: Mapping[str, Any]) -> dict[str, str]:
    """The path of each module in the neutral words."""
    found: dict[str, str] = {}
    for path in modules:
        above, _, name = path.rpartition(".")
        if not path or above not in modules:
            found[path] = path
            continue
        own = rules.neutral_child(type(modules[above]), name)
        found[path] = f"{found[above]}.{own}" if above else own
    return found

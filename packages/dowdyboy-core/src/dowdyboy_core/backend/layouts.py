"""How the layers of a framework keep the tensors of each kind of layer, as tables.

A backend names the class of each of its layers a kind; a table says how that kind's tensors are called and how they
lie there. The neutral layouts are those of docs/exchange.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .words import Place


@dataclass(frozen=True)
class OwnTensor:
    """One tensor of a layer, or several that stand for one another's rows.

    Attributes:
        name: the framework's name of it, in which ``{n}`` stands for a number.
        roles: the role that it has, with the same ``{n}``, or the roles that share its rows equally; none for a further
            name of a tensor.
        axes: for each axis of the neutral tensor its place in the framework's; None if they are the same.
        flat: whether the neutral tensor has one axis only.
    """

    name: str
    roles: str | tuple[str, ...]
    axes: tuple[int, ...] | None = None
    flat: bool = False

    def matches(self, name: str) -> str | None:
        """The number in a name that is this one; ``''`` if it has none, None if it is another name."""
        pattern = re.escape(self.name).replace(re.escape("{n}"), "([0-9]+)")
        found = re.fullmatch(pattern, name)
        if found is None:
            return None
        return found[1] if found.groups() else ""


Layout = tuple[OwnTensor, ...]
"""The tensors of one kind of layer in one framework."""


def places(
    layout: Iterable[OwnTensor], shapes: Mapping[str, tuple[int, ...]], path: str
) -> tuple[dict[str, Place], set[str]]:
    """Where each neutral tensor of a layer lies.

    Args:
        layout: of its kind, in its framework.
        shapes: of all tensors at and below the layer, by their names in it.
        path: the layer's path in its model.

    Returns:
        The place of each role, and the names in the layer that the layout knows, further names of a tensor included.
    """
    found: dict[str, Place] = {}
    known: set[str] = set()
    rows = list(layout)
    for name, shape in shapes.items():
        for own in rows:
            number = own.matches(name)
            if number is None:
                continue
            known.add(name)
            full = f"{path}.{name}" if path else name
            axes = own.axes if own.axes is not None and len(shape) == len(own.axes) else None
            roles = (own.roles,) if isinstance(own.roles, str) else own.roles
            share = shape[0] // len(roles) if len(roles) > 1 else 0
            for place, role in enumerate(roles):
                taken = (place * share, (place + 1) * share) if share else None
                found.setdefault(role.replace("{n}", number), Place(full, shape, taken, axes, own.flat))
            break
    return found, known


def neutral_shape(place: Place) -> tuple[int, ...]:
    """The shape that the neutral tensor at a place has."""
    shape = list(place.stored)
    if place.rows is not None:
        shape[0] = place.rows[1] - place.rows[0]
    if place.axes is not None:
        shape = [shape[axis] for axis in place.axes]
    return (math.prod(shape),) if place.flat else tuple(shape)


def norm_role(axis: int | None) -> str:
    """The role of the lengths of a weight norm that leaves out an axis of the neutral weight, or none."""
    return "weight_norm" if axis == 0 else "weight_norm_whole" if axis is None else f"weight_norm_{axis}"


def original_role(axis: int) -> str:
    """The role of the weight that a spectral norm is made of, with that axis of the neutral weight as its rows."""
    return "weight_original" if axis == 0 else f"weight_original_{axis}"


DEFAULTS: Mapping[tuple[str, str], float] = {
    ("instance_norm", "weight"): 1.0,
    ("instance_norm", "bias"): 0.0,
    ("group_norm", "weight"): 1.0,
    ("group_norm", "bias"): 0.0,
    ("layer_norm", "weight"): 1.0,
    ("layer_norm", "bias"): 0.0,
    ("batch_norm", "weight"): 1.0,
    ("batch_norm", "bias"): 0.0,
}
"""What a tensor that a layer need not have is where it is not there."""
_RECURRENT = ("lstm", "gru", "rnn", "lstm_cell", "gru_cell", "rnn_cell")


def default_of(kind: str, role: str) -> float | None:
    """What a tensor that a layer need not have is where it is not there; None of one that it has to have."""
    if kind in _RECURRENT and role.startswith("bias_"):  # which some frameworks can't leave out
        return 0.0
    return DEFAULTS.get((kind, role))


PASSENGERS: frozenset[tuple[str, str]] = frozenset({("batch_norm", "batches")})
"""What only some frameworks keep, and no computation of the others wants: it travels along."""

BUFFERS: frozenset[str] = frozenset({"running_mean", "running_var", "batches", "weight_left", "weight_right"})
"""The roles of tensors that no optimizer trains."""

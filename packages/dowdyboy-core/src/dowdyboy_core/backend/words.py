"""The words that no framework owns: what a checkpoint says its tensors are (docs/exchange.md).

A *description* tells of each tensor to which kind of layer it belongs, in which role, and how it lies in the file
beside how the neutral layout has it. Everything here is plain data, so that it can be stored and read without the
framework that wrote it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dowdyboy_core._errors import CheckpointError

_MOST = 2**53

PARAMETER, BUFFER = "parameter", "buffer"
"""The kinds of tensors that stand in a module of the user's own: they lie alike in every framework."""


@dataclass(frozen=True)
class Place:
    """Where a neutral tensor lies in a stored array.

    The neutral tensor is the stored array, of which ``rows`` are taken along the first axis, then the axes are put into
    the order ``axes``, and then, with ``flat``, all of them become one.

    Attributes:
        array: the name of the stored array.
        stored: the shape of that array.
        rows: the first row and the one after the last; None for all.
        axes: for each axis of the neutral tensor its place in the stored one; None if they are the same.
        flat: whether the neutral tensor has one axis, whatever the stored one has.
    """

    array: str
    stored: tuple[int, ...]
    rows: tuple[int, int] | None = None
    axes: tuple[int, ...] | None = None
    flat: bool = False

    def plain(self) -> dict[str, Any]:
        """This, as plain data."""
        entries: dict[str, Any] = {"array": self.array, "stored": list(self.stored)}
        if self.rows is not None:
            entries["rows"] = list(self.rows)
        if self.axes is not None:
            entries["axes"] = list(self.axes)
        return entries | ({"flat": True} if self.flat else {})

    @classmethod
    def read(cls, entries: Any) -> Place:
        """That again.

        Raises:
            CheckpointError: it is no such thing.
        """
        _check(isinstance(entries, Mapping) and isinstance(entries.get("array"), str))
        stored, rows, axes = (entries.get(name) for name in ("stored", "rows", "axes"))
        _check(_are_counts(stored) and (rows is None or (_are_counts(rows) and len(rows) == 2)))
        rank = len(stored)
        if rows is not None:
            _check(rank > 0 and rows[0] <= rows[1] <= stored[0])
        _check(axes is None or (_are_counts(axes) and sorted(axes) == list(range(rank))))
        return cls(
            entries["array"],
            tuple(stored),
            None if rows is None else (rows[0], rows[1]),
            None if axes is None else tuple(axes),
            entries.get("flat") is True,
        )


@dataclass(frozen=True)
class Layer:
    """A module, or a tensor of a module of the user's own.

    Attributes:
        path: where it stands in its model.
        kind: what it is; None for a class of the framework's that no rule is known of.
        cls: the class, for messages.
        places: for each role where its tensor lies.
    """

    path: str
    kind: str | None
    cls: str
    places: Mapping[str, Place]

    def plain(self) -> dict[str, Any]:
        """This, as plain data."""
        places = {role: place.plain() for role, place in self.places.items()}
        return {"path": self.path, "kind": self.kind, "class": self.cls, "roles": places}

    @classmethod
    def read(cls, entries: Any) -> Layer:
        """That again.

        Raises:
            CheckpointError: it is no such thing.
        """
        _check(isinstance(entries, Mapping) and isinstance(entries.get("roles"), Mapping))
        path, kind, name = entries.get("path"), entries.get("kind"), entries.get("class")
        _check(isinstance(path, str) and isinstance(kind, str | None) and isinstance(name, str))
        places = {_text(role): Place.read(place) for role, place in entries["roles"].items()}
        return cls(path, kind, name, places)


@dataclass(frozen=True)
class ModelWords:
    """What a model consists of.

    Attributes:
        layers: those that have tensors, in the order of the model.
        tied: for each further name of a tensor that goes by several the one that ``layers`` has.
    """

    layers: tuple[Layer, ...]
    tied: Mapping[str, str] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """This, as plain data."""
        return {"layers": [layer.plain() for layer in self.layers], "tied": dict(self.tied)}

    @classmethod
    def read(cls, entries: Any) -> ModelWords:
        """That again.

        Raises:
            CheckpointError: it is no such thing.
        """
        _check(isinstance(entries, Mapping) and isinstance(entries.get("layers"), list))
        tied = entries.get("tied")
        _check(isinstance(tied, Mapping) and all(isinstance(item, str) for pair in tied.items() for item in pair))
        return cls(tuple(map(Layer.read, entries["layers"])), dict(tied))


@dataclass(frozen=True)
class Slot:
    """How an optimizer keeps what a neutral slot means.

    Attributes:
        name: the optimizer's own name of it.
        meaning: the neutral one; ``'step'`` for what only depends on how many steps there were.
        form: ``'tensor'`` (as the parameter lies), ``'number'`` (an array without axes, which is a count for
            ``'step'``), ``'count'`` (the same as int64 of shape (1,)), ``'filled'`` (a number in the shape of the
            parameter), ``'rated'`` (a tensor that holds the learning rate as a factor), ``'zeros'`` (a tensor that no
            step looks at), or one of the functions of the step in ``_exchange.slots``.
        settings: what that function wants to know.
    """

    name: str
    meaning: str
    form: str = "tensor"
    settings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class OptimizerWords:
    """What an optimizer is, and how it keeps its state.

    Attributes:
        kind: what it is; None for a class that no rule is known of.
        cls: the class, for messages.
        slots: what it keeps of each parameter.
        rates: the learning rate of each of its parameter groups.
        settings: its other settings in neutral words: betas, eps, weight_decay, …
    """

    kind: str | None
    cls: str
    slots: tuple[Slot, ...] = ()
    rates: tuple[float, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """This, as plain data."""
        slots = [
            {"name": item.name, "meaning": item.meaning, "form": item.form, "settings": dict(item.settings)}
            for item in self.slots
        ]
        return {
            "kind": self.kind,
            "class": self.cls,
            "slots": slots,
            "rates": list(self.rates),
            "settings": dict(self.settings),
        }

    @classmethod
    def read(cls, entries: Any) -> OptimizerWords:
        """That again.

        Raises:
            CheckpointError: it is no such thing.
        """
        _check(isinstance(entries, Mapping) and isinstance(entries.get("kind"), str | None))
        slots, rates, settings = (entries.get(name) for name in ("slots", "rates", "settings"))
        _check(isinstance(slots, list) and isinstance(settings, Mapping) and isinstance(entries.get("class"), str))
        _check(isinstance(rates, list) and all(type(rate) is float and math.isfinite(rate) for rate in rates))
        for item in slots:
            _check(isinstance(item, Mapping) and isinstance(item.get("settings"), Mapping))
            _check(all(isinstance(item.get(name), str) for name in ("name", "meaning", "form")))
            _check(all(map(_is_number, item["settings"].values())))
        return cls(
            entries["kind"],
            entries["class"],
            tuple(Slot(item["name"], item["meaning"], item["form"], item["settings"]) for item in slots),
            tuple(rates),
            settings,
        )


@dataclass(frozen=True)
class ScheduleWords:
    """How far a scheduler has come.

    Attributes:
        kind: what it is; None for a class that no rule is known of.
        cls: the class, for messages.
        position: how often it has stepped.
        rate: the learning rate that it gives the first parameter group next.
        follows: what one that follows a value knows: best, bad epochs, cooldown.
        cycle: where in its cycle one with restarts is: how far in it, and how long it is.
        parts: those that it is made of.
    """

    kind: str | None
    cls: str
    position: int = 0
    rate: float | None = None
    follows: Mapping[str, Any] | None = None
    cycle: tuple[float, float] | None = None
    parts: tuple[ScheduleWords, ...] = ()

    def plain(self) -> dict[str, Any]:
        """This, as plain data."""
        entries: dict[str, Any] = {"kind": self.kind, "class": self.cls, "position": self.position, "rate": self.rate}
        if self.follows is not None:
            entries["follows"] = dict(self.follows)
        if self.cycle is not None:
            entries["cycle"] = list(self.cycle)
        return entries | ({"parts": [part.plain() for part in self.parts]} if self.parts else {})

    @classmethod
    def read(cls, entries: Any) -> ScheduleWords:
        """That again.

        Raises:
            CheckpointError: it is no such thing.
        """
        _check(isinstance(entries, Mapping) and isinstance(entries.get("kind"), str | None))
        position, rate = entries.get("position"), entries.get("rate")
        follows, cycle, parts = entries.get("follows"), entries.get("cycle"), entries.get("parts", [])
        # Before its first step one that others come before is at -1.
        _check(type(position) is int and is_count(position + 1) and (rate is None or _is_number(rate)))
        _check(isinstance(parts, list) and isinstance(entries.get("class"), str))
        if follows is not None:
            _check(isinstance(follows, Mapping) and all(is_count(follows.get(name)) for name in ("bad", "cooldown")))
            _check(follows.get("best", "nothing") is None or _is_number(follows.get("best")))
        _check(cycle is None or (isinstance(cycle, list | tuple) and len(cycle) == 2 and all(map(_is_number, cycle))))
        return cls(
            entries["kind"],
            entries["class"],
            position,
            rate,
            follows,
            None if cycle is None else (cycle[0], cycle[1]),
            tuple(map(cls.read, parts)),
        )


def is_count(value: Any) -> bool:
    """Whether a value that was read is a number of steps, rows, …: none that runs come to is larger."""
    return type(value) is int and 0 <= value <= _MOST


def _are_counts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(is_count, value))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -_MOST <= value <= _MOST


def _text(value: Any) -> str:
    _check(isinstance(value, str))
    return str(value)


def _check(fine: bool) -> None:
    if not fine:
        raise CheckpointError("The checkpoint has no exchange.json of the right kind. Use another checkpoint.")

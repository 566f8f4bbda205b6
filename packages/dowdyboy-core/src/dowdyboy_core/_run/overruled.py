"""The plain numbers of optimizers and schedulers: saved as the script gave them, to tell at a resume what is overruled.

A state says what a number has come to, and not whether a schedule or the user moved it. So a checkpoint has the
numbers that its run began with, too: what the script of a resumed run gives otherwise, the user has changed.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dowdyboy_core._errors import CheckpointError
from dowdyboy_core.backend.arrays import Array, to_numpy
from dowdyboy_core.backend.seam import Backend

from .assembly import Assembly

_SHOWN = 16  # rows
_LISTED = 32  # numbers in one entry
_LENGTH = "steps in all"
_RATES = {"lr", "learning_rate", "initial_lr", "base_lr", "base_lrs", "last_lr", "initial"}
"""Names under which frameworks keep one learning rate in several places."""

Row = tuple[str, Any, str, str]
"""Name, the script's, the checkpoint's in words, and which is in force."""


class ScriptNumbers:
    """What the script gave for numbers, of the run that is under way and of the objects that are set now.

    Args:
        backend: the framework.
        parts: of the run.
    """

    def __init__(self, backend: Backend, parts: Assembly) -> None:
        self._backend = backend
        self._parts = parts
        self._began: dict[str, Any] | None = None  # what the run began with, maybe in an older process
        self._seen: tuple[list[Any], dict[str, Any]] = ([], {})

    def look(self) -> dict[str, Any]:
        """The numbers of what is set now, as they were when this first saw it."""
        parts = self._parts
        objects = [*parts.optimizers, *parts.schedulers]
        known, numbers = self._seen
        if not numbers or len(known) != len(objects) or any(map(operator.is_not, known, objects)):
            try:
                numbers = self._numbers()
            except CheckpointError:  # what can't be stored is refused, and named, where it is to be
                numbers = {}
            self._seen = objects, numbers
        return numbers

    def _numbers(self) -> dict[str, Any]:
        backend, parts = self._backend, self._parts
        names, found = parts.parameter_names(), {}
        for place, (optimizer, scheduler) in enumerate(zip(parts.optimizers, parts.schedulers, strict=True)):
            found[f"optimizer_{place}"] = _flat(backend.optimizer_state(optimizer, names))
            if scheduler is not None:
                length = backend.schedule_length(scheduler)
                found[f"lr_scheduler_{place}"] = {**_flat(backend.scheduler_state(scheduler)), _LENGTH: length}
        return found

    def begin(self) -> None:
        """Begins a run with what the script gives."""
        self._began = self.look()

    def state(self) -> dict[str, Any]:
        """What the run began with, for a checkpoint."""
        return self.look() if self._began is None else self._began

    def take_up(self, stored: dict[str, Any] | None) -> None:
        """Goes on with a run that began with these; None of a checkpoint that doesn't know."""
        self._began = self.look() if stored is None else stored

    def compare(self, trees: Mapping[str, Any]) -> list[Row]:
        """What the script gives otherwise than that of the saved run did, and a checkpoint now overrules.

        Args:
            trees: those of the checkpoint, which is not in place yet.
        """
        began, rows = trees.get("script") or {}, list[Row]()
        for name, now in self.look().items():
            tree, before = _flat(trees.get(name)), began.get(name, {})
            for path, value in now.items():
                if path not in before or _same(value, before[path]) or _same(value, tree.get(path)):
                    continue
                if path != _LENGTH and path not in tree:  # the framework leaves it to the script
                    continue
                rows.append(_row(name, path, value, before[path], tree.get(path, before[path])))
        return _once(rows)


def check(stored: Any) -> None:
    """Refuses what is no table of numbers.

    Raises:
        CheckpointError: it is none.
    """
    fine = stored is None or (
        isinstance(stored, dict)
        and all(isinstance(entries, dict) and all(map(_is_entry, entries.values())) for entries in stored.values())
    )
    if not fine:
        raise CheckpointError("The checkpoint has no script.json of the right kind. Use another checkpoint.")


def described(folder: str, rows: Sequence[Row]) -> str:
    """What is overruled, as a table, and how to have it otherwise."""
    table = [("name", "script", "checkpoint", "in force")]
    table += [(name, _word(value), other, force) for name, value, other, force in rows[:_SHOWN]]
    widths = [max(len(line[column]) for line in table) for column in range(3)]
    lines = [
        "  " + "  ".join([*(text.ljust(width) for text, width in zip(line[:3], widths, strict=True)), line[3]])
        for line in table
    ]
    if len(rows) > _SHOWN:
        lines.append(f"  and {len(rows) - _SHOWN} more")
    listed = "\n".join(lines)
    return (
        f"The script was changed since the run in {folder!r} began, and a resumed run goes on with what is saved:\n"
        f"{listed}\nTo have the script's, begin from the weights with load_checkpoint(..., weights_only=True), or set "
        "them on the optimizer and the scheduler after load_checkpoint."
    )


def of_settings(index: Mapping[str, Any], seed: int, precision: str) -> list[Row]:
    """The same of settings that a checkpoint notes."""
    rows = list[Row]()
    if index.get("seed", seed) != seed:
        force = "the script's for the order of data, the checkpoint's for the random streams"
        rows.append(("seed", seed, _word(index["seed"]), force))
    if index["precision"] != precision:
        rows.append(("precision", precision, _word(index["precision"]), "the script's"))
    return rows


def _row(name: str, path: str, value: Any, before: Any, now: Any) -> Row:
    *above, leaf = path.split("/")
    kind, number = name.rsplit("_", 1)
    inside = [f"group {part}" for part in above if part.isdecimal()][:1] if kind == "optimizer" else above
    words = " ".join([f"{'optimizer' if kind == 'optimizer' else 'scheduler'} {number}", *inside, leaf])
    other = _word(before) if _same(before, now) else f"{_word(before)} ({_word(now)} by now)"
    force = "the checkpoint's"
    if leaf == "last_lr":
        force += ", until the scheduler steps"
    elif path == _LENGTH:
        force = "the rate goes on from the checkpoint's"
    return words, value, other, force


def _once(rows: list[Row]) -> list[Row]:
    """Without what says the same learning rate, or the same length of a schedule, in other places once more."""
    kept = list[Row]()
    for row in rows:
        if row[0].endswith(_LENGTH):
            again = any(item[0].startswith(f"scheduler {_number(row)} ") and _alike(item, row) for item in kept)
        else:
            again = _is_copy(row) and any(
                _is_rate(item) and _number(item) == _number(row) and _alike(item, row) for item in kept
            )
        if not again:
            kept.append(row)
    return kept


def _number(row: Row) -> str:
    return row[0].split(" ")[1]


def _is_rate(row: Row) -> bool:
    return row[0].rsplit(" ", 1)[-1] in _RATES


def _is_copy(row: Row) -> bool:
    """Whether it is a learning rate that an optimizer's own entry may have said already."""
    return _is_rate(row) and not row[0].endswith(" lr")


def _alike(one: Row, other: Row) -> bool:
    return _same(one[1], other[1]) and one[2].split(" ")[0] == other[2].split(" ")[0]


def _flat(tree: Any, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """The plain numbers of a state by their path: no slots, nothing that is counted, and not the parameters' names."""
    return dict(_entries(tree, above))


_SLOTS = {"state", "master_weights", "params"}


def _entries(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Array) and tree.shape == () and tree.dtype in ("F32", "F64", "I64", "I32"):
        tree = to_numpy(tree).item()
    if type(tree) is Counter:  # milestones
        tree = sorted(tree.elements()) if all(type(item) is int for item in tree) else None
    if type(tree) in (list, tuple) and len(tree) == 1 and _is_number(tree[0]):
        tree = tree[0]
    if path and _is_number(tree):
        yield "/".join(path), tree
    elif path and type(tree) in (list, tuple) and tree and len(tree) <= _LISTED and all(map(_is_number, tree)):
        yield "/".join(path), list(tree)
    elif isinstance(tree, Mapping) or type(tree) in (list, tuple):
        items = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
        for key, item in items:
            hidden = str(key).startswith("_") and key != "_schedulers"
            if not hidden and not (len(path) in (0, 2) and key in _SLOTS):
                yield from _entries(item, (*path, str(key)))


def _is_number(value: Any) -> bool:
    return type(value) in (bool, int, float)


def _is_entry(value: Any) -> bool:
    return value is None or _is_number(value) or (type(value) is list and all(map(_is_number, value)))


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) or repr(one) == repr(other)


def _word(value: Any) -> str:
    return f"{value!r:.60}".replace(" ", "") if isinstance(value, list) else f"{value!r:.60}".strip("'")

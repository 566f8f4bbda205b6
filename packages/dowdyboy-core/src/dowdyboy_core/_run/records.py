"""Records: values that hooks set down batch by batch, one stacked tensor a name at the end."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from dowdyboy_core._errors import ConfigError
from dowdyboy_core.backend.arrays import Array
from dowdyboy_core.backend.seam import Backend

from .samples import check_way, join_samples, shape_of_samples

_RANK_OF_TYPE = ("bool", "int64", "float32", "float64")
_STORED = {"bool": "BOOL", "int64": "I64", "float32": "F32", "float64": "F64"}
_TYPE_OF_PYTHON = {bool: "bool", int: "int64", float: "float32"}
_CODE = {"bool": "b", "int64": "q", "float32": "d", "float64": "d"}
_LARGEST = 2**63


class _Column:
    """The values of one name: all of one shape, of a type that holds them all.

    Numbers are packed, at eight bytes each; anything else is kept in a list. Where the first axis of each value counts
    samples, they are of one shape behind that axis.
    """

    __slots__ = ("counts", "dtype", "head", "plain", "positions", "samples", "shape", "values")

    def __init__(self, dtype: str, shape: tuple[int, ...], *, samples: bool = False) -> None:
        self.dtype = dtype
        self.shape = shape
        self.samples = samples
        self.head: Any = None  # values that are stacked already: gathered, or read from a checkpoint
        self.values: array[Any] | list[Any] = [] if shape or samples else array(_CODE[dtype])
        self.plain: type | None = None  # what may be appended as it is, if its type is just this one
        self.positions = array("q")  # of all values, where there are several processes
        self.counts = array("q")  # beside them, how many samples each value has
        self._choose_plain()

    def add(self, dtype: str, value: Any) -> None:
        if dtype != self.dtype and _RANK_OF_TYPE.index(dtype) > _RANK_OF_TYPE.index(self.dtype):
            self.dtype = dtype
            if isinstance(self.values, array):
                self.values = array(_CODE[dtype], self.values)
                self._choose_plain()
        if type(value) not in _TYPE_OF_PYTHON and isinstance(self.values, array):
            self.values = self.values.tolist()
            self._choose_plain()
        self.values.append(value)

    def _choose_plain(self) -> None:
        code = self.values.typecode if isinstance(self.values, array) else None
        self.plain = {"q": int, "d": float}.get(code or "")


class Records:
    """Collects values without waiting for the device; the cost of a value doesn't depend on how many there are."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._columns: dict[str, _Column] = {}
        self._stacked: dict[str, Any] | None = None
        self._alone = backend.world_size == 1
        self.position = 0
        """Where the running batch stands among all batches of all processes; the loop sets it."""

    def add(self, values: Mapping[str, Any]) -> None:
        """Adds one value to each name.

        Raises:
            ConfigError: not a mapping, a name that is no str, a value that is no number, array or tensor, or one of
                another shape than the name has had before.
        """
        columns = self._columns
        if type(values) is not dict and not isinstance(values, Mapping):
            raise ConfigError(f"set_records got {values!r:.80}, which is no dict. Give {{name: value}}.")
        for name, value in values.items():
            column = columns.get(name)
            if column is None or type(value) is not column.plain or (type(value) is int and not _fits(value)):
                self._add_checked(values)
                break
        else:  # as nearly always: numbers like those before them
            for name, value in values.items():
                columns[name].values.append(value)
        if not self._alone:
            for name in values:
                columns[name].positions.append(self.position)
        self._stacked = None

    def add_samples(self, values: Mapping[str, Any]) -> None:
        """Adds to each name one value whose first axis counts samples.

        Raises:
            ConfigError: as for ``add``; or a value without an axis, or a name that was recorded without samples.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"set_records got {values!r:.80}, which is no dict. Give {{name: value}}.")
        self._add_checked(values, samples=True)
        if not self._alone:
            for name in values:
                column = self._columns[name]
                column.positions.append(self.position)
                column.counts.append(len(column.values[-1]))
        self._stacked = None

    def _add_checked(self, values: Mapping[str, Any], *, samples: bool = False) -> None:
        checked = [self._check(name, value, samples) for name, value in values.items()]
        for name, dtype, shape, kept in checked:  # only now, so that a bad value leaves no half-added row
            column = self._columns.get(name)
            if column is None:
                column = self._columns[name] = _Column(dtype, shape, samples=samples)
            column.add(dtype, kept)

    def _check(self, name: str, value: Any, samples: bool) -> tuple[str, str, tuple[int, ...], Any]:
        dtype = _TYPE_OF_PYTHON.get(type(value))
        shape: tuple[int, ...] = ()
        if dtype is None:
            dtype, shape, kept = self._check_array(name, value)
        elif type(value) is int and not _fits(value):
            raise ConfigError(
                f"Record {name!r} got {value!r:.80}, which is no int64. Record smaller integers, or floats."
            )
        else:
            kept = value
        if not isinstance(name, str):
            raise ConfigError(f"set_records got the name {name!r}. Names of records are of type str.")
        if samples:
            shape = shape_of_samples(name, shape)
        column = self._columns.get(name)
        if column is not None:
            check_way(name, column.samples, samples)
        if column is not None and column.shape != shape:
            if samples:
                raise ConfigError(
                    f"Record {name!r} got samples of shape {shape}; its samples so far have shape {column.shape}. "
                    "Record samples of one shape under a name."
                )
            raise ConfigError(
                f"Record {name!r} got a value of shape {shape}; its values so far have shape {column.shape}. "
                "Record values of one shape under a name, for example one number a sample in a loop."
            )
        return name, dtype, shape, kept

    def _check_array(self, name: str, value: Any) -> tuple[str, tuple[int, ...], Any]:
        described = self._backend.describe_tensor(value)
        if described is not None:
            kept = self._backend.keep_tensor(value)
        elif type(value).__module__ == "numpy" and hasattr(value, "dtype"):
            described, kept = (value.dtype.name, tuple(value.shape)), value.copy() if value.ndim else value.item()
        elif isinstance(value, (list, tuple)):
            import numpy as np

            try:
                kept = np.asarray(value)
            except ValueError as error:
                raise ConfigError(f"Record {name!r} got a ragged list: {value!r:.80}.") from error
            dtype = "float32" if kept.dtype.name == "float64" else kept.dtype.name  # as for single floats
            described = (dtype, kept.shape)
        else:
            raise ConfigError(
                f"Record {name!r} got {value!r:.80} of type {type(value).__name__}. "
                "Record numbers, bools, lists of them, NumPy arrays or tensors."
            )
        return _widened(name, described[0]), described[1], kept

    def stacked(self) -> dict[str, Any]:
        """One tensor a name, of shape (number of values or samples, *shape of one)."""
        if self._stacked is None:
            self._stacked = {name: self._stack(column) for name, column in self._columns.items()}
        return self._stacked

    def _stack(self, column: _Column) -> Any:
        values: Any = column.values
        if isinstance(values, array):
            import numpy as np

            values = np.array(values).astype(column.dtype)
        join = join_samples if column.samples else _stack_values
        tail = [join(self._backend, values, column.dtype)] if len(values) else []
        head = [] if column.head is None else [self._backend.cast(column.head, column.dtype)]
        return self._backend.concatenate(head + tail) if head and tail else (head + tail)[0]

    def gather(self) -> None:
        """Brings together the values of all processes, in the order that one process would have had them in.

        Raises:
            ConfigError: a name has values of different shapes on different processes.
        """
        if not self._alone:
            self.load_state(self.state())

    def lengths(self) -> dict[str, int]:
        """How many values each name has, besides those that are stacked; for ``cut_back``, in one process."""
        return {name: len(column.values) for name, column in self._columns.items()}

    def cut_back(self, lengths: Mapping[str, int]) -> None:
        """Forgets what was added since the names had so many values."""
        self._columns = {name: self._columns[name] for name in lengths if name in self._columns}
        for name, column in self._columns.items():
            del column.values[lengths[name] :]
        self._stacked = None

    def clear(self) -> None:
        """Forgets everything."""
        self._columns = {}
        self._stacked = None

    def state(self) -> dict[str, Any]:
        """All values so far of all processes, as a tree; every process has to ask."""
        own = {
            name: {
                "dtype": column.dtype,
                "shape": list(column.shape),
                "samples": column.samples,
                "positions": column.positions.tolist(),
                "counts": column.counts.tolist(),
                "values": self._backend.tensor_state(tensor),
            }
            for (name, column), tensor in zip(self._columns.items(), self.stacked().values(), strict=True)
        }
        return own if self._alone else merge(self._backend.gather(own))

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes up the values that ``state`` gave."""
        self.clear()
        for name, stored in state.items():
            samples = bool(stored.get("samples", False))
            column = self._columns[name] = _Column(stored["dtype"], tuple(stored["shape"]), samples=samples)
            column.head = self._backend.tensor_from_state(stored["values"])
            if self._alone:  # what is added has no positions, and so nothing has
                continue
            size = len(column.head)
            if stored["positions"]:
                column.positions, column.counts = array("q", stored["positions"]), array("q", stored.get("counts", []))
            elif samples:  # a run of one process that goes on with several has written none: all of it came before
                column.positions, column.counts = array("q", [0]), array("q", [size])
            else:
                column.positions = array("q", [0] * size)
            placed = sum(column.counts) if samples else len(column.positions)
            if placed != size or (samples and len(column.counts) != len(column.positions)):
                raise ValueError(f"the places of the record {name!r} are {placed} for {size} values")


def merge(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The states of several processes as one, each name's values in the order of their positions.

    Raises:
        ConfigError: a name has values of different shapes.
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    # The order of the names, too, is that of one process: by the batch that each was first recorded in, and within it.
    first: dict[str, tuple[int, int]] = {}
    for state in states:
        for place, (name, stored) in enumerate(state.items()):
            found.setdefault(name, []).append(stored)
            begun = (min(stored["positions"], default=0), place)
            first[name] = min(first.get(name, begun), begun)
    return {name: _merge_column(name, found[name]) for name in sorted(found, key=lambda name: first[name])}


def _merge_column(name: str, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    import numpy as np

    samples = {part["samples"] for part in parts}
    if len(samples) > 1:
        raise ConfigError(
            f"Record {name!r} came with samples=True on some processes and without it on others. Record a name always "
            "in one way, or give each way a name of its own."
        )
    shapes = {tuple(part["shape"]) for part in parts}
    if len(shapes) > 1:
        raise ConfigError(
            f"Record {name!r} has values of the shapes {sorted(shapes)} on different processes. Record values of one "
            "shape under a name."
        )
    dtype = max((part["dtype"] for part in parts), key=_RANK_OF_TYPE.index)
    arrays = [
        np.frombuffer(bytes(part["values"].data), part["dtype"]).reshape(part["values"].shape).astype(dtype)
        for part in parts
    ]
    positions, counts = (
        np.concatenate([np.asarray(part[key], np.int64) for part in parts]) for key in ("positions", "counts")
    )
    order = np.argsort(positions, kind="stable")
    of_values = np.argsort(np.repeat(positions, counts), kind="stable") if True in samples else order
    values = np.ascontiguousarray(np.concatenate(arrays)[of_values])
    return {
        "dtype": dtype,
        "shape": parts[0]["shape"],
        "samples": True in samples,
        "positions": positions[order].tolist(),
        "counts": counts[order].tolist() if True in samples else [],
        "values": Array(_STORED[dtype], values.shape, values.reshape(-1).view(np.uint8)),
    }


def _stack_values(backend: Backend, values: Any, dtype: str) -> Any:
    return backend.stack(values, dtype)


def _fits(number: int) -> bool:
    return -_LARGEST <= number < _LARGEST


def _widened(name: str, dtype: str) -> str:
    """The type a record of this type is kept in: bool, int64, float32 or float64."""
    if dtype in _RANK_OF_TYPE:
        return dtype
    if dtype in ("float16", "bfloat16"):
        return "float32"
    if dtype.startswith(("int", "uint")):
        return "int64"
    raise ConfigError(
        f"Record {name!r} got a value of type {dtype}. Record bools, integers or real floating-point numbers."
    )

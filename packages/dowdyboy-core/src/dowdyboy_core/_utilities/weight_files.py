"""The weights of one model as one safetensors file, with a description of them, or without one of others' making."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dowdyboy_core._config import check_names
from dowdyboy_core._disk.files import FolderReader, Weights
from dowdyboy_core._disk.folders import where_it_lies
from dowdyboy_core._disk.one_file import read_arrays, write_arrays
from dowdyboy_core._errors import CheckpointError, ConfigError
from dowdyboy_core._exchange import weights
from dowdyboy_core._exchange.pairing import Key, Names, Pair, pair, renamed
from dowdyboy_core._exchange.pairing import table as shown
from dowdyboy_core.backend.known_layouts import CHILDREN, LAYOUTS, reparametrised
from dowdyboy_core.backend.layouts import places
from dowdyboy_core.backend.seam import Backend
from dowdyboy_core.backend.trees import describe_differences
from dowdyboy_core.backend.vocabulary import Vocabulary
from dowdyboy_core.backend.words import BUFFER, PARAMETER, Layer, ModelWords, Place

_DESCRIPTION, _ORIGIN = "dowdyboy.exchange", "dowdyboy.backend"
"""The names of the texts in the header."""


def save(backend: Backend, model: Any, path: Any) -> Path:
    """Writes the weights of a model, each once, with what they are in the header.

    Raises:
        ConfigError: it is no model, or no path.
        CheckpointError: something can't be stored, or the disk won't have it.
    """
    target, plain, words = _path(path), _model(backend, model), _words(backend)
    said = words.model(plain)
    arrays = {name: array for name, array in backend.model_state(plain).items() if name not in said.tied}
    metadata = {_ORIGIN: backend.name, _DESCRIPTION: json.dumps(said.plain(), ensure_ascii=False)}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(target, arrays, metadata)
    except OSError as error:
        raise CheckpointError(f"{str(target)!r} can't be written: {error}. Make room, or give another path.") from error
    return target


def load(backend: Backend, model: Any, path: Any, names: Names, source: str | None) -> None:
    """Puts the weights of such a file, or of one that others made, into a model: all of them or none.

    Raises:
        ConfigError: an argument is not acceptable, or ``source`` is needed.
        CheckpointError: the file is none, or doesn't fit; the message lists all that doesn't.
    """
    check_names("names", names)
    file, plain, words = _path(path), _model(backend, model), _words(backend)
    target = words.model(plain)
    arrays, metadata = read_arrays(file)
    said, origin, pairs, problems = _paired(file, arrays, metadata, target, names, source)
    stored = arrays | {alias: arrays[first] for alias, first in said.tied.items() if first in arrays}
    layout = backend.model_layout(plain)
    if not problems:
        problems += weights.left_behind(stored, pairs)[1]
    if not problems:
        found = weights.converted(stored, pairs, target, layout, {})
        problems += describe_differences(found, layout)
    if problems:
        listed = "\n  ".join(sorted(problems))
        raise CheckpointError(
            f"{str(file)!r}, of {origin!r}, doesn't fit the model; nothing was loaded. Rename with "
            f'names={{"old.": "new."}}, and say what a class is with register_exchange. What has no pair:\n  {listed}'
        )
    backend.load_model_state(plain, found)


def table(backend: Backend, model: Any, path: Any, names: Names, source: str | None, number: int) -> str:
    """What would be paired with what, as text; nothing is loaded.

    Args:
        backend: the framework.
        model: the model that would take up.
        path: a file, or the folder of a checkpoint.
        names: how paths there are called in the model.
        source: for a file that doesn't say what its tensors are the framework that they are of.
        number: which model of a checkpoint.

    Raises:
        ConfigError: an argument is not acceptable, or ``source`` is needed.
        CheckpointError: it is neither, or doesn't say what its tensors are.
    """
    check_names("names", names)
    place, target = _path(path), _words(backend).model(_model(backend, model))
    if place.is_dir():
        pairs, problems = pair(_said_in_checkpoint(place, number), target, names)
    else:
        *_, pairs, problems = _paired(place, *read_arrays(place), target, names, source)
    return "\n".join([shown(pairs), *(f"no pair: {line}" for line in sorted(problems))])


def _said_in_checkpoint(folder: Path, number: Any) -> ModelWords:
    reader = FolderReader(where_it_lies(folder))
    tree = reader.tree("exchange") if "exchange.json" in reader.names() else None
    models = tree.get("models") if isinstance(tree, dict) else None
    if not isinstance(models, list):
        raise CheckpointError(
            f"{str(folder)!r} doesn't say what its tensors are, as checkpoints of a Trainer do from format version 3 "
            "on."
        )
    if not isinstance(number, int) or not 0 <= number < len(models):
        raise ConfigError(f"number={number!r:.40}, and {str(folder)!r} holds {len(models)} models, counted from 0.")
    return ModelWords.read(models[number])


def _paired(
    file: Path, arrays: Weights, metadata: Mapping[str, str], target: ModelWords, names: Names, source: str | None
) -> tuple[ModelWords, str, dict[Key, Pair], list[str]]:
    """What the file's arrays are, whose they are, their pairs, and all that keeps them from being taken up."""
    text = metadata.get(_DESCRIPTION)
    if text is not None:
        try:
            said = ModelWords.read(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(
                f"{str(file)!r} has a description that is none: {error}. Use another file."
            ) from error
        return said, metadata.get(_ORIGIN, "?"), *pair(said, target, names)
    if source is None or source not in LAYOUTS:
        listed = " or ".join(repr(name) for name in LAYOUTS)
        raise ConfigError(
            f"{str(file)!r} doesn't say what its tensors are, and source={source!r:.40}. Give source={listed}: they "
            "lie as the layers of that framework keep them."
        )
    said, rest = _guessed(arrays, target, names, source)
    pairs, problems = pair(said, target)  # its words are by the target's names already
    return said, source, pairs, [*problems, *(f"{name} is there only" for name in rest)]


def _guessed(arrays: Weights, target: ModelWords, names: Names, source: str) -> tuple[ModelWords, list[str]]:
    """The words of a file without any: its arrays are those of a model of ``source`` that is as the target is.

    Args:
        arrays: of the file.
        target: the model that takes up.
        names: how paths of the file are called there.
        source: the framework.

    Returns:
        The words, and the names of arrays that belong to no layer.
    """
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    by_path = _by_path(shapes, names)
    layers, left = list[Layer](), dict.fromkeys(shapes)
    for layer in target.layers:
        for path in _spellings(layer.path, source):
            inside = {name: full for name, full in by_path.get(path, {}).items() if full in left}
            if layer.kind in (PARAMETER, BUFFER):
                place = Place(inside[""], shapes[inside[""]]) if "" in inside else None
                found, known = ({} if place is None else {"value": place}), {""} & inside.keys()
            else:
                below = {name: shapes[full] for name, full in inside.items()}
                kind = str(layer.kind)
                rules = (*LAYOUTS[source].get(kind, ()), *reparametrised(source, kind, set(below)))
                found, known = _places(rules, below, inside)
            if found:
                for name in known:
                    left.pop(inside[name], None)
                layers.append(Layer(layer.path, layer.kind, source, found))
                break
    return ModelWords(tuple(layers)), list(left)


def _places(
    rules: Any, below: Mapping[str, tuple[int, ...]], inside: Mapping[str, str]
) -> tuple[dict[str, Place], set[str]]:
    found, known = places(rules, below, "")
    named = {
        role: Place(inside[place.array], place.stored, place.rows, place.axes, place.flat)
        for role, place in found.items()
    }
    return named, known


def _by_path(shapes: Mapping[str, Any], names: Names) -> dict[str, dict[str, str]]:
    """For each path, by the target's names, the arrays at and below it."""
    found: dict[str, dict[str, str]] = {}
    for full in shapes:
        parts = renamed(full, names).split(".")
        for depth in range(len(parts) + 1):
            found.setdefault(".".join(parts[:depth]), {})[".".join(parts[depth:])] = full
    return found


def _spellings(path: str, source: str) -> list[str]:
    """A neutral path as it may be called in a framework."""
    children = CHILDREN.get(source, {})
    own = ".".join(children.get(part, part) for part in path.split("."))
    return [path] if own == path else [own, path]


def _path(path: Any) -> Path:
    if not isinstance(path, (str, os.PathLike)) or not str(path):
        raise ConfigError(f"path={path!r:.80} is no path. Give that of a file.")
    return Path(path)


def _model(backend: Backend, model: Any) -> Any:
    plain = backend.unwrap_model(model)
    if not backend.is_model(plain):
        raise ConfigError(f"model={model!r:.80} is no model of {backend.name}. Give an instance of its module class.")
    return plain


def _words(backend: Backend) -> Vocabulary:
    if backend.vocabulary is None:
        raise ConfigError(f"{backend.name} has no words for its layers: see docs/exchange.md.")
    return backend.vocabulary

"""Checkpoints of loops that are written by hand: ``chk_step_N``, of which some are kept, and ``chk_{label}_step_N``.

They are the folders of :mod:`._files`, with the models and optimizers under the names that the Trainer gives them.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from dowdyboy_core._disk.files import FolderReader, Weights, is_whole, numbered, prepare, read_index, write_folder
from dowdyboy_core._disk.first_version import without_wrappers
from dowdyboy_core._disk.folders import remove_folder, tidy, where_it_lies
from dowdyboy_core._disk.labels import LABEL, check_label
from dowdyboy_core._errors import CheckpointError, ConfigError, UnsupportedError
from dowdyboy_core._version import __version__
from dowdyboy_core.backend.growing import grows_to_fit
from dowdyboy_core.backend.left_out import TREE, complete
from dowdyboy_core.backend.seam import Backend
from dowdyboy_core.backend.trees import describe_differences

_NAME = re.compile(rf"chk_(?:{LABEL}_)?step_(?:0|[1-9][0-9]*)")


def save_numbered(
    backend: Backend, step: Any, dir_path: Any, model_list: Any, optimizer_list: Any, max_keep_num: Any
) -> Path:
    """Writes ``dir_path/chk_step_{step}``, then clears away the first saved until ``max_keep_num`` are left."""
    keep = _at_least("max_keep_num", max_keep_num, 1)
    folder = _save(backend, "chk_step_", step, dir_path, model_list, optimizer_list)
    _clear_away(_in_order(folder.parent, "chk_step_")[:-keep])
    return folder


def save_labelled(backend: Backend, step: Any, dir_path: Any, model_list: Any, optimizer_list: Any, label: Any) -> Path:
    """Writes ``dir_path/chk_{label}_step_{step}``, then clears away the others with that very label."""
    label = check_label(label)
    folder = _save(backend, f"chk_{label}_step_", step, dir_path, model_list, optimizer_list)
    _clear_away(path for path in _in_order(folder.parent, f"chk_{label}_step_") if path != folder)
    return folder


def load(backend: Backend, resume_dir: Any, model_list: Any, optimizer_list: Any) -> None:
    """Puts what ``resume_dir`` holds into models and, if there are any in the call, optimizers.

    Raises:
        CheckpointError: it is missing, damaged, or doesn't fit; the message lists every difference.
    """
    models, optimizers = _parts(backend, model_list, optimizer_list)
    folder = _folder("resume_dir", resume_dir)
    reader = FolderReader(where_it_lies(folder))
    stems = {Path(name).stem: Path(name).stem for name in reader.names()}
    weights = [reader.weights(name) for name in numbered(stems, "model")]
    states = [] if optimizer_list is None else [reader.tree(name) for name in numbered(stems, "optimizer")]
    if reader.index["format_version"] == 1:
        weights, states = (without_wrappers(stored, backend.wrappers) for stored in (weights, states))
    if f"{TREE}.json" in reader.names():
        named = {f"model_{number}": flat for number, flat in enumerate(weights)}
        whole = complete(backend, models, named, reader.tree(TREE), str(folder))
        weights = [whole[name] for name in named]
    for what, stored, given in (("model", weights, models), ("optimizer", states, optimizers)):
        if len(stored) != len(given):
            raise CheckpointError(
                f"{str(folder)!r} holds {len(stored)} {what}s and {what}_list has {len(given)}. Give as many, in the "
                "same order, as when it was saved."
            )
    names = _parameter_names(backend, models)
    _check_fit(
        backend, folder, list(zip(weights, models, strict=True)), list(zip(states, optimizers, strict=True)), names
    )
    for number, (state, optimizer) in enumerate(zip(states, optimizers, strict=True)):
        try:
            backend.load_optimizer_state(optimizer, names, state)
        except CheckpointError as error:
            raise CheckpointError(f"{str(folder)!r}, optimizer_{number}: {error}") from error
    for flat, model in zip(weights, models, strict=True):
        backend.load_model_state(model, flat)


def _check_fit(
    backend: Backend,
    folder: Path,
    models: Iterable[tuple[Weights, Any]],
    optimizers: Iterable[tuple[Any, Any]],
    names: dict[int, str],
) -> None:
    lines = []
    for number, (flat, model) in enumerate(models):
        found = describe_differences(flat, backend.model_layout(model))
        if found and not grows_to_fit(backend, model, flat):
            lines += [f"model_{number}: {line}" for line in found]
    for number, (state, optimizer) in enumerate(optimizers):
        stored = {name for group in state["param_groups"] for name in group["params"]}
        wanted = {names.get(id(item), "of no model") for item in backend.optimizer_parameters(optimizer)}
        lines += [f"optimizer_{number}: missing: {name}" for name in sorted(wanted - stored)]
        lines += [f"optimizer_{number}: not in the optimizer: {name}" for name in sorted(stored - wanted)]
    if lines:
        listed = "\n  ".join(lines)
        raise CheckpointError(
            f"{str(folder)!r} doesn't fit model_list and optimizer_list; nothing was loaded. Differences:\n  {listed}"
        )


def _save(backend: Backend, stem: str, step: Any, dir_path: Any, model_list: Any, optimizer_list: Any) -> Path:
    number, parent = _at_least("step", step, 0), _folder("dir_path", dir_path)
    weights, trees = _content(backend, model_list, optimizer_list)
    folder = parent / f"{stem}{number}"
    try:
        tidy(parent, lambda name: _NAME.fullmatch(name) is not None, is_whole)
        order = 1 + max((order for order, _ in _saved(parent, stem)), default=0)
        index = {"dowdyboy": __version__, "backend": backend.name, "backend_version": backend.version}
        write_folder(folder, prepare({**index, "step": number, "order": order}, weights, trees))
    except OSError as error:
        raise CheckpointError(
            f"{str(folder)!r} can't be written: {error}. Older checkpoints are whole. Make room, or give another "
            "dir_path."
        ) from error
    return folder


def _content(backend: Backend, model_list: Any, optimizer_list: Any) -> tuple[dict[str, Weights], dict[str, Any]]:
    models, optimizers = _parts(backend, model_list, optimizer_list)
    names = _parameter_names(backend, models)
    for number, optimizer in enumerate(optimizers):
        parameters = backend.optimizer_parameters(optimizer)
        strangers = [tuple(item.shape) for item in parameters if id(item) not in names]
        if strangers:
            raise ConfigError(
                f"optimizer_list[{number}] holds {len(strangers)} of {len(parameters)} parameters that belong to none "
                f"of model_list (shapes {', '.join(map(str, strangers[:5]))}). Give the models that it optimizes."
            )
        problem = backend.unsaved_state(optimizer)
        if problem is not None:
            raise UnsupportedError(
                f"optimizer_list[{number}], a {type(optimizer).__name__}, can't be saved: {problem}. Take another "
                "optimizer, or leave it out of optimizer_list, and save what it remembers yourself."
            )
    weights = {f"model_{number}": backend.model_state(model) for number, model in enumerate(models)}
    trees = {f"optimizer_{number}": backend.optimizer_state(item, names) for number, item in enumerate(optimizers)}
    return weights, trees


def _in_order(parent: Path, stem: str) -> list[Path]:
    return [path for _, path in sorted(_saved(parent, stem))]


def _saved(parent: Path, stem: str) -> list[tuple[int, Path]]:
    """The checkpoints with a name of ``stem`` and a number, each with its place in the order of saving.

    The place is counted in each index, since clocks are set back and steps may begin again. Folders of others are left
    out, and so are those past telling what they are.
    """
    family, found = re.compile(re.escape(stem) + r"(?:0|[1-9][0-9]*)"), []
    for path in parent.iterdir() if parent.is_dir() else ():
        if family.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            try:
                found.append((int(read_index(path)["order"]), path))
            except (CheckpointError, KeyError, TypeError, ValueError):
                continue
    return found


def _clear_away(paths: Iterable[Path]) -> None:
    for path in list(paths):
        try:
            remove_folder(path)
        except OSError as error:
            warnings.warn(f"The old checkpoint {str(path)!r} can't be removed: {error}", RuntimeWarning, stacklevel=4)


def _parts(backend: Backend, model_list: Any, optimizer_list: Any) -> tuple[list[Any], list[Any]]:
    models = [
        backend.unwrap_model(item) for item in _listed("model_list", "model", model_list, backend.is_model, backend)
    ]
    if not models:
        raise ConfigError(f"model_list={model_list!r} is empty. Give at least one model.")
    if optimizer_list is None:
        return models, []
    return models, _listed("optimizer_list", "optimizer", optimizer_list, backend.is_optimizer, backend)


def _listed(field: str, what: str, value: Any, accepts: Any, backend: Backend) -> list[Any]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise ConfigError(f"{field} got a {type(value).__name__}, which is no list. Give a list of {what}s.")
    for number, item in enumerate(value):
        if not accepts(item):
            raise ConfigError(
                f"{field}[{number}] is a {type(item).__name__}, which is no {what} of {backend.name}. Give {what}s "
                "only."
            )
    return list(value)


def _parameter_names(backend: Backend, models: Sequence[Any]) -> dict[int, str]:
    """As the Trainer names them, so that either reads what the other wrote."""
    return {
        id(parameter): f"{number}/{path}"
        for number, model in enumerate(models)
        for path, parameter in backend.named_parameters(model)
    }


def _at_least(field: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ConfigError(f"{field}={value!r:.80} is not an int of at least {least}.")
    return int(value)


def _folder(field: str, value: Any) -> Path:
    if not isinstance(value, (str, os.PathLike)) or not str(value):
        raise ConfigError(f"{field}={value!r:.80} is no path. Give the path of a folder.")
    path = Path(value)
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{field}={str(path)!r} is a file. Give the path of a folder.")
    return path

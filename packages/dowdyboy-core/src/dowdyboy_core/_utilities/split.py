"""Splitting files off an image folder: what goes, the plan, and moving so that nothing is lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from dowdyboy_core._errors import ConfigError, SetupError
from dowdyboy_core.rand import derive_seed

__all__ = ["carry_out", "check_pairs", "checked_arguments", "checked_folders", "new_plan", "read_plan"]

_FolderPath: TypeAlias = "str | os.PathLike[str]"
_Pair: TypeAlias = tuple[Path, Path]
_Plan: TypeAlias = dict[str, Any]

# Both names begin with a dot, so that readers of image folders take them for neither a class nor an image.
_PLAN = ".split.json"
_PARTIAL = ".split.partial"

# ----------------------------------------------------------------------------------------------- arguments


def checked_folders(data_train_dir: _FolderPath, data_val_dir: _FolderPath) -> _Pair:
    """Both folders without links, so that neither can hide in the other."""
    train, val = Path(data_train_dir).resolve(), Path(data_val_dir).resolve()
    if not train.is_dir():
        raise ConfigError(f"data_train_dir={str(data_train_dir)!r} is not a folder. Give one of class folders.")
    if val.exists() and not val.is_dir():
        raise ConfigError(f"data_val_dir={str(data_val_dir)!r} is a file. Give a folder, or a name for a new one.")
    if val.is_relative_to(train) or train.is_relative_to(val):
        raise ConfigError(
            f"data_val_dir={str(data_val_dir)!r} and data_train_dir={str(data_train_dir)!r} lie in each "
            f"other, so that one would be a class of the other. Give two folders side by side."
        )
    return train, val


def checked_arguments(train: Path, rate: Any, count: Any, per_class: Any, seed: Any, mode: Any) -> _Plan:
    """The arguments that decide what goes, as the plan records them."""
    if count is None and not (isinstance(rate, float) and 0 < rate < 1):
        raise ConfigError(f"rate={rate!r} is not a number above 0 and below 1. For a number of files give count.")
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise ConfigError(f"count={count!r} is not an integer of at least 1, or None.")
    if not isinstance(per_class, bool):
        raise ConfigError(f"per_class={per_class!r} is not True or False.")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ConfigError(f"seed={seed!r} is not an integer.")
    if mode not in ("move", "copy"):
        raise ConfigError(f"mode={mode!r} is not one of 'move', 'copy'.")
    share = {"rate": float(rate)} if count is None else {"count": count}
    return {"train": str(train), **share, "per_class": per_class, "seed": seed, "mode": mode}


# -------------------------------------------------------------------------------------------- what is to go


def new_plan(train: Path, asked: _Plan) -> _Plan:
    """What is to go, from what is there now."""
    classes, files = _scan(train)
    return {
        "format": 1,
        "arguments": asked,
        "done": False,
        "classes": classes,
        "files": _choose(files, asked),
    }


def _scan(train: Path) -> tuple[list[str], list[str]]:
    """The names of the classes, and the files' paths below ``train``, sorted."""
    folders = sorted(each for each in train.iterdir() if each.is_dir() and not each.name.startswith("."))
    files = sorted(path.relative_to(train).as_posix() for folder in folders for path in _files(folder))
    if not files:
        raise SetupError(f"{train} holds no files in class folders. Give a folder of train/<class>/<file>.")
    return [folder.name for folder in folders], files


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_symlink():
        raise SetupError(f"{folder} is a symbolic link. Put what it points to in its place, or leave it out.")
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_symlink() or entry.is_dir():
                yield from _files(Path(entry.path))
            elif entry.is_file():
                yield Path(entry.path)


def _choose(files: list[str], asked: _Plan) -> list[str]:
    groups: dict[str, list[str]] = {}
    for name in files:
        groups.setdefault(name.partition("/")[0] if asked["per_class"] else "", []).append(name)
    chosen: list[str] = []
    for label, names in groups.items():
        chosen += _lowest(names, _how_many(len(names), label, asked), asked["seed"])
    if not chosen:
        raise ConfigError(f"rate={asked['rate']} of {len(files)} files is less than one. Give a larger rate, or count.")
    return sorted(chosen)


def _how_many(total: int, label: str, asked: _Plan) -> int:
    if "rate" in asked:
        # Decimal: 0.29 of 100 files are 29, where 100 * 0.29 is 28.999999999999996.
        return int(total * Decimal(repr(asked["rate"])))
    count = int(asked["count"])
    if count >= total:
        where = f"class {label!r} has" if asked["per_class"] else "there are"
        raise ConfigError(f"count={count} leaves nothing to train on: {where} {total} files. Give a smaller count.")
    return count


def _lowest(names: list[str], number: int, seed: int) -> list[str]:
    # A hash, not a shuffle: the same in every version of Python, and a file more hardly changes the choice.
    return sorted(names, key=lambda name: (derive_seed(seed, "split", name), name))[:number]


def check_pairs(pairs: list[_Pair], val: Path) -> None:
    """Refuse, before anything is touched, what could not be finished."""
    for folder in {target.parent for _, target in pairs}:
        if not folder.resolve().is_relative_to(val):
            raise SetupError(f"{folder} leads out of {val} through a symbolic link. Put a folder in its place.")
    for source, target in pairs:
        if os.path.lexists(target):
            if source.exists() and not _same(source, target):
                raise SetupError(f"{target} is there and is not a copy of {source}. Move one of them away.")
        elif not source.exists():
            raise SetupError(
                f"{source.name} is neither in {source.parent} nor in {target.parent}, but in the plan "
                f"{val / _PLAN}. Put it back, or take it out of the plan."
            )


def _same(source: Path, target: Path) -> bool:
    """Whether these are two files with the same bytes, and not one file with two names."""
    if target.is_symlink() or not target.is_file() or source.samefile(target):
        return False
    if source.stat().st_size != target.stat().st_size:
        return False
    with source.open("rb") as one, target.open("rb") as other:
        while block := one.read(1 << 20):
            if block != other.read(1 << 20):
                return False
    return True


# ------------------------------------------------------------------------------------------------- the plan


def read_plan(val: Path, asked: _Plan) -> _Plan | None:
    """The plan of a call that was stopped; None if there was no call."""
    path = val / _PLAN
    if not path.exists():
        return None
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        begun, names = plan["arguments"], [*plan["classes"], *plan["files"]]
        sound = plan["format"] == 1 and isinstance(begun, dict) and all(map(_inside, names))
        done = bool(plan["done"])
    except (ValueError, KeyError, TypeError) as err:
        raise SetupError(f"{path} can't be read as the plan of a split: {err!r}. Move it away.") from err
    if not sound:
        raise SetupError(f"{path} is not a plan that this version wrote. Move it away.")
    if done:
        was = ", ".join(f"{name}={value!r}" for name, value in begun.items())
        raise SetupError(
            f"{val} was already split off: {len(plan['files'])} files, with {was}. Delete {path} to split again."
        )
    if begun != asked:
        changed = [name for name in {**begun, **asked} if begun.get(name) != asked.get(name)]
        was = ", ".join(f"{name}={begun.get(name)!r} (now {asked.get(name)!r})" for name in changed)
        raise SetupError(f"{val} holds a split that was stopped half-way, with {was}. Finish it with those first.")
    return dict(plan)


def _inside(name: object) -> bool:
    """Whether a name of a plan stays below its folder."""
    path = PurePosixPath(name) if isinstance(name, str) else None
    return path is not None and bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def _write_plan(val: Path, plan: _Plan) -> None:
    partial = val / (_PLAN + ".partial")
    partial.write_text(json.dumps(plan, indent=1), encoding="utf-8")
    _sync(partial)
    partial.replace(val / _PLAN)
    _sync(val)


# ----------------------------------------------------------------------------------------------- file by file


def carry_out(plan: _Plan, pairs: list[_Pair], val: Path, mode: str) -> None:
    """Write the plan, do what it says, and note that it is done."""
    val.mkdir(parents=True, exist_ok=True)
    _write_plan(val, plan)
    for name in plan["classes"]:
        (val / name).mkdir(exist_ok=True)
    for source, target in pairs:
        _transfer(source, target, mode)
    _write_plan(val, {**plan, "done": True})


def _transfer(source: Path, target: Path, mode: str) -> None:
    """Bring one file over; at no moment is it in neither place."""
    if not source.exists():
        return  # moved by a call that was stopped later
    if os.path.lexists(target):
        if not _same(source, target):
            raise SetupError(f"{target} has just been made and is not a copy of {source}. Move one away.")
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        if mode == "move" and _renamed(source, target):
            return
        _copy_whole(source, target)
    if mode == "move":
        source.unlink()


def _renamed(source: Path, target: Path) -> bool:
    try:
        source.rename(target)
    except OSError as err:
        if err.errno != errno.EXDEV:
            raise
        return False  # on another file system, where only a copy will do
    return True


def _copy_whole(source: Path, target: Path) -> None:
    """Copy under another name, and give it the right one when every byte is on the disk."""
    partial = target.with_name(_PARTIAL)
    try:
        shutil.copyfile(source, partial)
        shutil.copystat(source, partial)
        _sync(partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    _sync(target.parent)


def _sync(path: Path) -> None:
    if os.name == "posix":  # elsewhere a folder can't be opened to be synced
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

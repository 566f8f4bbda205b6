"""Image folders (``<split>/<class>/<file>``): split a validation part off, and make one of CIFAR-10."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

from dowdyboy_core._utilities import cifar10 as _cifar10
from dowdyboy_core._utilities import split as _split

from ._errors import ConfigError

__all__ = ["generate_cifar10_image_folder", "split_val_dataset_image_folder"]

_FolderPath: TypeAlias = "str | os.PathLike[str]"


def split_val_dataset_image_folder(
    data_train_dir: _FolderPath,
    data_val_dir: _FolderPath,
    rate: float = 0.1,
    *,
    count: int | None = None,
    per_class: bool = False,
    seed: int = 0,
    mode: str = "move",
    dry_run: bool = False,
) -> list[tuple[Path, Path]]:
    """Moves a random part of an image folder, train/<class>/<file>, to val/<class>/<file>.

    Which files go depends on the seed and the files' names alone: each name is hashed with the seed, and the
    lowest go. Files may lie deeper, in folders of their class; their path is kept. Names that begin with a
    dot and files beside the class folders stay where they are. A symbolic link is refused: moved, a relative
    one would break, and followed, it could take files out of another data set. Every class gets its folder in
    val, also one that nothing goes to, so that classes are numbered alike in both.

    It may be killed at any moment: every file is then whole in train or in val (or both), and the same call
    finishes the work, from the plan that was written to val/.split.json first. After that the plan stays, and
    a further call is refused. A file that is already in val is never replaced by a different one.

    Args:
        data_train_dir: The folder to take from.
        data_val_dir: The folder to fill, made if it is not there; neither may lie inside the other.
        rate: The part that goes, above 0 and below 1, rounded down to whole files.
        count: How many files go, in place of a rate.
        per_class: Take ``rate`` or ``count`` of each class rather than of all files together. A class of
            which a rate is less than one file gives none.
        seed: Another seed takes other files.
        mode: "move", or "copy" to leave train as it is.
        dry_run: Touch nothing, only say what would go.

    Returns:
        Pairs of source and destination, sorted; those that an earlier, stopped call had done included.

    Raises:
        ConfigError: An argument is not acceptable, or takes no file, or leaves none.
        SetupError: The folders don't fit: no files, a link, a different file in the way, a split that was
            done before or was begun with other arguments.
    """
    train, val = _split.checked_folders(data_train_dir, data_val_dir)
    asked = _split.checked_arguments(train, rate, count, per_class, seed, mode)
    begun = _split.read_plan(val, asked)
    plan = _split.new_plan(train, asked) if begun is None else begun
    pairs = [(train / name, val / name) for name in plan["files"]]
    _split.check_pairs(pairs, val)
    if not dry_run:
        _split.carry_out(plan, pairs, val, mode)
    return pairs


def generate_cifar10_image_folder(data_dir: _FolderPath, out_dir: _FolderPath, *, download: bool = True) -> int:
    """Writes CIFAR-10 as an image folder: out_dir/train/<class>/<n>.png and out_dir/test/<class>/<n>.png.

    n counts the images of each split, 0 to 49999 and 0 to 9999, in the order of the archive. PNG keeps every
    pixel; earlier versions wrote JPEG, which does not. The archive is the binary version of
    https://www.cs.toronto.edu/~kriz/cifar.html, about 170 MB, and is used only if its MD5 is the one given
    there. The Python version is not read: it is made of pickles, and loading one can run code.

    Images that are there are kept, so a further call finishes one that was stopped, and costs little after
    one that was not.

    Args:
        data_dir: The folder that holds cifar-10-binary.tar.gz, or that it is downloaded to.
        out_dir: The folder for the images, made if it is not there.
        download: Whether to download the archive if it is not there.

    Returns:
        How many images this call wrote: 60000 of a fresh call, 0 where all were there.

    Raises:
        ConfigError: ``download`` is not True or False.
        SetupError: The archive is missing, could not be downloaded, or is not the one it should be.
    """
    if not isinstance(download, bool):
        raise ConfigError(f"download={download!r} is not True or False.")
    return _cifar10.make_folder(Path(data_dir), Path(out_dir), download, _cifar10.CIFAR10)

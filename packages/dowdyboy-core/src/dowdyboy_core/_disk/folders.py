"""Folders that are put in place, replaced and removed so that whatever a kill leaves can be mended afterwards."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

UNFINISHED = ".unfinished-"
"""Before the name of a folder that is being written or removed."""

REPLACED = ".replaced-"
"""Before the name of a folder that another one is taking the place of."""

_CAN_NOT_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


def make_folder(folder: Path) -> None:
    """Makes a folder and its parents, where they are missing, and has the disk know of them.

    Raises:
        OSError: it can't be made.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_folder(path.parent)


def put_in_place(unfinished: Path, folder: Path) -> None:
    """Renames a folder, all of whose files are on the disk, and removes the one that had the name only afterwards.

    Raises:
        OSError: it can't be renamed; what had the name still has it.
    """
    replaced = folder.with_name(REPLACED + folder.name)
    replaces = os.path.lexists(folder)
    if replaces:
        clear(replaced)
        folder.rename(replaced)
    try:
        unfinished.rename(folder)
    except BaseException:
        if replaces:
            replaced.rename(folder)
        raise
    sync_folder(folder.parent)
    with suppress(OSError):  # it may lie on a disk of its own, which is nothing to us
        sync_folder(folder.parent.parent)  # which may not know of the parent yet: its maker may have been killed
    if replaces:
        clear(replaced)


def remove_folder(folder: Path) -> None:
    """Removes a folder so that half of it never looks like one if the process is killed in between.

    Raises:
        OSError: something of it stays, under a name that ``tidy`` looks for.
    """
    hidden = folder.with_name(UNFINISHED + folder.name)
    clear(hidden)
    folder.rename(hidden)
    shutil.rmtree(hidden)


def clear(path: Path) -> None:
    """Removes whatever has this name, as far as it lets itself be removed; ``tidy`` tries again."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def tidy(parent: Path, ours: Callable[[str], bool], is_whole: Callable[[Path], bool]) -> None:
    """Clears away what a kill left in ``parent``, and puts back what was about to be replaced.

    Args:
        parent: the folder to look through.
        ours: whether a folder of this name is written here; all others are left alone, whatever they begin with.
        is_whole: whether a folder is what it was when it was written.

    Raises:
        OSError: something can't be moved.
    """
    for path in _left(parent, REPLACED, ours):
        original = path.with_name(path.name.removeprefix(REPLACED))
        if original.is_dir() and not is_whole(original) and is_whole(path):
            remove_folder(original)  # a disk that loses what it has promised to keep: the old one is better than none
        if os.path.lexists(original):
            clear(path)
        else:
            path.rename(original)
    for path in _left(parent, UNFINISHED, ours):
        clear(path)


def _left(parent: Path, prefix: str, ours: Callable[[str], bool]) -> list[Path]:
    return [path for path in sorted(parent.glob(prefix + "*")) if ours(path.name.removeprefix(prefix))]


def where_it_lies(folder: Path) -> Path:
    """The folder itself, or where it was moved by a process that was killed right then."""
    replaced = folder.with_name(REPLACED + folder.name)
    return replaced if replaced.is_dir() and not folder.exists() else folder


def sync_folder(folder: Path) -> None:
    """Has the disk know of the names in a folder, where the file system can do that at all.

    Raises:
        OSError: the disk has failed.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # of a folder that one may use and not list, and of every folder on Windows
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CAN_NOT_SYNC:  # as some network file systems say, which sync the files themselves
            raise
    finally:
        os.close(descriptor)

"""The versions of a framework that a backend can work with."""

from __future__ import annotations

import re


def require_version(framework: str, distribution: str, found: str, least: tuple[int, int]) -> None:
    """Refuses a framework that is older than the oldest one a package was made for and tested with.

    A version that isn't numbers, or is 0.0 as in a build from source, is taken as it is.

    Args:
        framework: its name, as people call it.
        distribution: what pip calls it.
        found: the version that is installed.
        least: the oldest that will do.

    Raises:
        ImportError: the version is older.
    """
    numbers = re.match(r"(\d+)\.(\d+)", found)
    version = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    if (0, 0) < version < least:
        wanted = ".".join(map(str, least))
        raise ImportError(
            f"{framework} {found} is installed, and this needs {wanted} or later. Run pip install --upgrade "
            f"'{distribution}>={wanted}'."
        )

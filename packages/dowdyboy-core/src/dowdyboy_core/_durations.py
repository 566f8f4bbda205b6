"""Times that people write down, such as '7h30m'."""

from __future__ import annotations

import re

from ._errors import ConfigError

_FORM = re.compile(r"(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?")


def seconds_of(name: str, value: object) -> int | None:
    """How many seconds a text stands for; None for None.

    Raises:
        ConfigError: it is no time, or none at all.
    """
    if value is None:
        return None
    found = _FORM.fullmatch(value) if isinstance(value, str) else None
    hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found and len(found[0]) < 40 else (0, 0, 0)
    if not (total := 3600 * hours + 60 * minutes + seconds):
        raise ConfigError(
            f"{name}={value!r} is not acceptable. Give a time above 0 in hours, minutes and seconds, such as '7h30m', "
            "'90m', '45s' or '1h', or None."
        )
    return total

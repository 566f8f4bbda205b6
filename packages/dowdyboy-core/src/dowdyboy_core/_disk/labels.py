"""Labels in the names of folders: what may be one."""

from __future__ import annotations

import re
from typing import Any

from dowdyboy_core._errors import ConfigError

LABEL = r"[^\W_][\w.-]*"


def check_label(label: Any) -> str:
    """The label, if it is one: without the word "step" none makes a name that reads like a numbered checkpoint.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(label, str) or not re.fullmatch(LABEL, label) or "step" in label.split("_"):
        raise ConfigError(
            f"label={label!r:.80} is no label. Give letters, digits, '_', '-' and '.', with a letter or digit first "
            "and without the word 'step', such as 'best' or 'best_cw'."
        )
    return label

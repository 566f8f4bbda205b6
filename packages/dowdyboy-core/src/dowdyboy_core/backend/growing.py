"""Models that make or resize what they hold while they load: lazy modules, observers, buffers that grow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .arrays import Array
from .seam import Backend
from .trees import describe_differences


def grows_to_fit(backend: Backend, model: Any, state: Mapping[str, Array]) -> bool:
    """Whether a model that has another layout than a state makes itself fit while it loads that; tried on a copy."""
    loaded = backend.layout_when_loaded(model, state)
    return loaded is not None and not describe_differences(state, loaded)

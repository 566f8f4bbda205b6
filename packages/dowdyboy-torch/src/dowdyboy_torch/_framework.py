"""PyTorch, which has to be one that this package can work with. Imported before all that uses it."""

import torch

from dowdyboy_core.backend import require_version

LEAST = (2, 13)
"""The oldest version, as in pyproject.toml."""

require_version("PyTorch", "torch", torch.__version__, LEAST)

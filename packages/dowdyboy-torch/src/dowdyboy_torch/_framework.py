"""PyTorch, which has to be one that this package can work with. Imported before all that uses it."""

import torch

from dowdyboy_core._version import require

LEAST = (2, 13)
"""The oldest version, as in pyproject.toml."""

require("PyTorch", "torch", torch.__version__, LEAST)

"""PaddlePaddle, which has to be one that this package can work with. Imported before all that uses it."""

import paddle

from dowdyboy_core.backend import require_version

LEAST = (3, 0)
"""The oldest version, as in pyproject.toml."""

require_version("PaddlePaddle", "paddlepaddle", paddle.version.full_version, LEAST)

"""The paths of what stands in a PaddlePaddle model, and which of them are of one tensor.

``paddle.jit.to_static`` wraps nothing around a layer: the layer itself stays, with another forward.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import paddle


def named_parameters(model: paddle.nn.Layer) -> Iterable[tuple[str, paddle.Tensor]]:
    """The parameters of a model, each once."""
    return model.named_parameters()


def identity(tensor: paddle.Tensor) -> Any:
    """What two tensors that live have in common if they are the same one."""
    return id(tensor)

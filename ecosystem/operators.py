"""torchvision beside a PyTorch that it was not built for."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

_DECLARED = ("nms", "qnms")
"""The operators for which torchvision registers a fake when it is imported, whether it could load them or not."""


def declare_operators() -> None:
    """Lets torchvision's Python part be imported where its compiled part can't be loaded.

    From PyPI it comes built for CUDA, and beside a CPU build of PyTorch its import then ends with "operator
    torchvision::nms does not exist". Models, transforms and what timm and transformers use need no such operator.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return
    try:
        for library in Path(found.origin).parent.glob("_C*.so"):
            torch.ops.load_library(library)
    except OSError:
        for name in _DECLARED:
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float threshold) -> Tensor")

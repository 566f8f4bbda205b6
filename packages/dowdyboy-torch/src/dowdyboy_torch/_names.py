"""The paths of what stands in a PyTorch model, and which of them are of one tensor.

They are as without what ``torch.compile`` wraps around modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

INNER = "_orig_mod"
"""Under which such a wrapper has the module."""


def is_compiled(module: Any) -> bool:
    """Whether a module is what ``torch.compile`` wraps around one."""
    # Not by isinstance, since importing the compiler takes seconds.
    return type(module).__module__ == "torch._dynamo.eval_frame" and hasattr(module, INNER)


def plain_paths(model: torch.nn.Module) -> Callable[[str], str]:
    """Gives a function from a path in a model to that which it has without compilation."""
    wrapped = {path for path, module in model.named_modules(remove_duplicate=False) if is_compiled(module)}
    if not wrapped:
        return lambda path: path

    def plain(path: str) -> str:
        parts = path.split(".")
        # By the modules that are wrapped and not by the word alone: a module of the user's own may be named so.
        kept = [part for place, part in enumerate(parts) if part != INNER or ".".join(parts[:place]) not in wrapped]
        return ".".join(kept)

    return plain


def named_parameters(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """The parameters of a model, each once."""
    plain = plain_paths(model)
    return ((plain(path), item) for path, item in model.named_parameters())


def identity(tensor: Any) -> Any:
    """What two tensors that live have in common if they are the same one: where their elements lie, and how."""
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.layout is not torch.strided:
        return id(tensor)
    if not tensor.data_ptr() or not tensor.numel():
        return id(tensor)
    signs = tensor.is_conj(), tensor.is_neg()  # which may make others of the same elements
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), signs

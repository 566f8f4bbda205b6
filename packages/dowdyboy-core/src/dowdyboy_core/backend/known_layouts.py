"""How the layers of PyTorch and PaddlePaddle keep the tensors of each kind of layer.

They stand here, and not with the backends, so that a file of either can be read without it. What class a layer is of
says each backend.
"""

from __future__ import annotations

from collections.abc import Mapping

from .layouts import Layout, OwnTensor

_TURNED = (1, 0)  # PaddlePaddle's linear weights lie (inputs, outputs), the neutral ones (outputs, inputs)
_PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_DIRECTIONS = (("cell", ""), ("cell_fw", ""), ("cell_bw", "_reverse"))

_WEIGHT, _BIAS = OwnTensor("weight", "weight"), OwnTensor("bias", "bias")
_PLAIN = (_WEIGHT, _BIAS)
_FLAT = (OwnTensor("weight", "weight", flat=True), OwnTensor("bias", "bias", flat=True))
_CELL = tuple(OwnTensor(name, name) for name in _PARTS)
_ALIKE: dict[str, Layout] = {
    "linear": _PLAIN,
    "conv": _PLAIN,
    "conv_transpose": _PLAIN,
    "bilinear": _PLAIN,
    "embedding": (_WEIGHT,),
    "prelu": (_WEIGHT,),
    "layer_norm": _FLAT,
    "rms_norm": _FLAT,
    "group_norm": _PLAIN,
    "lstm_cell": _CELL,
    "gru_cell": _CELL,
    "rnn_cell": _CELL,
}

_TORCH_RUNNING = (
    OwnTensor("running_mean", "running_mean"),
    OwnTensor("running_var", "running_var"),
    OwnTensor("num_batches_tracked", "batches"),
)
_TORCH_RECURRENT = tuple(
    OwnTensor(f"{name}_l{{n}}{end}", f"{name}_l{{n}}{end}")
    for name in (*_PARTS, "weight_hr")
    for end in ("", "_reverse")
)
TORCH: Mapping[str, Layout] = {
    **_ALIKE,
    "batch_norm": (*_PLAIN, *_TORCH_RUNNING),
    "instance_norm": (*_PLAIN, *_TORCH_RUNNING),
    "lstm": _TORCH_RECURRENT,
    "gru": _TORCH_RECURRENT,
    "rnn": _TORCH_RECURRENT,
    "multi_head_attention": (
        OwnTensor("in_proj_weight", ("query_weight", "key_weight", "value_weight")),
        OwnTensor("in_proj_bias", ("query_bias", "key_bias", "value_bias")),
        OwnTensor("q_proj_weight", "query_weight"),
        OwnTensor("k_proj_weight", "key_weight"),
        OwnTensor("v_proj_weight", "value_weight"),
        OwnTensor("out_proj.weight", "out_weight"),
        OwnTensor("out_proj.bias", "out_bias"),
        OwnTensor("bias_k", "key_extra"),
        OwnTensor("bias_v", "value_extra"),
    ),
}

_PADDLE_RECURRENT = (
    *(OwnTensor(f"{{n}}.{cell}.{name}", f"{name}_l{{n}}{end}") for cell, end in _DIRECTIONS for name in _PARTS),
    *(OwnTensor(f"{{n}}.{cell}.weight_ho", f"weight_hr_l{{n}}{end}", _TURNED) for cell, end in _DIRECTIONS),
    # The framework lists each tensor a second time, under names that are shifted where there is a projection.
    *(OwnTensor(f"{name}_l{{n}}{end}", ()) for name in _PARTS for end in ("", "_reverse")),
)
PADDLE: Mapping[str, Layout] = {
    **_ALIKE,
    "linear": (OwnTensor("weight", "weight", _TURNED), _BIAS),
    "bilinear": (_WEIGHT, OwnTensor("bias", "bias", flat=True)),
    "prelu": (OwnTensor("_weight", "weight"),),
    "batch_norm": (*_PLAIN, OwnTensor("_mean", "running_mean"), OwnTensor("_variance", "running_var")),
    "instance_norm": (OwnTensor("scale", "weight"), _BIAS),
    "lstm": _PADDLE_RECURRENT,
    "gru": _PADDLE_RECURRENT,
    "rnn": _PADDLE_RECURRENT,
    "multi_head_attention": tuple(
        item
        for own, word in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value"), ("out_proj", "out"))
        for item in (OwnTensor(f"{own}.weight", f"{word}_weight", _TURNED), OwnTensor(f"{own}.bias", f"{word}_bias"))
    ),
}

PADDLE_COMPAT: Mapping[str, Layout] = {
    "linear": _PLAIN,
    "multi_head_attention": (
        *TORCH["multi_head_attention"],
        OwnTensor("q_proj_bias", "query_bias"),
        OwnTensor("k_proj_bias", "key_bias"),
        OwnTensor("v_proj_bias", "value_bias"),
    ),
}
"""The layers of PaddlePaddle that lie as PyTorch has them."""

LAYOUTS: Mapping[str, Mapping[str, Layout]] = {"torch": TORCH, "paddle": PADDLE, "paddle.compat": PADDLE_COMPAT}
"""By the name of the framework, and the kind."""

CHILDREN: Mapping[str, Mapping[str, str]] = {"torch": {"cross_attn": "multihead_attn"}}
"""By the name of the framework what it calls modules that have another name in the neutral words."""

PARAMETRIZED = "parametrizations.weight."
"""Where PyTorch's newer reparametrisations keep what they make a weight of."""


def reparametrised(framework: str, kind: str, names: set[str]) -> Layout:
    """What a layer keeps in the place of its weight, if it is normalised.

    Args:
        framework: ``'torch'`` or ``'paddle'``.
        kind: what the layer is.
        names: of the tensors in it.
    """
    turned = _TURNED if framework == "paddle" and kind == "linear" else None
    if "weight_g" in names or PARAMETRIZED + "original1" in names:
        return (
            OwnTensor("weight_g", "weight_norm", flat=True),
            OwnTensor("weight_v", "weight_direction", turned),
            OwnTensor(PARAMETRIZED + "original0", "weight_norm", flat=True),
            OwnTensor(PARAMETRIZED + "original1", "weight_direction"),
        )
    return (
        OwnTensor("weight_orig", "weight_original", turned),
        OwnTensor("weight_u", "weight_left"),
        OwnTensor("weight_v", "weight_right"),
        OwnTensor(PARAMETRIZED + "original", "weight_original"),
        OwnTensor(PARAMETRIZED + "0._u", "weight_left"),
        OwnTensor(PARAMETRIZED + "0._v", "weight_right"),
    )

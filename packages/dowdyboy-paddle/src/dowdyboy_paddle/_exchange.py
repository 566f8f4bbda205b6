"""What PaddlePaddle's classes are in the words of docs/exchange.md: by class, never by shape or name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.nn.utils.spectral_norm_hook import SpectralNorm
from paddle.nn.utils.weight_norm_hook import WeightNorm
from paddle.optimizer import lr

from dowdyboy_core import CheckpointError
from dowdyboy_core.backend import (
    Array,
    Layout,
    ModelWords,
    OptimizerWords,
    OwnTensor,
    Rules,
    ScheduleWords,
    Slot,
    Vocabulary,
    describe_layers,
    norm_role,
    original_role,
)

from ._names import identity
from ._state import parameter_groups

RULES = Rules("paddle.nn.", "paddle.incubate.", "paddle.compat.", framework="paddle")
for _kind, _classes in (
    ("linear", (nn.Linear,)),
    ("conv", (nn.Conv1D, nn.Conv2D, nn.Conv3D)),
    ("conv_transpose", (nn.Conv1DTranspose, nn.Conv2DTranspose, nn.Conv3DTranspose)),
    ("bilinear", (nn.Bilinear,)),
    ("embedding", (nn.Embedding,)),
    ("prelu", (nn.PReLU,)),
    ("batch_norm", (nn.BatchNorm, nn.BatchNorm1D, nn.BatchNorm2D, nn.BatchNorm3D, nn.SyncBatchNorm)),
    ("instance_norm", (nn.InstanceNorm1D, nn.InstanceNorm2D, nn.InstanceNorm3D)),
    ("layer_norm", (nn.LayerNorm,)),
    ("group_norm", (nn.GroupNorm,)),
    ("lstm", (nn.LSTM,)),
    ("gru", (nn.GRU,)),
    ("rnn", (nn.SimpleRNN,)),
    ("lstm_cell", (nn.LSTMCell,)),
    ("gru_cell", (nn.GRUCell,)),
    ("rnn_cell", (nn.SimpleRNNCell,)),
    ("multi_head_attention", (nn.MultiHeadAttention,)),
):
    for _class in _classes:
        RULES.add(_class, _kind)
for _name, _kind in (("Linear", "linear"), ("MultiheadAttention", "multi_head_attention")):
    # These lie here as PyTorch has them; older versions don't have them.
    _compat = getattr(getattr(getattr(paddle, "compat", None), "nn", None), _name, None)
    if _compat is not None:
        RULES.add(_compat, _kind, "paddle.compat")
RULES.add_holders(nn.ParameterList, nn.ParameterDict)


def register_exchange(cls: type[nn.Layer], kind: str, tensors: Mapping[str, Any]) -> None:
    """Says what the tensors of a layer class are, so that a run with it can cross to another framework.

    Args:
        cls: the class; subclasses that have no rule of their own count as it.
        kind: what it is, the same word on both sides: ``'my_attention'``, …
        tensors: for the name of each tensor in the layer its role, the same word on both sides, or the role and the
            order of the axes: for each axis of the neutral tensor its place in this one.

    Raises:
        ConfigError: ``cls`` is no layer class, or a role or an order of axes is none.

    Example:
        ``register_exchange(MyLayer, "my_layer", {"kernel": ("weight", (1, 0)), "bias": "bias"})``
    """
    RULES.register(cls, nn.Layer, kind, tensors)


def _model(model: nn.Layer) -> ModelWords:
    """What a model consists of."""
    tensors = {name: (tuple(value.shape), identity(value)) for name, value in model.state_dict().items()}
    modules = _modules(model, "")
    trained = {f"{path}.{name}" if path else name for path, module in modules.items() for name in module._parameters}
    return describe_layers(RULES, modules, tensors, trained, _reparametrised)


def _modules(layer: nn.Layer, path: str) -> dict[str, nn.Layer]:
    """A layer and all below it by path; those that stand in several places by each of these."""
    found = {path: layer}
    for name, below in layer._sub_layers.items():  # named_children leaves out what stands in a layer twice
        if below is None:
            continue
        found |= _modules(below, f"{path}.{name}" if path else name)
    return found


def _reparametrised(layer: Any, names: set[str]) -> Layout:
    """The rules for what stands in a layer in the place of its weight."""
    turned = (1, 0) if isinstance(layer, nn.Linear) else None
    for hook in layer._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm) and hook.name == "weight":
            # The framework writes no axis as -1.
            axis = None if hook.dim == -1 else _neutral_axis(hook.dim % len(layer.weight_v.shape), turned)
            return (
                OwnTensor("weight_g", norm_role(axis), flat=True),
                OwnTensor("weight_v", "weight_direction", turned),
            )
        if isinstance(hook, SpectralNorm) and hook.name == "weight":
            return (
                OwnTensor("weight_orig", original_role(_neutral_axis(hook.dim, turned)), turned),
                OwnTensor("weight_u", "weight_left"),
                OwnTensor("weight_v", "weight_right"),
            )
    return ()


def _neutral_axis(axis: int, axes: tuple[int, ...] | None) -> int:
    return axis if axes is None else axes.index(axis)


# ---- optimizers


def _moments(first: str = "moment1", second: str = "moment2") -> tuple[Slot, ...]:
    return (Slot(first, "first_moment"), Slot(second, "second_moment"))


def _slots_of(optimizer: Any) -> tuple[str | None, tuple[Slot, ...]]:
    """The kind of an optimizer, and what it keeps."""
    cls, made, made_with = type(optimizer), paddle.optimizer, vars(optimizer)
    if cls is made.SGD:
        return "sgd", ()
    if cls is made.Momentum:
        return "momentum", (Slot("velocity", "momentum"),)
    if cls in (made.Adam, made.AdamW, made.Lamb):
        # Not of one beta: the power of the first comes to rest after some 900 steps, and 1 is exact in both.
        powers = (_power("beta2_pow_acc", made_with["_beta2"], 1), _power("beta1_pow_acc", made_with["_beta1"], 1))
        maximum = (Slot("moment2_max", "maximum_second_moment"),) if getattr(optimizer, "_amsgrad", False) else ()
        return cls.__name__.lower(), (*powers, *_moments(), *maximum)
    if cls is made.NAdam:
        return "nadam", (
            _power("beta2_pow", _single(made_with["_beta2"]), 0, filled=True),
            _power("momentum_decay_pow", 0.96, 0, filled=True),
            Slot("mu_product", "momentum_product", "filled"), *_moments(),
        )  # fmt: skip
    if cls is made.RAdam:
        rho = Slot("rho", "step", "filled_rho", {"beta": _single(made_with["_beta2"])})
        powers = (
            _power("beta2_pow", _single(made_with["_beta2"]), 0, filled=True),
            _power("beta1_pow", _single(made_with["_beta1"]), 0, filled=True),
        )
        return "radam", (*powers, rho, *_moments())
    if cls is made.Adamax:
        power = _power("beta1_pow_acc", made_with["_beta1"], 1)
        return "adamax", (power, Slot("moment", "first_moment"), Slot("inf_norm", "infinity_norm"))
    if cls is made.Adagrad:
        return "adagrad", (Slot("moment", "second_moment"),)
    if cls is made.Adadelta:
        return "adadelta", (
            Slot("_avg_squared_grad", "second_moment"),
            Slot("_avg_squared_update", "second_moment_of_updates"),
        )
    if cls is made.RMSProp:
        momentum = Slot("momentum", "momentum", "rated" if optimizer._momentum else "zeros")
        centre = Slot("mean_grad", "first_moment", "tensor" if made_with["_centered"] else "zeros")
        return "rmsprop", (Slot("mean_square", "second_moment"), momentum, centre)
    if cls is made.Rprop:
        return "rprop", (Slot("prevs", "gradient"), Slot("learning_rates", "step_size"))
    return None, ()


def _single(beta: Any) -> float:
    """A beta as the kernels of NAdam and RAdam have it, also where they compute in float64: rounded to float32."""
    return float(np.float32(beta))


def _power(name: str, beta: Any, first: int, *, filled: bool = False) -> Slot:
    """A slot that holds a power of a beta; ``first`` is its exponent before the first step."""
    return Slot(name, "step", "filled_power" if filled else "power", {"beta": float(beta), "first": first})


def _optimizer(optimizer: Any) -> OptimizerWords:
    """What an optimizer is, and how it keeps its state."""
    kind, slots = _slots_of(optimizer)
    name = type(optimizer).__name__
    if _keeps_copies(optimizer):
        kind, slots, name = None, (), f"{name} with multi_precision, which keeps float32 copies of the weights"
    settings: dict[str, Any] = {}
    for own, word in _SETTINGS.items():
        value = getattr(optimizer, own, None)
        if isinstance(value, (bool, int, float)):
            settings[word] = value
    betas = [vars(optimizer).get(name) for name in ("_beta1", "_beta2")]
    if all(isinstance(beta, float) for beta in betas):
        settings["betas"] = betas
    base = float(optimizer.get_lr())
    rates = tuple(base * float(factor) for factor in _factors(optimizer))
    return OptimizerWords(kind, name, slots, rates, settings)


def _keeps_copies(optimizer: Any) -> bool:
    """Whether an optimizer keeps the weights in float32 as well, for which other frameworks have no place."""
    small = (paddle.float16, paddle.bfloat16)
    precise = bool(vars(optimizer).get("_multi_precision"))
    return precise and any(item.dtype in small for group in parameter_groups(optimizer) for item in group)


_SETTINGS = {
    "_epsilon": "epsilon", "_momentum": "momentum", "_rho": "decay", "_use_nesterov": "nesterov",
    "_amsgrad": "amsgrad", "_centered": "centered", "_momentum_decay": "momentum_decay",
}  # fmt: skip


def _factors(optimizer: Any) -> list[float]:
    """By what each parameter group multiplies the learning rate."""
    given = optimizer._parameter_list
    if given and isinstance(given[0], dict):
        return [float(group.get("learning_rate", 1.0)) for group in given]
    return [1.0]


def _optimizer_tree(
    optimizer: Any, live: dict[str, Any], slots: Mapping[str, Any], rates: Sequence[float], schedule: Any
) -> dict[str, Any]:
    """The stored form of an optimizer with slots and learning rate of elsewhere."""
    by_clock = live["LR_Scheduler"] is not None
    factors = _factors(optimizer)
    pairs = list(zip(rates, factors, strict=True))
    # The rate of them all, by the first group that doesn't multiply it by 0.
    rate = next((had if factor == 1 else had / factor for had, factor in pairs if factor), 0.0)
    if any(not math.isclose(had, rate * factor, rel_tol=1e-6) for had, factor in pairs):
        raise CheckpointError(
            f"The parameter groups have the learning rates {list(rates)} in the checkpoint, and here the factors "
            f"{factors} on one rate. Give each group its learning_rate as a factor that agrees, or load the weights "
            "alone with weights_only=True."
        )
    return {
        **live,
        "state": dict(slots),
        "master_weights": {},
        "learning_rate": None if by_clock else rate,
        "LR_Scheduler": schedule if by_clock else None,
    }


# ---- schedulers

_SCHEDULES = {
    "StepDecay": "step", "MultiStepDecay": "multi_step", "ExponentialDecay": "exponential",
    "CosineAnnealingDecay": "cosine", "CosineAnnealingWarmRestarts": "cosine_restarts", "OneCycleLR": "one_cycle",
    "CyclicLR": "cyclic", "PolynomialDecay": "polynomial", "LinearLR": "linear", "LambdaDecay": "formula",
    "NoamDecay": "formula", "NaturalExpDecay": "formula", "InverseTimeDecay": "formula", "PiecewiseDecay": "formula",
    "MultiplicativeDecay": "multiplicative", "ReduceOnPlateau": "plateau", "LinearWarmup": "warmup",
}  # fmt: skip


def _schedule(scheduler: Any) -> ScheduleWords:
    """How far a scheduler has come."""
    cls = type(scheduler)
    kind = _SCHEDULES.get(cls.__name__) if cls.__module__ == lr.__name__ else None
    if kind is None:
        return ScheduleWords(None, cls.__name__)
    position, rate = int(scheduler.last_epoch), float(scheduler())
    if kind == "plateau":
        best = scheduler.best
        follows = {
            "best": float(best) if best is not None else None,
            "bad": int(scheduler.num_bad_epochs), "cooldown": int(scheduler.cooldown_counter),
        }  # fmt: skip
        return ScheduleWords(kind, cls.__name__, position, rate, follows)
    if kind == "cosine_restarts":
        return ScheduleWords(kind, cls.__name__, position, rate, cycle=(scheduler.T_cur, scheduler.T_i))
    if kind == "warmup" and isinstance(scheduler.learning_rate, lr.LRScheduler):
        return ScheduleWords(kind, cls.__name__, position, rate, parts=(_schedule(scheduler.learning_rate),))
    return ScheduleWords(kind, cls.__name__, position, rate)


def _schedule_tree(scheduler: Any, live: dict[str, Any], words: ScheduleWords) -> dict[str, Any]:
    """The stored form of a scheduler that has come as far as one of elsewhere."""
    tree = {**live, "last_epoch": words.position, "last_lr": words.rate}
    if words.follows is not None:
        tree |= {"best": words.follows["best"], "num_bad_epochs": words.follows["bad"],
                 "cooldown_counter": words.follows["cooldown"]}  # fmt: skip
    if words.cycle is not None:
        tree |= {"T_cur": words.cycle[0], "T_i": words.cycle[1]}
    if words.parts and words.position >= scheduler.warmup_steps and "LinearWarmup_LR" in live:
        tree["LinearWarmup_LR"] = _schedule_tree(scheduler.learning_rate, live["LinearWarmup_LR"], words.parts[0])
    return tree


class PaddleVocabulary(Vocabulary):
    """The framework's words."""

    def model(self, model: Any) -> ModelWords:
        return _model(model)

    def optimizer(self, optimizer: Any) -> OptimizerWords:
        return _optimizer(optimizer)

    def schedule(self, scheduler: Any) -> ScheduleWords:
        return _schedule(scheduler)

    def optimizer_state(
        self, optimizer: Any, live: Any, slots: Mapping[str, Mapping[str, Array]], rates: Sequence[float], schedule: Any
    ) -> Any:
        return _optimizer_tree(optimizer, live, slots, rates, schedule)

    def schedule_state(self, scheduler: Any, live: Any, words: ScheduleWords, rates: Sequence[float]) -> Any:
        return _schedule_tree(scheduler, live, words)

"""What PyTorch's classes are in the words of docs/exchange.md: by class, never by shape or name."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrizations import _SpectralNorm, _WeightNorm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.optim import lr_scheduler

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

from ._names import identity, is_compiled, plain_paths
from ._own_state import listed_states

RULES = Rules("torch.nn.", framework="torch")
for _kind, _classes in (
    ("linear", (nn.Linear,)),
    ("conv", (nn.Conv1d, nn.Conv2d, nn.Conv3d)),
    ("conv_transpose", (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)),
    ("bilinear", (nn.Bilinear,)),
    ("embedding", (nn.Embedding, nn.EmbeddingBag)),
    ("prelu", (nn.PReLU,)),
    ("batch_norm", (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)),
    ("instance_norm", (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)),
    ("layer_norm", (nn.LayerNorm,)),
    ("rms_norm", (nn.RMSNorm,)),
    ("group_norm", (nn.GroupNorm,)),
    ("lstm", (nn.LSTM,)),
    ("gru", (nn.GRU,)),
    ("rnn", (nn.RNN,)),
    ("lstm_cell", (nn.LSTMCell,)),
    ("gru_cell", (nn.GRUCell,)),
    ("rnn_cell", (nn.RNNCell,)),
    ("multi_head_attention", (nn.MultiheadAttention,)),
):
    for _class in _classes:
        RULES.add(_class, _kind)
RULES.add_holders(nn.ParameterList, nn.ParameterDict)
RULES.add_child(nn.TransformerDecoderLayer, "multihead_attn", "cross_attn")


def register_exchange(cls: type[nn.Module], kind: str, tensors: Mapping[str, Any]) -> None:
    """Says what the tensors of a module class are, so that a run with it can cross to another framework.

    Args:
        cls: the class; subclasses that have no rule of their own count as it.
        kind: what it is, the same word on both sides: ``'my_attention'``, …
        tensors: for the name of each tensor in the module its role, the same word on both sides, or the role and the
            order of the axes: for each axis of the neutral tensor its place in this one.

    Raises:
        ConfigError: ``cls`` is no module class, or a role or an order of axes is none.

    Example:
        ``register_exchange(MyLayer, "my_layer", {"kernel": ("weight", (1, 0)), "bias": "bias"})``
    """
    RULES.register(cls, nn.Module, kind, tensors)


def _model(model: nn.Module) -> ModelWords:
    """What a model consists of."""
    plain = plain_paths(model)
    elsewhere = listed_states(model)
    found = {name: value for name, value in model.state_dict().items() if name not in elsewhere}
    state = {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}  # no extra states
    tensors = {
        plain(name): (() if is_lazy(value) else tuple(value.shape), identity(value)) for name, value in state.items()
    }
    trained = {plain(name) for name, _ in model.named_parameters(remove_duplicate=False)}
    modules = {
        plain(path): module for path, module in model.named_modules(remove_duplicate=False) if not is_compiled(module)
    }
    return describe_layers(RULES, modules, tensors, trained, _reparametrised)


def _reparametrised(module: Any, names: set[str]) -> Layout:
    """The rules for what stands in a layer in the place of its weight."""
    inner = "parametrizations.weight"
    if f"{inner}.original1" in names and isinstance(step := module.parametrizations["weight"][0], _WeightNorm):
        shape = tuple(module.parametrizations["weight"].original1.shape)
        role = norm_role(_axis(step.dim, len(shape)))
        return (OwnTensor(f"{inner}.original0", role, flat=True), OwnTensor(f"{inner}.original1", "weight_direction"))
    if f"{inner}.original" in names and isinstance(step := module.parametrizations["weight"][0], _SpectralNorm):
        return (
            OwnTensor(f"{inner}.original", original_role(step.dim)),
            OwnTensor(f"{inner}.0._u", "weight_left"),
            OwnTensor(f"{inner}.0._v", "weight_right"),
        )
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm) and hook.name == "weight":
            role = norm_role(_axis(hook.dim, module.weight_v.dim()))
            return (OwnTensor("weight_g", role, flat=True), OwnTensor("weight_v", "weight_direction"))
        if isinstance(hook, SpectralNorm) and hook.name == "weight":
            return (
                OwnTensor("weight_orig", original_role(hook.dim)),
                OwnTensor("weight_u", "weight_left"),
                OwnTensor("weight_v", "weight_right"),
            )
    return ()


def _axis(dim: int, rank: int) -> int | None:
    """The axis that a weight norm leaves out; None if it leaves none out, which the framework writes as -1."""
    return None if dim == -1 else dim % rank


# ---- optimizers

_MOMENTS = (Slot("exp_avg", "first_moment"), Slot("exp_avg_sq", "second_moment"))
_MAXIMUM = Slot("max_exp_avg_sq", "maximum_second_moment")


def _slots_of(optimizer: torch.optim.Optimizer) -> tuple[str | None, tuple[Slot, ...]]:
    """The kind of an optimizer, and what it keeps; settings of the first parameter group decide."""
    cls, first, step = type(optimizer), optimizer.param_groups[0], _number("step", "step")
    if cls is torch.optim.SGD:
        momentum = bool(first["momentum"])
        return ("momentum", (Slot("momentum_buffer", "momentum"),)) if momentum else ("sgd", ())
    if cls in (torch.optim.Adam, torch.optim.AdamW):
        decoupled = cls is torch.optim.AdamW or bool(first.get("decoupled_weight_decay"))
        maximum = (_MAXIMUM,) if first["amsgrad"] else ()
        return "adamw" if decoupled else "adam", (step, *_MOMENTS, *maximum)
    if cls is torch.optim.NAdam:
        return "nadam", (step, _number("mu_product", "momentum_product"), *_MOMENTS)
    if cls is torch.optim.RAdam:
        return "radam", (step, *_MOMENTS)
    if cls is torch.optim.Adamax:
        return "adamax", (step, Slot("exp_avg", "first_moment"), Slot("exp_inf", "infinity_norm"))
    if cls is torch.optim.Adagrad:
        return "adagrad", (step, Slot("sum", "second_moment"))
    if cls is torch.optim.Adadelta:
        return "adadelta", (step, Slot("square_avg", "second_moment"), Slot("acc_delta", "second_moment_of_updates"))
    if cls is torch.optim.RMSprop:
        more: tuple[Slot, ...] = (Slot("momentum_buffer", "momentum"),) if first["momentum"] else ()
        more += (Slot("grad_avg", "first_moment"),) if first["centered"] else ()
        return "rmsprop", (step, Slot("square_avg", "second_moment"), *more)
    if cls is torch.optim.Rprop:
        return "rprop", (step, Slot("prev", "gradient"), Slot("step_size", "step_size"))
    return None, ()


def _number(name: str, meaning: str) -> Slot:
    """A slot that is one number, which has the type that the framework makes such of now."""
    bits = 64 if torch.get_default_dtype() == torch.float64 else 32
    return Slot(name, meaning, "number", {"bits": bits})


_SETTINGS = {
    "betas": "betas", "eps": "epsilon", "weight_decay": "weight_decay", "momentum": "momentum", "alpha": "decay",
    "rho": "decay", "dampening": "dampening", "nesterov": "nesterov", "amsgrad": "amsgrad", "centered": "centered",
    "momentum_decay": "momentum_decay", "lr_decay": "rate_decay", "etas": "factors", "step_sizes": "limits",
}  # fmt: skip


def _optimizer(optimizer: torch.optim.Optimizer) -> OptimizerWords:
    """What an optimizer is, and how it keeps its state."""
    kind, slots = _slots_of(optimizer)
    groups = optimizer.param_groups
    settings = {word: _plain(groups[0][name]) for name, word in _SETTINGS.items() if name in groups[0]}
    return OptimizerWords(
        kind, type(optimizer).__name__, slots, tuple(float(group["lr"]) for group in groups), settings
    )


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.item()
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def _optimizer_tree(live: dict[str, Any], slots: Mapping[str, Any], rates: Sequence[float]) -> dict[str, Any]:
    """The stored form of an optimizer with slots and learning rates of elsewhere, and its own settings."""
    groups = [{**group, "lr": rate} for group, rate in zip(live["param_groups"], rates, strict=True)]
    return {"state": dict(slots), "param_groups": groups}


# ---- schedulers

_SCHEDULES = {
    "StepLR": "step", "MultiStepLR": "multi_step", "ExponentialLR": "exponential", "CosineAnnealingLR": "cosine",
    "CosineAnnealingWarmRestarts": "cosine_restarts", "OneCycleLR": "one_cycle", "CyclicLR": "cyclic",
    "PolynomialLR": "polynomial", "LinearLR": "linear", "ConstantLR": "formula", "LambdaLR": "formula",
    "MultiplicativeLR": "multiplicative", "ReduceLROnPlateau": "plateau", "SequentialLR": "sequential",
}  # fmt: skip


def _schedule(scheduler: Any) -> ScheduleWords:
    """How far a scheduler has come."""
    cls = type(scheduler)
    kind = _SCHEDULES.get(cls.__name__) if cls.__module__ == lr_scheduler.__name__ else None
    if kind is None:
        return ScheduleWords(None, cls.__name__)
    rate = scheduler.optimizer.param_groups[0]["lr"]
    position = int(scheduler.last_epoch)
    if kind == "plateau":
        best = None if math.isinf(scheduler.best) else scheduler.best
        follows = {"best": best, "bad": scheduler.num_bad_epochs, "cooldown": scheduler.cooldown_counter}
        return ScheduleWords(kind, cls.__name__, position, float(rate), follows)
    if kind == "cosine_restarts":
        return ScheduleWords(kind, cls.__name__, position, float(rate), cycle=(scheduler.T_cur, scheduler.T_i))
    if kind == "sequential":
        first, *others = map(_schedule, scheduler._schedulers)
        if len(others) != 1 or first.kind not in ("linear", "formula"):
            return ScheduleWords(None, cls.__name__)
        return ScheduleWords("warmup", cls.__name__, position, float(rate), parts=tuple(others))
    return ScheduleWords(kind, cls.__name__, position, float(rate))


def _schedule_tree(
    scheduler: Any, live: dict[str, Any], words: ScheduleWords, rates: Sequence[float]
) -> dict[str, Any]:
    """The stored form of a scheduler that has come as far as one of elsewhere."""
    tree = {**live, "last_epoch": words.position, "_last_lr": list(rates)}
    if live.get("_step_count"):  # one with restarts never counts
        tree["_step_count"] = words.position + 1
    if words.follows is not None:
        best = words.follows["best"]
        tree |= {"best": scheduler.mode_worse if best is None else best, "num_bad_epochs": words.follows["bad"],
                 "cooldown_counter": words.follows["cooldown"]}  # fmt: skip
    if words.cycle is not None:
        tree |= {"T_cur": words.cycle[0], "T_i": words.cycle[1]}
    if isinstance(scheduler, lr_scheduler.SequentialLR):
        tree["_schedulers"] = _parts(scheduler, live["_schedulers"], words, rates)
    return tree


def _parts(scheduler: Any, live: list[Any], words: ScheduleWords, rates: Sequence[float]) -> list[Any]:
    """The stored forms of a warm-up and of what follows it, which is as it was made until the warm-up is over."""
    [warm] = scheduler._milestones
    first, second = scheduler._schedulers
    if words.position < warm:
        return [_schedule_tree(first, live[0], ScheduleWords(None, "", words.position), rates), live[1]]
    last = ScheduleWords(None, "", warm - 1)
    return [
        _schedule_tree(first, live[0], last, _rates_at(first, warm - 1)),
        _schedule_tree(second, live[1], words.parts[0], rates),
    ]


class _Groups:
    """What a scheduler sees of an optimizer: its learning rates."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        self.param_groups = groups


def _rates_at(scheduler: Any, position: int) -> list[float]:
    """The rates that a scheduler comes to step by step, as it rounds them; it is left as it is."""
    trial = copy.copy(scheduler)
    starts = [group["initial_lr"] for group in scheduler.optimizer.param_groups]
    trial.optimizer = _Groups([{"lr": start, "initial_lr": start} for start in starts])
    for trial.last_epoch in range(position + 1):
        trial._is_initial = trial.last_epoch == 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of being asked from outside of a step
            found = trial.get_lr()
        for group, rate in zip(trial.optimizer.param_groups, found, strict=True):
            group["lr"] = rate
    return [float(group["lr"]) for group in trial.optimizer.param_groups]


class TorchVocabulary(Vocabulary):
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
        return _optimizer_tree(live, slots, rates)

    def schedule_state(self, scheduler: Any, live: Any, words: ScheduleWords, rates: Sequence[float]) -> Any:
        return _schedule_tree(scheduler, live, words, rates)

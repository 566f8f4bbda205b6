"""What can't cross between the frameworks is refused in words, all of it at once; and how steps are counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
import torch
from tests import crossing_twins as twins

import dowdyboy_paddle
import dowdyboy_torch
from dowdyboy_conformance._inside import inside
from dowdyboy_core import CheckpointError, ConfigError
from dowdyboy_core.backend import Slot
from dowdyboy_paddle._arrays import to_array
from dowdyboy_paddle._exchange import RULES as PADDLE_RULES
from dowdyboy_paddle._exchange import PaddleVocabulary
from dowdyboy_torch._exchange import RULES as TORCH_RULES

count_of, slot_of = inside("_exchange.slots").count_of, inside("_exchange.slots").slot_of

T: Any = torch.nn
P: Any = paddle.nn
OT: Any = torch.optim
OP: Any = paddle.optimizer
Made = tuple[list[Any], list[Any], list[Any]]
"""Models, optimizers and schedulers."""


def _trainer(framework: str, out: Path, models: list[Any], made: Any = None, **settings: Any) -> Any:
    trainer = twins.trainer(framework, out, **settings)
    trainer.set_models(models)
    if made is not None:
        optimizers, schedulers = made
        trainer.set_optimizers(optimizers, schedulers)
    return trainer


def _refused(target: Any, checkpoint: Path, **settings: Any) -> str:
    before = [twins.values(item).copy() for model in target.get_raw_models() for item in model.state_dict().values()]
    with pytest.raises(CheckpointError) as caught:
        target.load_checkpoint(str(checkpoint), **settings)
    after = [twins.values(item) for model in target.get_raw_models() for item in model.state_dict().values()]
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True)), "something was loaded"
    return str(caught.value)


def _check_told(text: str, *wanted: str) -> None:
    missing = [word for word in wanted if word not in text]
    assert not missing, f"{missing} not in:\n{text}"


# ---- layers


def test_all_that_has_no_pair_is_listed_at_once(tmp_path: Path) -> None:
    there = T.ModuleDict(
        {
            "kind": T.Linear(3, 3),
            "gone": T.Linear(2, 2),
            "shape": T.Linear(2, 3),
            "bias": T.Linear(2, 2),
            "strange": T.CrossEntropyLoss(weight=torch.ones(3)),
            "axis": T.utils.parametrizations.weight_norm(T.Linear(4, 4)),
        }
    )
    here = P.LayerDict(
        {
            "kind": P.Embedding(3, 3),
            "more": P.LayerNorm(2),
            "shape": P.Linear(3, 2),
            "bias": P.Linear(2, 2, bias_attr=False),
            "axis": P.utils.weight_norm(P.Linear(4, 4), dim=0),
        }
    )
    saved = twins.saved(_trainer("torch", tmp_path / "a", [there]), tmp_path / "a")
    text = _refused(_trainer("paddle", tmp_path / "b", [here]), saved)
    _check_told(
        text,
        "register_exchange",
        "'kind' is a linear (Linear) there and a embedding (Embedding) here",
        "gone: weight (linear) is there only",
        "gone: bias (linear) is there only",
        "more: weight (layer_norm) is here only",
        "shape: weight (linear) has shape (3, 2) there and (2, 3) here",
        "bias: bias (linear) is there only",
        "CrossEntropyLoss there, of which no rule is known",
        "axis: weight_norm (linear) is there only",
        "axis: weight_norm_1 (linear) is here only",
    )


def test_an_affine_norm_stands_for_one_without_only_where_it_changes_nothing(tmp_path: Path) -> None:
    plain, affine = T.InstanceNorm2d(4), T.InstanceNorm2d(4, affine=True)
    with torch.no_grad():
        affine.weight.fill_(2.0)
    for name, model in (("plain", plain), ("affine", affine)):
        twins.saved(_trainer("torch", tmp_path / name, [T.ModuleDict({"n": model})]), tmp_path / name)
    point = {name: next((tmp_path / name / "checkpoint").iterdir()) for name in ("plain", "affine")}
    full = P.LayerDict({"n": P.InstanceNorm2D(4)})
    full["n"].scale.set_value(np.full(4, 3.0, "float32"))
    _trainer("paddle", tmp_path / "c", [full]).load_checkpoint(str(point["plain"]))
    assert full["n"].scale.numpy().tolist() == [1.0] * 4
    bare = P.LayerDict({"n": P.InstanceNorm2D(4, weight_attr=False, bias_attr=False)})
    text = _refused(_trainer("paddle", tmp_path / "d", [bare]), point["affine"])
    _check_told(text, "n: weight (instance_norm) is 1 here and trained there")


def test_names_pair_what_is_called_otherwise(tmp_path: Path) -> None:
    there = T.ModuleDict({"backbone": T.Sequential(T.Linear(3, 3)), "head": T.Linear(3, 2)})
    saved = twins.saved(_trainer("torch", tmp_path / "a", [there]), tmp_path / "a")

    def made() -> Any:
        return P.LayerDict({"encoder": P.Sequential(P.Linear(3, 3)), "top": P.Linear(3, 2)})

    names = {"backbone.": "encoder.", "head": "top"}
    ways: list[Any] = [names, lambda path: path.replace("backbone", "encoder").replace("head", "top")]
    for number, way in enumerate(ways):
        model = made()
        _trainer("paddle", tmp_path / f"b{number}", [model]).load_checkpoint(str(saved), names=way)
        np.testing.assert_array_equal(model["top"].weight.numpy().T, twins.values(there["head"].weight))
        np.testing.assert_array_equal(model["encoder"][0].weight.numpy().T, twins.values(there["backbone"][0].weight))
    text = _refused(_trainer("paddle", tmp_path / "c", [made()]), saved)
    _check_told(text, "names=", "backbone.0: weight (linear) is there only", "top: bias (linear) is here only")
    text = _refused(_trainer("paddle", tmp_path / "d", [made()]), saved, names={"backbone.0": "top", "head": "top"})
    _check_told(text, "'backbone.0' and 'head' are both called 'top'")
    text = _refused(_trainer("paddle", tmp_path / "g", [made()]), saved, names=lambda path: None)
    _check_told(text, "names gave None")
    with pytest.raises(ConfigError, match="names"):
        _trainer("paddle", tmp_path / "e", [made()]).load_checkpoint(str(saved), names=3)
    # As a field, for the checkpoint that the configuration names; within one framework as well.
    again = T.ModuleDict({"encoder": T.Sequential(T.Linear(3, 3)), "top": T.Linear(3, 2)})
    _trainer("torch", tmp_path / "f", [again]).load_checkpoint(str(saved), names=names, weights_only=True)
    assert torch.equal(again["top"].weight, there["head"].weight)


class TorchKernel(torch.nn.Module):
    """A layer of the user's that keeps its weight in a manner of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = torch.nn.Parameter(torch.randn(2, 3, 4))


class PaddleKernel(paddle.nn.Layer):
    """That again, with other axes."""

    def __init__(self) -> None:
        super().__init__()
        self.table = self.create_parameter([4, 2, 3])


def test_a_rule_of_the_users_own_pairs_a_custom_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for rules in (TORCH_RULES, PADDLE_RULES):
        monkeypatch.setattr(rules, "_rules", dict(rules._rules))
    source, target = T.ModuleDict({"k": TorchKernel()}), P.LayerDict({"k": PaddleKernel()})
    saved = twins.saved(_trainer("torch", tmp_path / "a", [source]), tmp_path / "a")
    text = _refused(_trainer("paddle", tmp_path / "b", [target]), saved)
    _check_told(text, "k.kernel (parameter) is there only", "k.table (parameter) is here only", "register_exchange")
    dowdyboy_torch.register_exchange(TorchKernel, "kernel", {"kernel": "weight"})
    dowdyboy_paddle.register_exchange(PaddleKernel, "kernel", {"table": ("weight", (1, 2, 0))})
    saved = twins.saved(_trainer("torch", tmp_path / "c", [source]), tmp_path / "c")
    trainer = _trainer("paddle", tmp_path / "d", [target])
    trainer.load_checkpoint(str(saved))
    np.testing.assert_array_equal(target["k"].table.numpy().transpose(1, 2, 0), twins.values(source["k"].kernel))
    back = T.ModuleDict({"k": TorchKernel()})
    _trainer("torch", tmp_path / "e", [back]).load_checkpoint(str(twins.saved(trainer, tmp_path / "d")))
    assert torch.equal(back["k"].kernel, source["k"].kernel)


@pytest.mark.parametrize("package", [dowdyboy_torch, dowdyboy_paddle])
def test_a_rule_that_is_none_is_refused(package: Any) -> None:
    layer = TorchKernel if package is dowdyboy_torch else PaddleKernel
    for given, wanted in (
        ((layer(), "kind", {"a": "b"}), "no class of modules"),
        ((layer, "", {"a": "b"}), "kind=''"),
        ((layer, "kind", {}), "tensors="),
        ((layer, "kind", {"a": ("b", (0, 2))}), "order of the axes"),
        ((layer, "kind", {"a": 3}), "Give a role"),
    ):
        with pytest.raises(ConfigError) as caught:
            package.register_exchange(*given)
        assert wanted in str(caught.value)


def test_tied_tensors_stay_tied_or_are_refused(tmp_path: Path) -> None:
    there = T.ModuleDict({"table": T.Embedding(5, 3), "head": T.Linear(3, 5, bias=False)})
    there["head"].weight = there["table"].weight
    saved = twins.saved(_trainer("torch", tmp_path / "a", [there], _sgd("torch", there)), tmp_path / "a")
    # A model that multiplies with the table has no layer for the head.
    alone = P.LayerDict({"table": P.Embedding(5, 3)})
    trainer = _trainer("paddle", tmp_path / "b", [alone], _sgd("paddle", alone))
    trainer.load_checkpoint(str(saved))
    back = T.ModuleDict({"table": T.Embedding(5, 3), "head": T.Linear(3, 5, bias=False)})
    back["head"].weight = back["table"].weight
    returned = _trainer("torch", tmp_path / "c", [back], _sgd("torch", back))
    returned.load_checkpoint(str(twins.saved(trainer, tmp_path / "b")))
    assert torch.equal(back["head"].weight, there["table"].weight)
    apart = P.LayerDict({"table": P.Embedding(5, 3), "head": P.Linear(3, 5, bias_attr=False)})
    trainer = _trainer("paddle", tmp_path / "d", [apart], _sgd("paddle", apart))
    _check_told(_refused(trainer, saved), "tied", "weights_only=True", "head.weight", "table.weight")
    trainer.load_checkpoint(str(saved), weights_only=True)
    np.testing.assert_array_equal(apart["head"].weight.numpy().T, apart["table"].weight.numpy())


# ---- optimizers and schedulers


def _sgd(framework: str, model: Any) -> tuple[list[Any], None]:
    parameters = list(model.parameters())
    return [OT.SGD(parameters, 0.1) if framework == "torch" else OP.SGD(0.1, parameters)], None


def _with(framework: str, kind: str, schedule: str, model: Any) -> tuple[list[Any], list[Any]]:
    made, scheduler = twins.optimizer(framework, kind, schedule, model.parameters())
    return [made], [scheduler]


def _linear(framework: str) -> Any:
    return twins.model(framework, "linear_square")


def _stepped(framework: str, model: Any, optimizer: Any, steps: int = 1) -> None:
    for _ in range(steps):
        loss: Any = 0
        for parameter in model.parameters():
            loss = loss + (parameter * parameter).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad() if framework == "torch" else optimizer.clear_grad()


def test_other_optimizers_and_schedulers_are_refused_by_name(tmp_path: Path) -> None:
    model = _linear("torch")
    optimizer, schedule = _with("torch", "adamw", "cosine", model)
    trainer = _trainer("torch", tmp_path / "a", [model], (optimizer, schedule))
    _stepped("torch", model, optimizer[0])
    saved = twins.saved(trainer, tmp_path / "a")
    cases: list[tuple[Callable[[Any], Any], tuple[str, ...]]] = [
        (lambda m: _with("paddle", "adam", "cosine", m), ("AdamW (adamw)", "Adam (adam)", "weights_only=True")),
        (lambda m: _with("paddle", "adamw", "none", m), ("scheduler in the checkpoint and none in this run",)),
        (lambda m: _with("paddle", "adamw", "step", m), ("CosineAnnealingLR (cosine)", "StepDecay (step)")),
        (lambda m: _with("paddle", "adamw", "plateau", m), ("(cosine)", "ReduceOnPlateau (plateau)")),
        (lambda m: ([OP.Lamb(0.1, parameters=m.parameters())], None), ("Lamb", "weights_only=True")),
        (lambda m: ([OP.ASGD(0.1, parameters=m.parameters())], None), ("ASGD", "no rule")),
        (
            lambda m: ([OP.AdamW(0.1, parameters=[{"params": [p]} for p in m.parameters()])], None),
            ("scheduler",),
        ),
    ]
    for number, (make, wanted) in enumerate(cases):
        here = _linear("paddle")
        text = _refused(_trainer("paddle", tmp_path / f"b{number}", [here], make(here)), saved)
        _check_told(text, *wanted)
    for count in (0, 2):
        here = _linear("paddle")
        pairs = [_with("paddle", "adamw", "cosine", here) for _ in range(count)]
        made = ([one for pair in pairs for one in pair[0]], [one for pair in pairs for one in pair[1]])
        trainer = twins.trainer("paddle", tmp_path / f"c{count}")
        trainer.set_models([here])
        if count:
            trainer.set_optimizers(*made)
        _check_told(_refused(trainer, saved), "holds 1 optimizers", f"has {count}")


def test_other_groups_are_listed(tmp_path: Path) -> None:
    model = _linear("torch")
    trainer = _trainer("torch", tmp_path / "a", [model], ([OT.SGD(model.parameters(), 0.1, 0.9)], None))
    saved = twins.saved(trainer, tmp_path / "a")
    here = _linear("paddle")
    parameters = list(here.parameters())
    one = [OP.Momentum(0.1, 0.9, parameters[:1])]
    text = _refused(_trainer("paddle", tmp_path / "b", [here], (one, None)), saved)
    _check_told(text, "group 0", "is there only", "linear_square: bias")
    two = [OP.Momentum(0.1, 0.9, [{"params": parameters[:1]}, {"params": parameters[1:]}])]
    text = _refused(_trainer("paddle", tmp_path / "c", [here], (two, None)), saved)
    _check_told(text, "1 parameter groups there, and 2 here")


def test_rates_of_groups_that_are_no_factors_of_one_are_refused(tmp_path: Path) -> None:
    model = _linear("torch")
    weight, bias = model.parameters()
    groups = [{"params": [weight]}, {"params": [bias], "lr": 0.02}]
    saved = twins.saved(_trainer("torch", tmp_path / "a", [model], ([OT.SGD(groups, 0.1)], None)), tmp_path / "a")
    for factor in (0.1, 0.2):
        here = _linear("paddle")
        weight, bias = here.parameters()
        made = OP.SGD(0.5, [{"params": [weight]}, {"params": [bias], "learning_rate": factor}])
        trainer = _trainer("paddle", tmp_path / f"b{factor}", [here], ([made], None))
        if factor == 0.2:
            trainer.load_checkpoint(str(saved))
            assert made.get_lr() == 0.1
        else:
            _check_told(_refused(trainer, saved), "[0.1, 0.02]", "[1.0, 0.1]", "learning_rate")


def test_a_layer_that_is_not_made_yet_is_refused(tmp_path: Path) -> None:
    model = P.LayerDict({"l": P.Linear(3, 2)})
    saved = twins.saved(_trainer("paddle", tmp_path / "a", [model]), tmp_path / "a")
    lazy = twins.trainer("torch", tmp_path / "b")
    lazy.set_models([T.ModuleDict({"l": T.LazyLinear(2)})])
    with pytest.raises(CheckpointError, match=r"LazyLinear|shape"):
        lazy.load_checkpoint(str(saved))


def test_state_that_only_one_side_keeps_is_refused(tmp_path: Path) -> None:
    model = _linear("torch")
    optimizer = OT.Adam(model.parameters(), 0.1)
    trainer = _trainer("torch", tmp_path / "a", [model], ([optimizer], None))
    _stepped("torch", model, optimizer)
    saved = twins.saved(trainer, tmp_path / "a")
    here = _linear("paddle")
    made = [OP.Adam(0.1, parameters=here.parameters(), amsgrad=True)]
    _check_told(_refused(_trainer("paddle", tmp_path / "b", [here], (made, None)), saved), "moment2_max", "amsgrad")


# ---- components, averages, metrics


def test_components_and_averages_cross(tmp_path: Path) -> None:
    source, parts = _linear("torch"), T.ModuleDict({"c": T.BatchNorm1d(3)})
    parts["c"].running_mean.fill_(0.25)
    parts.requires_grad_(False)
    trainer = twins.trainer("torch", tmp_path / "a", ema_decay=0.5)
    trainer.set_models([source])
    trainer.set_components([{"mine": 1}, parts])
    optimizers = [OT.SGD(source.parameters(), 0.1)]
    trainer.set_optimizers(optimizers)
    trainer.set_train_dataloader([torch.ones(2, 4)] * 3)
    trainer.fit(lambda the_trainer, batch, _place, _number: the_trainer.get_models()[0]["linear_square"](batch).sum())
    [saved] = (tmp_path / "a" / "checkpoint").glob("last_epoch_*")
    target, others = _linear("paddle"), P.LayerDict({"c": P.BatchNorm1D(3)})
    for item in others.parameters():
        item.stop_gradient = True
    here = twins.trainer("paddle", tmp_path / "b", ema_decay=0.5)
    here.set_models([target])
    here.set_components([{"mine": 1}, others])
    here.set_optimizers([OP.SGD(0.1, target.parameters())])
    here.load_checkpoint(str(saved))
    assert others["c"]._mean.numpy().tolist() == [0.25] * 3
    weight = source["linear_square"].weight
    np.testing.assert_array_equal(target["linear_square"].weight.numpy().T, twins.values(weight))
    with trainer._run.averaging.applied():
        average = twins.values(weight).copy()
    assert not np.array_equal(average, twins.values(weight))
    here.load_checkpoint(str(saved), weights_only=True, ema=True)
    np.testing.assert_array_equal(target["linear_square"].weight.numpy().T, average)


# ---- steps


STEPPED: dict[str, Callable[[Any], Any]] = {
    "adam": lambda p: OP.Adam(0.01, parameters=p),
    "adamw": lambda p: OP.AdamW(0.01, 0.8, 0.95, parameters=p),
    "adamax": lambda p: OP.Adamax(0.01, parameters=p),
    "nadam": lambda p: OP.NAdam(0.01, parameters=p),
    "radam": lambda p: OP.RAdam(0.01, parameters=p),
}


def _kernel_values(name: str, dtype: str, begin: int, steps: int) -> Iterator[tuple[Slot, int, Any, Any]]:
    """What PaddlePaddle keeps of the number of steps from one on, beside what is made of that number here."""
    parameter: Any = P.Linear(1, 1).create_parameter([2], dtype=dtype)
    optimizer = STEPPED[name]([parameter])
    slots = [slot for slot in PaddleVocabulary().optimizer(optimizer).slots if slot.meaning == "step"]
    assert slots
    kind = "F64" if dtype == "float64" else "F32"
    for number in range(begin + 1, begin + steps + 1):
        (parameter * parameter).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
        for slot in slots:
            tensor = optimizer._accumulators[slot.name][parameter.name]
            if number == begin + 1 and begin:  # put there, as if so many steps had been made
                before = slot_of(slot, begin + 1, kind, (2,))
                tensor.set_value(np.frombuffer(before.data, dtype).reshape(before.shape))
            yield slot, number, to_array(tensor), slot_of(slot, number, kind, (2,))


def check_powers(name: str, dtype: str, begin: int, steps: int) -> None:
    """Compares to the bit, and reads back."""
    for slot, number, kept, own in _kernel_values(name, dtype, begin, steps):
        where = f"{name} {slot.name} {dtype} after {number} steps"
        assert (kept.dtype, tuple(kept.shape)) == (own.dtype, tuple(own.shape)), where
        assert bytes(kept.data) == bytes(own.data), where
        known = count_of(slot, kept)
        assert known in (number, None), where
        if slot.form != "filled_rho" and slot.settings["beta"] > 0.99:
            assert known == number, where


@pytest.mark.parametrize("name", STEPPED)
def test_the_powers_are_those_of_the_kernel_to_the_bit(name: str) -> None:
    check_powers(name, "float32", 0, 250)
    check_powers(name, "float64", 0, 60)
    if name != "radam":  # whose sum is made step by step
        check_powers(name, "float32", 800, 200)  # over the numbers that are below the normal ones, to rest
        check_powers(name, "float32", 40_000, 20)
        check_powers(name, "float32", 80_000, 20)


@pytest.mark.long
@pytest.mark.parametrize("name", STEPPED)
def test_thousands_of_powers_are_those_of_the_kernel(name: str) -> None:
    check_powers(name, "float32", 0, 5000)
    check_powers(name, "float64", 0, 2000)


@pytest.mark.parametrize("steps", [1, 2, 500, 1000, 40_000, 80_000])
def test_a_number_of_steps_comes_back_from_its_powers(steps: int) -> None:
    for form, first in (("power", 1), ("filled_power", 0)):
        slot = Slot("s", "step", form, {"beta": 0.999, "first": first})
        assert count_of(slot, slot_of(slot, steps, "F32", (3,))) == steps
    at_rest = Slot("s", "step", "power", {"beta": 0.9, "first": 1})
    found = count_of(at_rest, slot_of(at_rest, steps, "F32", (3,)))
    assert found == (steps if steps < 900 else None)


# ---- what one framework only has


def test_recurrent_layers_without_biases_have_them_at_zero(tmp_path: Path) -> None:
    source = T.ModuleDict({"r": T.LSTM(3, 4, 2, bias=False), "c": T.GRUCell(3, 4, bias=False)})
    optimizer = OT.Adam(source.parameters(), 0.1)
    trainer = _trainer("torch", tmp_path / "a", [source], ([optimizer], None))
    _stepped("torch", source, optimizer)
    saved = twins.saved(trainer, tmp_path / "a")
    target = P.LayerDict({"r": P.LSTM(3, 4, 2), "c": P.GRUCell(3, 4)})
    for name, item in target.named_parameters():
        item.stop_gradient = "bias" in name
    here = _trainer("paddle", tmp_path / "b", [target], ([OP.Adam(0.1, parameters=target.parameters())], None))
    here.load_checkpoint(str(saved))
    assert all(not item.numpy().any() and item.stop_gradient for n, item in target.named_parameters() if "bias" in n)
    back = T.ModuleDict({"r": T.LSTM(3, 4, 2, bias=False), "c": T.GRUCell(3, 4, bias=False)})
    returned = _trainer("torch", tmp_path / "c", [back], ([OT.Adam(back.parameters(), 0.1)], None))
    point = twins.saved(here, tmp_path / "b")
    returned.load_checkpoint(str(point))
    before, after = (twins.files(one) for one in (saved, twins.saved(returned, tmp_path / "c")))
    assert [name for name in before if before[name] != after.get(name)] == []
    target["c"].bias_ih.set_value(np.ones(12, "float32"))
    text = _refused(returned, twins.saved(here, tmp_path / "b", "trained"))
    _check_told(text, "c: bias_ih (gru_cell) is 0 here and trained there")


def test_float32_copies_of_weights_are_refused_by_name(tmp_path: Path) -> None:
    for number, (first, second) in enumerate(twins.DIRECTIONS):
        models = {"torch": _linear("torch").bfloat16(), "paddle": _linear("paddle").to(dtype="bfloat16")}
        made = {
            "torch": OT.Adam(models["torch"].parameters(), 0.1),
            "paddle": OP.Adam(0.1, parameters=models["paddle"].parameters(), multi_precision=True),
        }
        giver, taker = (
            _trainer(name, tmp_path / f"{number}{name}", [models[name]], ([made[name]], None))
            for name in (first, second)
        )
        saved = twins.saved(giver, tmp_path / f"{number}{first}")
        _check_told(_refused_anyway(taker, saved), "multi_precision", "float32 copies", "weights_only=True")
        taker.load_checkpoint(str(saved), weights_only=True)


def _refused_anyway(target: Any, checkpoint: Path) -> str:
    """The message alone, of models in types that NumPy doesn't have."""
    with pytest.raises(CheckpointError) as caught:
        target.load_checkpoint(str(checkpoint))
    return str(caught.value)


class Metric(torch.nn.Module):
    """One as torchmetrics has them, which keeps what it counts outside of its state_dict."""

    def __init__(self) -> None:
        super().__init__()
        self._defaults, self._persistent = {"total": torch.tensor(0)}, {"total": False}
        self._update_count = 0
        self.total = torch.tensor(3)

    def add_state(self) -> None:
        """As the other library's."""


def test_metrics_beside_a_model_are_refused_by_name(tmp_path: Path) -> None:
    source = T.ModuleDict({"layer": T.Linear(2, 2), "seen": Metric()})
    saved = twins.saved(_trainer("torch", tmp_path / "a", [source]), tmp_path / "a")
    assert list(saved.glob("model_0_beside.*"))
    target = _trainer("paddle", tmp_path / "b", [P.LayerDict({"layer": P.Linear(2, 2)})])
    _check_told(_refused(target, saved), "model_0 keeps metrics of the framework's own")
    target.load_checkpoint(str(saved), weights_only=True)

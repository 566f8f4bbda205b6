"""A run crosses from PyTorch to PaddlePaddle and back: layers, optimizers and schedules of both, side by side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
import torch
from tests import crossing_twins as twins
from tests import distributed_worker as worker
from tests.crossing_runs import Case, crossing_point, train, weights

from dowdyboy_conformance._inside import inside
from dowdyboy_core import CheckpointError
from dowdyboy_paddle._exchange import RULES as PADDLE_RULES
from dowdyboy_paddle._exchange import PaddleVocabulary
from dowdyboy_torch._exchange import RULES as TORCH_RULES
from dowdyboy_torch._exchange import TorchVocabulary

pytestmark = [
    # Of schedulers that are asked where they are; the frameworks' own loops warn likewise.
    pytest.mark.filterwarnings("ignore:.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),
]

optimizers, weights_module = inside("_exchange.optimizers"), inside("_exchange.weights")
filled = inside("_exchange.arrays").filled

NAMES = list(twins.OPTIMIZERS)
PLANS = list(twins.SCHEDULES)
ALIKE = {
    "linear_no_bias", "conv2", "conv2_depthwise", "transposed1", "transposed3", "batch_norm1", "batch_norm_old",
    "instance_norm_plain", "layer_norm", "layer_norm_no_bias", "lstm", "lstm_cell", "rnn_cell", "attention_no_bias",
    "attention_of_compat_apart", "transformer", "weight_norm_transposed", "spectral_norm_transposed", "own_subclass",
}  # fmt: skip
"""Kinds whose tensors lie as those of another: the normal run has them cross once, and not with each optimizer."""

DISTINCT = [kind for kind in twins.KINDS if kind not in ALIKE]
GROUPS = [DISTINCT[place :: len(PLANS)] for place in range(len(PLANS))]
ALIKE_GROUPS = [sorted(ALIKE)[place :: len(PLANS)] for place in range(len(PLANS))]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---- there and back


class Rig:
    """A trainer with models of some kinds of layers, an optimizer for each model, and a scheduler for each of these."""

    def __init__(self, framework: str, out: Path, kinds: list[str], row: int, seed: int) -> None:
        self.framework, self.out = framework, out
        self.trainer = twins.trainer(framework, out)
        twins.seed(framework, seed)
        self.models = [twins.model(framework, *kinds) for _ in NAMES]
        pairs = [
            twins.optimizer(framework, name, PLANS[(row + place) % len(PLANS)], self.models[place].parameters())
            for place, name in enumerate(NAMES)
        ]
        self.optimizers, self.schedulers = map(list, zip(*pairs, strict=True))
        self.trainer.set_models(self.models)
        self.trainer.set_optimizers(self.optimizers, self.schedulers)

    def work(self) -> None:
        """Some steps, each with other gradients, and statistics that are no longer those of the start."""
        self.trainer._run.script.look()  # as fit does before its first step
        for step in range(3):
            total: Any = 0
            for model in self.models:
                for parameter in model.parameters():
                    if _is_trained(self.framework, parameter):
                        total = total + (parameter * (parameter + 0.1 * (step + 1))).sum()
            total.backward()
            for optimizer, scheduler in zip(self.optimizers, self.schedulers, strict=True):
                optimizer.step()
                optimizer.zero_grad() if self.framework == "torch" else optimizer.clear_grad()
                if scheduler is not None:
                    follows = "Plateau" in type(scheduler).__name__
                    scheduler.step(1.0 + step) if follows else scheduler.step()
        for model in self.models:
            _scatter(self.framework, model)

    def save(self) -> Path:
        return twins.saved(self.trainer, self.out)


def _is_trained(framework: str, parameter: Any) -> bool:
    return bool(parameter.requires_grad if framework == "torch" else not parameter.stop_gradient)


def _scatter(framework: str, model: Any) -> None:
    """Puts numbers into all buffers of a model, each of them another."""
    for name, tensor in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.fill_(1 + len(name))
        elif name.endswith(("running_mean", "running_var", "_mean", "_variance", "seen")):
            filled = np.linspace(0.5, 2, len(tensor)).astype("float32") + 0.01 * len(name)
            tensor.copy_(torch.from_numpy(filled)) if framework == "torch" else tensor.set_value(filled)


def _outputs(framework: str, model: Any) -> dict[str, Any]:
    return {kind: twins.output(framework, kind, layer) for kind, layer in model.items()}


def check_row(kinds: list[str], row: int, first: str, out: Path) -> None:
    """Goes there and back with all optimizers, each under another schedule, and all layers of one group."""
    second = twins.OTHER[first]
    start = Rig(first, out / "start", kinds, row, 1)
    start.work()
    came = start.save()
    there = Rig(second, out / "there", kinds, row, 2)
    there.trainer.load_checkpoint(str(came))
    gone = there.save()
    back = Rig(first, out / "back", kinds, row, 3)
    back.trainer.load_checkpoint(str(gone))
    returned = back.save()
    before, after = twins.files(came), twins.files(returned)
    different = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    assert not different, f"row {row} from {first}: {different}"


ROWS = range(len(PLANS))


@pytest.mark.parametrize("first", ["torch", "paddle"])
def test_each_kind_of_layer_computes_there_what_it_did_here(first: str, tmp_path: Path) -> None:
    second = twins.OTHER[first]
    twins.seed(first, 1)
    source, target = (twins.model(name, *twins.KINDS) for name in (first, second))
    _scatter(first, source)
    giver, taker = twins.trainer(first, tmp_path / "a"), twins.trainer(second, tmp_path / "b")
    giver.set_models([source])
    taker.set_models([target])
    saved = twins.saved(giver, tmp_path / "a")
    taker.load_checkpoint(str(saved))
    there = twins.saved(taker, tmp_path / "b")
    own, found = _outputs(first, source), _outputs(second, target)
    assert len(own) >= 40
    for kind, value in own.items():
        np.testing.assert_allclose(found[kind], value, rtol=2e-5, atol=1e-5, err_msg=f"{kind} from {first}")
    # And back, in a model that has other numbers.
    twins.seed(first, 2)
    last = twins.trainer(first, tmp_path / "c")
    last.set_models([twins.model(first, *twins.KINDS)])
    last.load_checkpoint(str(there))
    before, after = twins.files(saved), twins.files(twins.saved(last, tmp_path / "c"))
    assert [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)] == []


@pytest.mark.parametrize("first", ["torch", "paddle"])
def test_there_and_back_every_byte_but_of_streams_is_the_same(first: str, tmp_path: Path) -> None:
    """All pairs of a kind of layer, an optimizer and a schedule; half of them each way, the others in the long run."""
    for row in ROWS:
        if row % 2 == (first == "torch"):
            check_row(GROUPS[row], row, first, tmp_path / str(row))


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", ["torch", "paddle"])
def test_there_and_back_the_other_way_round_and_with_all_kinds(first: str, tmp_path: Path) -> None:
    for row in ROWS:
        check_row(ALIKE_GROUPS[row], row, first, tmp_path / f"alike{row}")
        if row % 2 != (first == "torch"):
            check_row(GROUPS[row], row, first, tmp_path / str(row))


def test_the_rows_have_all_pairs() -> None:
    kinds = set(DISTINCT)
    assert len(kinds) >= 30
    assert twins.KINDS.keys() >= ALIKE
    assert len(NAMES) >= 10
    assert len(PLANS) >= 12
    cells = [
        (kind, name, PLANS[(row + place) % len(PLANS)])
        for row in ROWS
        for kind in GROUPS[row]
        for place, name in enumerate(NAMES)
    ]
    assert {cell[:2] for cell in cells} == {(kind, name) for kind in kinds for name in NAMES}
    # But for Rprop, which PaddlePaddle gives no schedule.
    assert {cell[1:] for cell in cells} == {(name, plan) for name in NAMES for plan in PLANS}
    assert {cell[::2] for cell in cells} == {(kind, plan) for kind in kinds for plan in PLANS}


# ---- going on

CASES = {
    "momentum, cosine": Case(("mlp",), "nesterov", "cosine", settings={"ema_decay": 0.9}),
    "adam, plateau": Case(("lstm",), "adam", "plateau"),
    "adamw, warm-up by step, within an epoch": Case(
        ("mlp",), "adamw", "warmup", at=3, settings={"schedule_by": "step", "clip_grad_norm": 1.0}
    ),
    "rmsprop": Case(("mlp",), "rmsprop", "none", frozen=True),
    "nadam, one cycle by step, a window's end": Case(
        ("conv",), "nadam", "one_cycle", at=3, settings={"schedule_by": "step", "accumulate_steps": 2}
    ),
    "radam, two models": Case(("mlp", "mlp"), "radam", "exponential"),
    "adagrad, groups": Case(("mlp",), "adagrad", "step", at=2, groups=True),
    "adamax, restarts": Case(("mlp",), "adamax", "restarts", settings={"schedule_by": "step"}, groups=True),
}


Whole = Callable[[Case, str], tuple[Path, dict[int, float]]]
"""Gives the folder and the losses of a run that stays in one framework."""


@pytest.fixture(scope="module")
def whole_of(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    known: dict[tuple[int, str], tuple[Path, dict[int, float]]] = {}

    def given(case: Case, first: str) -> tuple[Path, dict[int, float]]:
        key = id(case), first
        if key not in known:
            out = tmp_path_factory.mktemp("whole")
            losses, _ = train(first, case, out, epochs=2)
            known[key] = out, losses
        return known[key]

    return given


def check_going_on(case: Case, first: str, out: Path, whole_of: Whole) -> None:
    """Goes on in the other framework from the middle of a run, and compares with the rest of it."""
    second = twins.OTHER[first]
    folder, whole = whole_of(case, first)
    rest, _ = train(second, case, out / "rest", epochs=2, resume=str(crossing_point(folder, case)))
    assert rest.keys() < whole.keys()
    assert max(rest) == max(whole)
    assert len(rest) >= len(whole) // 2
    np.testing.assert_allclose([rest[step] for step in rest], [whole[step] for step in rest], rtol=0, atol=2e-5)
    ends = [next((place / "checkpoint").glob("last_epoch_*")) for place in (folder, out / "rest")]
    for ema in [False, True][: 1 + ("ema_decay" in case.settings)]:
        theirs, ours = (
            weights(first, case, end, out / f"weights{number}{ema}", ema=ema) for number, end in enumerate(ends)
        )
        for name, value in theirs.items():
            np.testing.assert_allclose(ours[name], value, rtol=0, atol=5e-5, err_msg=f"{name}, average: {ema}")


@pytest.mark.parametrize(("first", "_second"), twins.DIRECTIONS)
def test_the_losses_go_on_as_if_nothing_had_been(first: str, _second: str, tmp_path: Path, whole_of: Whole) -> None:
    problems = []
    for number, (name, case) in enumerate(CASES.items()):
        try:
            check_going_on(case, first, tmp_path / str(number), whole_of)
        except Exception as error:  # all of them are told, not the first alone
            problems.append(f"{name}: {error}")
    assert not problems, "\n".join(problems)


def test_two_frameworks_go_on_from_one_another_in_one_folder(tmp_path: Path) -> None:
    case = Case(("mlp",), "adamw", "cosine")
    whole, _ = train("torch", case, tmp_path / "whole", epochs=4)
    losses: dict[int, float] = {}
    for epoch, framework in enumerate(["torch", "paddle", "torch", "paddle"], start=1):
        losses |= train(framework, case, tmp_path / "both", epochs=epoch, resume="auto")[0]
    assert losses.keys() == whole.keys()
    np.testing.assert_allclose([losses[step] for step in whole], list(whole.values()), rtol=0, atol=2e-5)


@pytest.mark.parametrize(("first", "second"), twins.DIRECTIONS)
def test_an_epoch_that_was_cut_short_is_over_there_too(first: str, second: str, tmp_path: Path) -> None:
    case = Case(("mlp",), "nesterov", "step", settings={"accumulate_steps": 2})
    begun, _ = train(first, case, tmp_path / "begun", epochs=2, stop_at=3)
    [point] = (tmp_path / "begun" / "checkpoint").glob("last_epoch_*")
    rests = [train(name, case, tmp_path / name, epochs=2, resume=str(point))[0] for name in (first, second)]
    assert rests[0].keys() == rests[1].keys()
    assert min(rests[1]) == max(begun) + 1
    np.testing.assert_allclose(list(rests[1].values()), list(rests[0].values()), rtol=0, atol=2e-5)


@pytest.mark.long
@pytest.mark.parametrize(("first", "second"), twins.DIRECTIONS)
@pytest.mark.parametrize("name", ["momentum", "adam", "adamw", "nadam", "radam", "adagrad"])
def test_a_hundred_steps_and_a_hundred_more(first: str, second: str, name: str, tmp_path: Path) -> None:
    case = Case(("mlp",), name, "cosine")
    whole, _ = train(first, case, tmp_path / "whole", epochs=34)
    train(first, case, tmp_path / "begun", epochs=17)
    [point] = (tmp_path / "begun" / "checkpoint").glob("last_epoch_*")
    rest, _ = train(second, case, tmp_path / "rest", epochs=34, resume=str(point))
    assert len(rest) == 102
    np.testing.assert_allclose([rest[step] for step in rest], [whole[step] for step in rest], rtol=0, atol=2e-5)


# ---- rules that are false


def check_layer(kind: str, first: str, out: Path) -> None:
    """Has a layer cross, and compares what it makes of the same input."""
    second = twins.OTHER[first]
    twins.seed(first, 1)
    source, target = twins.model(first, kind), twins.model(second, kind)
    _scatter(first, source)
    giver, taker = twins.trainer(first, out / "a"), twins.trainer(second, out / "b")
    giver.set_models([source])
    taker.set_models([target])
    taker.load_checkpoint(str(twins.saved(giver, out / "a")))
    found, own = twins.output(second, kind, target[kind]), twins.output(first, kind, source[kind])
    np.testing.assert_allclose(found, own, rtol=2e-5, atol=1e-5)


Patch = Callable[[pytest.MonkeyPatch], None]


def _layout(rules: Any, cls: type, change: Callable[[Any], Any]) -> Patch:
    """Has the tensors of a class be described otherwise."""

    def patch(patching: pytest.MonkeyPatch) -> None:
        kind, layout = rules._rules[cls]
        patching.setitem(rules._rules, cls, (kind, tuple(map(change, layout))))

    return patch


def _swapped(one: str, other: str) -> Callable[[Any], Any]:
    def change(own: Any) -> Any:
        for old, new in ((one, other), (other, one)):
            if old in own.name:
                return replace(own, name=own.name.replace(old, new))
        return own

    return change


def _rows_swapped(own: Any) -> Any:
    return replace(own, roles=own.roles[1::-1] + own.roles[2:]) if isinstance(own.roles, tuple) else own


def _steps(change: Callable[[int], int]) -> Patch:
    true = optimizers.slot_of

    def false(slot: Any, steps: int, dtype: str, shape: tuple[int, ...]) -> Any:
        return true(slot, change(steps), dtype, shape)

    return lambda patching: patching.setattr(optimizers, "slot_of", false)


def _early(patching: pytest.MonkeyPatch) -> None:
    true = PaddleVocabulary.schedule_state

    def false(self: Any, scheduler: Any, live: Any, words: Any, rates: Any) -> Any:
        return true(self, scheduler, live, replace(words, position=words.position + 1), rates)

    patching.setattr(PaddleVocabulary, "schedule_state", false)


def _old_rate(patching: pytest.MonkeyPatch) -> None:
    true = TorchVocabulary.optimizer_state

    def false(self: Any, optimizer: Any, live: Any, slots: Any, rates: Any, schedule: Any) -> Any:
        return true(self, optimizer, live, slots, [group["lr"] for group in live["param_groups"]], schedule)

    patching.setattr(TorchVocabulary, "optimizer_state", false)


def _dropped(*names: str) -> Patch:
    true = weights_module.converted

    def false(*given: Any) -> Any:
        found = true(*given)
        return {
            name: filled(array.dtype, tuple(array.shape), 1.0) if name.endswith(names) else array
            for name, array in found.items()
        }

    return lambda patching: patching.setattr(weights_module, "converted", false)


def _no_slots(patching: pytest.MonkeyPatch) -> None:
    true = optimizers.from_neutral

    def false(pieces: Any) -> Any:
        array = true(pieces)
        return filled(array.dtype, tuple(array.shape), 0.0)

    patching.setattr(optimizers, "from_neutral", false)


ADAM, RMSPROP = CASES["adamw, warm-up by step, within an epoch"], CASES["rmsprop"]
MUTANTS: dict[str, tuple[Patch, str | Case, str]] = {
    "linear weights are not transposed": (
        _layout(PADDLE_RULES, paddle.nn.Linear, lambda own: replace(own, axes=None)), "linear_square", "torch"),
    "those of paddle.compat are": (
        _layout(PADDLE_RULES, paddle.compat.nn.Linear,
                lambda own: replace(own, axes=(1, 0)) if own.name == "weight" else own), "linear_of_compat", "paddle"),
    "rows of in_proj are swapped": (
        _layout(TORCH_RULES, torch.nn.MultiheadAttention, _rows_swapped), "attention", "torch"),
    "attention's weights are not transposed": (
        _layout(PADDLE_RULES, paddle.nn.MultiHeadAttention, lambda own: replace(own, axes=None)),
        "attention", "paddle"),
    "the directions are swapped": (
        _layout(PADDLE_RULES, paddle.nn.LSTM, _swapped("cell_fw", "cell_bw")), "lstm_stacked", "torch"),
    "the biases are swapped with one another": (
        _layout(TORCH_RULES, torch.nn.GRU, _swapped("bias_ih", "bias_hh")), "gru_stacked", "torch"),
    "mean and variance are swapped": (
        _layout(PADDLE_RULES, paddle.nn.BatchNorm1D, _swapped("_mean", "_variance")), "batch_norm1", "torch"),
    "the running variance is dropped": (_dropped("running_var", "_variance"), "batch_norm1", "torch"),
    "a buffer of the user's is dropped": (_dropped("seen"), "own", "paddle"),
    "a step too many": (_steps(lambda steps: steps + 1), ADAM, "torch"),
    "a step too few": (_steps(lambda steps: steps - 1), ADAM, "paddle"),
    "powers of beta are not carried": (_steps(lambda steps: 0), ADAM, "torch"),
    "moments are dropped": (_no_slots, ADAM, "torch"),
    "a scheduler is one step early": (_early, ADAM, "torch"),
    "the learning rate of the script stays": (_old_rate, ADAM, "paddle"),
    "RMSprop's momentum is not scaled": (
        lambda patching: patching.setattr(optimizers, "_times", lambda array, factor: array), RMSPROP, "torch"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_a_rule_that_is_false_is_noticed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole_of: Whole
) -> None:
    patch, subject, first = MUTANTS[name]
    if isinstance(subject, Case):
        whole_of(subject, first)
    else:
        check_layer(subject, first, tmp_path / "true")
    patch(monkeypatch)
    with pytest.raises((AssertionError, CheckpointError)):
        if isinstance(subject, Case):
            check_going_on(subject, first, tmp_path / "false", whole_of)
        else:
            check_layer(subject, first, tmp_path / "false")


# ---- several processes


def _job(framework: str, out: Path, processes: int, resume: Path | None, epochs: int) -> dict[str, Any]:
    """Trains with batches that are joined to the same ones, however many processes share them."""
    settings: dict[str, Any] = {"kind": "plain", "count": 24, "batch_size": 12 // processes, "epoch": epochs}
    settings |= {"resume": None if resume is None else str(resume)}
    out.mkdir()
    if processes == 1:
        alone: dict[str, Any] = worker.train(worker.Torch() if framework == "torch" else worker.Paddle(), out, settings)
        return alone
    command = [sys.executable, str(Path(worker.__file__)), framework, "train", str(out)]
    told = json.dumps({**settings, "spawn": processes})
    done = subprocess.run(
        [*command, told], capture_output=True, text=True, timeout=200, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert not done.returncode, done.stderr[-4000:]
    found: dict[str, Any] = json.loads((out / "rank_0.json").read_text(encoding="utf-8"))
    return found


def check_processes(out: Path, jobs: list[tuple[str, int]]) -> None:
    """An epoch in each job, one after another, beside all of them in one process."""
    whole = _job(jobs[0][0], out / "whole", 1, None, len(jobs))["weights"]
    point, found = None, dict[str, Any]()
    for number, (framework, processes) in enumerate(jobs, start=1):
        folder = out / str(number)
        found = _job(framework, folder, processes, point, number)["weights"]
        [point] = (folder / "run" / "checkpoint").glob("last_epoch_*")
    assert jobs[-1][0] == jobs[0][0]
    for name, value in whole.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=5e-5, err_msg=name)


@pytest.mark.distributed
def test_one_process_crosses_to_two_and_back(tmp_path: Path) -> None:
    check_processes(tmp_path, [("paddle", 1), ("torch", 2), ("paddle", 1)])


@pytest.mark.long
@pytest.mark.distributed
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", ["torch", "paddle"])
def test_three_processes_cross_to_two_and_back(first: str, tmp_path: Path) -> None:
    check_processes(tmp_path, [(first, 3), (twins.OTHER[first], 2), (first, 1)])

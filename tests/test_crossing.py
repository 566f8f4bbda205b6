"""A run crosses from PyTorch to PaddlePaddle and back: layers, optimizers and schedules of both, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests import crossing_twins as twins
from tests.crossing_runs import Case, crossing_point, train, weights

pytestmark = [
    # Of schedulers that are asked where they are; the frameworks' own loops warn likewise.
    pytest.mark.filterwarnings("ignore:.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),
]

NAMES = list(twins.OPTIMIZERS)
PLANS = list(twins.SCHEDULES)
GROUPS = [list(twins.KINDS)[place :: len(PLANS)] for place in range(len(PLANS))]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---- there and back


class Rig:
    """A trainer with models of some kinds of layers, an optimizer for each model, and a scheduler for each of these."""

    def __init__(self, framework: str, out: Path, row: int, seed: int) -> None:
        self.framework, self.out = framework, out
        self.trainer = twins.trainer(framework, out)
        twins.seed(framework, seed)
        self.models = [twins.model(framework, *GROUPS[row]) for _ in NAMES]
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


def _outputs(framework: str, models: list[Any], row: int) -> dict[tuple[int, str], Any]:
    return {
        (number, kind): twins.output(framework, kind, model[kind])
        for number, model in enumerate(models)
        for kind in GROUPS[row]
    }


def check_row(row: int, first: str, out: Path, trained: tuple[int, ...] | None = None) -> None:
    """Goes there and back with all optimizers, each under another schedule, and all layers of one group."""
    second = twins.OTHER[first]
    start = Rig(first, out / "start", row, 1)
    start.work()
    came = start.save()
    there = Rig(second, out / "there", row, 2)
    there.trainer.load_checkpoint(str(came))
    gone = there.save()
    back = Rig(first, out / "back", row, 3)
    back.trainer.load_checkpoint(str(gone))
    returned = back.save()
    before, after = twins.files(came), twins.files(returned)
    different = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    assert not different, f"row {row} from {first}: {different}"
    own = _outputs(first, start.models, row)
    for key, found in _outputs(second, there.models, row).items():
        np.testing.assert_allclose(found, own[key], rtol=2e-5, atol=1e-5, err_msg=f"{key} from {first}")


ROWS = range(len(PLANS))


@pytest.mark.parametrize("first", ["torch", "paddle"])
def test_there_and_back_every_byte_but_of_streams_is_the_same(first: str, tmp_path: Path) -> None:
    """All pairs of a kind of layer, an optimizer and a schedule; half of them each way, the others in the long run."""
    for row in ROWS:
        if row % 2 == (first == "torch"):
            check_row(row, first, tmp_path / str(row))


@pytest.mark.long
@pytest.mark.parametrize("first", ["torch", "paddle"])
def test_there_and_back_the_other_way_round(first: str, tmp_path: Path) -> None:
    for row in ROWS:
        if row % 2 != (first == "torch"):
            check_row(row, first, tmp_path / str(row))


def test_the_rows_have_all_pairs() -> None:
    kinds = {kind for group in GROUPS for kind in group}
    assert len(kinds) >= 30
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


def check_going_on(case: Case, first: str, out: Path, epochs: int = 2, at_epoch: int = 1) -> None:
    """Goes on in the other framework from the middle of a run, and compares with the rest of it."""
    second = twins.OTHER[first]
    whole, _ = train(first, case, out / "whole", epochs=epochs, max_keep_num=None)
    point = crossing_point(out / "whole", case)
    rest, trainer = train(second, case, out / "rest", epochs=epochs, resume=str(point))
    assert rest.keys() < whole.keys()
    assert max(rest) == max(whole)
    assert len(rest) >= len(whole) // 2
    np.testing.assert_allclose([rest[step] for step in rest], [whole[step] for step in rest], rtol=0, atol=2e-5)
    ends = [next((out / name / "checkpoint").glob("last_epoch_*")) for name in ("whole", "rest")]
    for ema in [False, True][: 1 + ("ema_decay" in case.settings)]:
        theirs, ours = (
            weights(first, case, end, out / f"weights{number}{ema}", ema=ema) for number, end in enumerate(ends)
        )
        for name, value in theirs.items():
            np.testing.assert_allclose(ours[name], value, rtol=0, atol=5e-5, err_msg=f"{name}, average: {ema}")


@pytest.mark.parametrize(("first", "_second"), twins.DIRECTIONS)
def test_the_losses_go_on_as_if_nothing_had_been(first: str, _second: str, tmp_path: Path) -> None:
    problems = []
    for number, (name, case) in enumerate(CASES.items()):
        try:
            check_going_on(case, first, tmp_path / str(number))
        except Exception as error:  # all of them are told, not the first alone
            problems.append(f"{name}: {error}")
    assert not problems, "\n".join(problems)

"""What a run keeps beside layers and optimizers as PaddlePaddle has them, and checkpoints of the first version."""

from __future__ import annotations

import enum
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from dowdyboy_core import UnsupportedError
from dowdyboy_paddle import Trainer, TrainerConfig

ROOT = Path(__file__).resolve().parents[3]


def make(out_dir: Path, optimizer: Any = None, **changed: Any) -> Trainer:
    settings: dict[str, Any] = {"epoch": 2, "cpu": True, "disable_tqdm": True, "log_with": "none", **changed}
    trainer = Trainer(TrainerConfig(out_dir=out_dir, **settings))
    model = paddle.nn.Linear(2, 1)
    trainer.set_model(model)
    if optimizer is None:
        schedule = paddle.optimizer.lr.StepDecay(0.5, 1)
        trainer.set_optimizer(paddle.optimizer.Adam(schedule, parameters=model.parameters()), schedule)
    else:
        trainer.set_optimizer(optimizer(model.parameters()))
    trainer.set_train_dataloader([paddle.full([2, 2], float(number)) for number in (1, 2, 3)])
    return trainer


def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
    loss = (trainer.get_models()[0](bat) ** 2).mean()
    trainer.set_records({"loss": loss})
    return loss


class Mood(enum.Enum):
    """As what has made the stored checkpoint of version 2 has it."""

    FRESH = 1
    USED = 2


class Kept:
    """A component with a state."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {"mood": Mood.FRESH}

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state


@pytest.mark.parametrize("version", [1, 2])
def test_a_checkpoint_of_an_older_version_is_taken_up(version: int, tmp_path: Path) -> None:
    stored = ROOT / "tests" / "data" / f"version_{version}" / "paddle"
    steps = []
    trainer = make(tmp_path, resume=str(stored), save_best=True, save_best_rec="loss")
    kept = Kept()
    trainer.set_components([kept] if version > 1 else [])
    trainer.fit(lambda *args: (steps.append(args[3]), step(*args))[1])
    assert steps == [5]
    assert "takes the place" not in (tmp_path / "default_run.log").read_text()
    if version > 1:
        sums = kept.state.pop("sums").tolist()
        assert (kept.state, sums) == (
            {"mood": Mood.USED, "last": deque([1, 2], 3), "seen": {1, 2}, "mean": np.float32(0.5)},
            [0, 1, 2],
        )


OTHERS = {
    "LookAhead": lambda found: paddle.incubate.LookAhead(paddle.optimizer.SGD(0.1, parameters=found)),
    "LBFGS": lambda found: paddle.optimizer.LBFGS(0.1, parameters=found),
}


@pytest.mark.parametrize("name", OTHERS)
def test_an_optimizer_with_state_elsewhere_is_refused_before_the_first_batch(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=f"a {name}, can't be resumed"):
        trainer = make(tmp_path, optimizer=OTHERS[name], auto_optimize=name != "LBFGS")  # which wants a closure
        trainer.fit(lambda *args: pytest.fail("a batch was trained"))


def test_metrics_are_kept_by_their_attributes(tmp_path: Path) -> None:
    def run(folder: str, stop_at: int | None, **changed: Any) -> tuple[float, float]:
        accuracy, area = paddle.metric.Accuracy(), paddle.metric.Auc()
        trainer = make(tmp_path / folder, save_steps=1, **changed)
        trainer.set_components([accuracy, area])

        def train(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
            if global_step == stop_at:
                raise KeyError("stop")
            scores, labels = paddle.to_tensor([[0.2, 0.8], [0.6, 0.4]]), paddle.to_tensor([[1], [global_step % 2]])
            accuracy.update(accuracy.compute(scores, labels))
            area.update(scores, labels)
            return step(trainer, bat, bat_idx, global_step)

        try:
            trainer.fit(train)
        except KeyError:
            trainer.wait_for_checkpoint()
        return float(accuracy.accumulate()), float(area.accumulate())

    whole, cut = run("whole", None), run("cut", 4)
    assert run("cut", None, resume="auto") == whole
    assert cut[0] == whole[0] == 0.75
    assert cut[1] != 0

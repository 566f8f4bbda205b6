"""What a run keeps beside modules and optimizers as PyTorch has them, and checkpoints of the first version."""

from __future__ import annotations

import enum
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dowdyboy_core import UnsupportedError
from dowdyboy_torch import Trainer, TrainerConfig

ROOT = Path(__file__).resolve().parents[3]


def make(out_dir: Path, optimizer: Any = None, model: Any = None, **changed: Any) -> Trainer:
    settings: dict[str, Any] = {"epoch": 2, "cpu": True, "disable_tqdm": True, "log_with": "none", **changed}
    trainer = Trainer(TrainerConfig(out_dir=out_dir, **settings))
    model = torch.nn.Linear(2, 1) if model is None else model
    trainer.set_model(model)
    made = torch.optim.Adam(model.parameters(), lr=0.5) if optimizer is None else optimizer(model)
    trainer.set_optimizer(made, torch.optim.lr_scheduler.StepLR(made, 1))
    trainer.set_train_dataloader([torch.full((2, 2), float(number)) for number in (1, 2, 3)])
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
    stored = ROOT / "tests" / "data" / f"version_{version}" / "torch"
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


class Around(torch.optim.SGD):
    """An optimizer whose state_dict says more than PyTorch's own do."""

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "slow": 1}


def test_an_optimizer_with_state_elsewhere_is_refused_before_the_first_batch(tmp_path: Path) -> None:
    trainer = make(tmp_path, optimizer=lambda model: Around(model.parameters(), lr=0.1))
    with pytest.raises(UnsupportedError, match=r"a Around, can't be resumed.*'slow'"):
        trainer.fit(lambda *args: pytest.fail("a batch was trained"))


class Metric(torch.nn.Module):
    """A metric of the form that torchmetrics gives its own."""

    def __init__(self) -> None:
        super().__init__()
        self._defaults: dict[str, Any] = {"total": torch.zeros(()), "values": []}
        self._persistent = {"total": False, "values": True}
        self.total, self.values = torch.zeros(()), []
        self._update_count, self._computed = 0, None

    def add_state(self) -> None:
        """By this it is known."""

    def state_dict(self, *args: Any, **named: Any) -> Any:
        found = super().state_dict(*args, **named)
        found[named.get("prefix", "") + "values"] = self.values
        return found


def test_states_of_metrics_are_kept_in_models_and_components(tmp_path: Path) -> None:
    def run(folder: str, stop_at: int | None, **changed: Any) -> list[Metric]:
        model = torch.nn.Linear(2, 1)
        model.metric = Metric()
        metrics = [model.metric, Metric()]
        trainer = make(tmp_path / folder, model=model, save_steps=1, **changed)
        trainer.set_component(metrics[1])

        def train(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
            if global_step == stop_at:
                raise KeyError("stop")
            for metric in metrics:
                metric.total = metric.total + bat.sum()
                metric.values.append(bat.mean())
                metric._update_count += 1
            return step(trainer, bat, bat_idx, global_step)

        try:
            trainer.fit(train)
        except KeyError:
            trainer.wait_for_checkpoint()
        return metrics

    whole = run("whole", None)
    run("cut", 4)
    resumed = run("cut", None, resume="auto")
    for one, other in zip(whole, resumed, strict=True):
        assert (one._update_count, one.total, one.values) == (other._update_count, other.total, other.values)
        assert one._update_count == 6

"""A test amid training: what PyTorch alone has that it must not disturb."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from dowdyboy_torch import Trainer, TrainerConfig
from dowdyboy_torch._backend import TorchBackend


class Merging(nn.Linear):
    """Adds something to its weight for evaluation, and takes it away for training, as adapters do."""

    merged = False

    def train(self, mode: bool = True) -> Any:
        if mode == self.merged:
            with torch.no_grad():
                self.weight += -1.0 if mode else 1.0
            self.merged = not mode
        return super().train(mode)


def test_a_module_is_told_of_its_mode_by_its_own_method() -> None:
    frozen, trained = Merging(2, 2), Merging(2, 2)
    model = nn.Sequential(frozen, trained)
    frozen.eval()
    before = {name: item.clone() for name, item in model.state_dict().items()}
    backend = TorchBackend()
    put_back = backend.keep_modes(model)
    backend.set_training(model, False)
    put_back()
    assert [model.training, frozen.training, trained.training] == [True, False, True]
    assert all(torch.allclose(item, before[name]) for name, item in model.state_dict().items())
    assert [frozen.merged, trained.merged] == [True, False]


class Stubborn(nn.Linear):
    """Stays in evaluation mode, whatever it is told."""

    def train(self, mode: bool = True) -> Any:
        return super().train(False)


def test_a_mode_that_was_set_against_the_method_is_put_back() -> None:
    model = nn.Sequential(Stubborn(2, 2))
    model[0].training = True
    backend = TorchBackend()
    put_back = backend.keep_modes(model)
    backend.set_training(model, False)
    put_back()
    assert model[0].training


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_what_autocast_keeps_for_a_batch_is_not_that_of_a_test(tmp_path: Path, precision: str) -> None:
    found = []
    for tests in (False, True):
        config = TrainerConfig(
            out_dir=tmp_path / str(tests), epoch=1, cpu=True, mixed_precision=precision, log_with="none"
        )
        trainer = Trainer(config)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        trainer.set_model(model)
        trainer.set_optimizer(torch.optim.SGD(model.parameters(), 0.1))
        trainer.set_train_dataloader([torch.full((2, 3), float(number)) for number in range(3)])
        trainer.set_test_dataloader([torch.ones(2, 3)])

        def train_step(trainer: Trainer, bat: Tensor, *_: Any, tests: bool = tests, model: nn.Module = model) -> Tensor:
            half = model(bat) if bat[0, 0] == 1 else 0.0
            if tests:
                trainer.test(lambda trainer, bat, *_: model(bat).sum())
            return (model(bat) + half).square().mean()

        trainer.fit(train_step)
        found.append([item.tolist() for item in model.parameters()])
    assert found[0] == found[1]


class Numbers(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(6))


def test_persistent_workers_read_for_one_role(tmp_path: Path) -> None:
    trainer = Trainer(TrainerConfig(out_dir=tmp_path, epoch=2, cpu=True, log_with="none", auto_optimize=False))
    trainer.set_model(nn.Linear(1, 1))
    loader = DataLoader(Numbers(), 2, num_workers=1, persistent_workers=True)
    trainer.set_train_dataloader(loader)
    trainer.set_test_dataloader(loader)
    seen: list[tuple[str, list[int]]] = []

    def train_step(trainer: Trainer, bat: Tensor, bat_idx: int, global_step: int) -> None:
        seen.append(("train", bat.tolist()))
        if bat_idx == 0:
            trainer.test(lambda trainer, bat, *_: seen.append(("test", bat.tolist())))

    trainer.fit(train_step)
    [first, *rest] = batches = [[0, 1], [2, 3], [4, 5]]
    one = [("train", first), *(("test", bat) for bat in batches), *(("train", bat) for bat in rest)]
    assert seen == one * 2

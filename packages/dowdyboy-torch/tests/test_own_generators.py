"""D-23 with PyTorch's own generators and wrappers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, RandomSampler, Subset, TensorDataset, random_split

from dowdyboy_torch import Trainer, TrainerConfig


class Drawing(Dataset[Any]):
    """Adds noise from a generator of its own, which a line may seed first."""

    def __init__(self, seeds: bool = False) -> None:
        self.generator = torch.Generator().manual_seed(3)
        self.seeds = seeds

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        if self.seeds:
            self.generator.manual_seed(random.getrandbits(63))
        return torch.full((2,), float(index)) + torch.rand(2, generator=self.generator)


def fit(out_dir: Path, loader: Any, stop_at: int | None = None) -> list[list[float]]:
    """The batches that training sees, until it fails."""
    model = torch.nn.Linear(2, 1)
    config = TrainerConfig(out_dir=out_dir, epoch=2, cpu=True, disable_tqdm=True, resume="auto", save_steps=1)
    trainer = Trainer(config)
    trainer.set_model(model)
    trainer.set_optimizer(torch.optim.SGD(model.parameters(), lr=0.1))
    trainer.set_train_dataloader(loader)
    seen: list[list[float]] = []

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        if global_step == stop_at:
            raise KeyError("stopped")
        seen.append(bat.flatten().tolist())
        return trainer.get_models()[0](bat).mean()

    trainer.fit(step)
    return seen


@pytest.mark.parametrize("seeds", [False, True])
def test_the_line_for_a_generator_makes_it_exact(tmp_path: Path, seeds: bool) -> None:
    whole = fit(tmp_path / "whole", DataLoader(Drawing(seeds), batch_size=2, shuffle=True))
    with pytest.raises(KeyError):
        fit(tmp_path / "parts", DataLoader(Drawing(seeds), batch_size=2, shuffle=True), stop_at=5)
    rest = fit(tmp_path / "parts", DataLoader(Drawing(seeds), batch_size=2, shuffle=True))
    assert (rest == whole[5:]) == seeds
    told = (tmp_path / "whole" / "default_run.log").read_text()
    assert "dataset.generator (torch Generator)" in told
    assert "    self.generator.manual_seed(random.getrandbits(63))" in told


def test_generators_are_found_in_what_is_wrapped(tmp_path: Path) -> None:
    fit(tmp_path, DataLoader(ConcatDataset([Subset(Drawing(), [1, 2]), Drawing()]), batch_size=2))
    told = (tmp_path / "default_run.log").read_text()
    assert "dataset.datasets[1].generator (torch Generator)" in told
    assert "dataset.datasets[0].dataset.generator (torch Generator)" in told


def test_what_pytorch_and_the_trainer_seed_is_not_named(tmp_path: Path) -> None:
    data: Any = TensorDataset(torch.zeros(8, 2))
    part, _ = random_split(data, [4, 4], generator=torch.Generator())
    sampler = RandomSampler(part, generator=torch.Generator())
    loader: Any = DataLoader(part, batch_size=2, sampler=sampler, generator=torch.Generator(), collate_fn=stack)
    fit(tmp_path, loader)
    assert "of its own" not in (tmp_path / "default_run.log").read_text()


def stack(samples: Any) -> torch.Tensor:
    return torch.stack([sample for (sample,) in samples])

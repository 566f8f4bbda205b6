"""Models that make or resize what they hold while they load resume as load_state_dict would have it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dowdyboy_core import CheckpointError
from dowdyboy_torch import Trainer, TrainerConfig


class Queue(nn.Module):
    """A buffer that grows with each batch, and is made to fit by the module itself."""

    queue: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.register_buffer("queue", torch.zeros(0, 6))

    def forward(self, x: torch.Tensor) -> Any:
        self.queue = torch.cat([self.queue, x.detach()[:1]])
        return self.linear(x)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        self.queue = torch.zeros_like(state_dict[prefix + "queue"])
        super()._load_from_state_dict(state_dict, prefix, *others)


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.Tanh(), nn.Linear(8, 3))


def observed() -> nn.Module:
    from torch.ao import quantization

    model = nn.Sequential(quantization.QuantStub(), nn.Linear(6, 3)).train()
    model.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    return quantization.prepare_qat(model)  # type: ignore[no-any-return]


def train(make: Callable[[], nn.Module], out_dir: Path, epochs: int, resume: str | None = None) -> nn.Module:
    torch.manual_seed(5)
    trainer = Trainer(
        TrainerConfig(epoch=epochs, out_dir=out_dir, cpu=True, disable_tqdm=True, log_with="none", resume=resume)
    )
    model = make()
    trainer.set_model(model)
    trainer.set_optimizer(torch.optim.SGD(model.parameters(), 0.1, momentum=0.9))
    data = torch.arange(48.0).reshape(8, 6) / 48
    trainer.set_train_dataloader([data[:4], data[4:]])
    trainer.fit(lambda trainer, bat, i, step: (trainer.get_models()[0](bat) ** 2).mean())
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [lazy, observed, Queue], ids=["lazy", "observed", "queue"])
def test_what_load_state_dict_takes_resumes_exactly(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    whole = train(make, tmp_path / "whole", 3)
    train(make, tmp_path / "cut", 1)
    resumed = train(make, tmp_path / "cut", 3, resume="auto")
    expected, found = whole.state_dict(), resumed.state_dict()
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    stored = io.BytesIO()
    torch.save(found, stored)
    make().load_state_dict(torch.load(io.BytesIO(stored.getvalue()), weights_only=True))


def test_what_it_would_not_take_is_refused_and_nothing_loaded(tmp_path: Path) -> None:
    train(Queue, tmp_path, 1)
    trainer = Trainer(TrainerConfig(out_dir=tmp_path, cpu=True, disable_tqdm=True, log_with="none"))
    model = Queue()
    model.linear = nn.Linear(5, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer.set_model(model)
    with pytest.raises(CheckpointError, match=r"shape of linear\.weight"):
        trainer.load_checkpoint(tmp_path / "checkpoint" / "last_epoch_1", weights_only=True)
    trainer.set_model(Queue().double())  # load_state_dict would convert, and the run would not be the same
    with pytest.raises(CheckpointError, match=r"type of linear\.weight"):
        trainer.load_checkpoint(tmp_path / "checkpoint" / "last_epoch_1", weights_only=True)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

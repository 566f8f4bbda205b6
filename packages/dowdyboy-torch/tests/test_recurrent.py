"""Recurrent layers, and other layers that hold what has no content yet."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dowdyboy_torch import SetupError, Trainer, TrainerConfig
from dowdyboy_torch._distributed import TorchExchange, replicate
from dowdyboy_torch.rand import derive_seed, set_seed

KINDS: dict[str, Callable[[], Any]] = {
    "LSTM": lambda: nn.LSTM(4, 5),
    "GRU": lambda: nn.GRU(4, 5, num_layers=2, bidirectional=True, dropout=0.2),
    "RNN": lambda: nn.RNN(4, 5, nonlinearity="relu", batch_first=True),
    "projected": lambda: nn.LSTM(4, 6, proj_size=5),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.LSTM(4, 5), "weight_hh_l0"),
}


class Model(nn.Module):
    """What comes before, the layer itself, and what comes after."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.before, self.rnn = nn.Linear(3, 4), KINDS[kind]()
        self.after = nn.Linear(10 if kind == "GRU" else 5, 1)

    def forward(self, values: Any) -> Any:
        return self.after(self.rnn(self.before(values))[0]).square().mean()


def batches() -> list[Any]:
    generator = np.random.Generator(np.random.PCG64(1))
    return [torch.from_numpy(generator.normal(size=(2, 6, 3)).astype("float32")) for _ in range(4)]


def weights(model: Any) -> dict[str, Any]:
    return {name: item.tolist() for name, item in model.state_dict().items()}


def freeze(model: Model, parts: str) -> None:
    for name, item in model.named_parameters():
        item.requires_grad_(not name.startswith(tuple(parts.split())))


def trainable(model: Model) -> list[Any]:
    return [item for item in model.parameters() if item.requires_grad]


class Killed(Exception):
    """Ends a run where a kill would have."""


def train(kind: str, out_dir: Path, frozen: str = "none", kill_at: int | None = None, **settings: Any) -> Any:
    common: dict[str, Any] = {"epoch": 2, "cpu": True, "log_with": "none", "disable_tqdm": True, "save_steps": 1}
    trainer = Trainer(TrainerConfig(out_dir=out_dir, **{**common, **settings}))
    model = Model(kind)
    freeze(model, frozen)
    trainer.set_model(model)
    trainer.set_optimizer(torch.optim.Adam(trainable(model), 0.01))
    trainer.set_train_dataloader(batches())

    def train_step(trainer: Trainer, bat: Any, bat_idx: int, global_step: int) -> Any:
        if global_step == kill_at:
            raise Killed
        return trainer.get_models()[0](bat)

    with suppress(Killed):
        trainer.fit(train_step)
    return weights(model)


def by_hand(kind: str, frozen: str) -> Any:
    set_seed(1024)
    model = Model(kind)
    freeze(model, frozen)
    optimizer = torch.optim.Adam(trainable(model), 0.01)
    set_seed(derive_seed(1024, "fit", 0))
    for _ in range(2):
        for bat in batches():
            optimizer.zero_grad()
            model(bat).backward()
            optimizer.step()
    return weights(model)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")  # nor need it be
@pytest.mark.parametrize("kind", KINDS)
def test_a_recurrent_layer_trains_as_by_hand_and_is_resumed(tmp_path: Path, kind: str) -> None:
    for frozen in ("none", "before rnn", "rnn.bias"):
        whole = train(kind, tmp_path / frozen / "whole", frozen)
        assert whole == by_hand(kind, frozen)
        train(kind, tmp_path / frozen / "parts", frozen, kill_at=5)
        assert train(kind, tmp_path / frozen / "parts", frozen, resume="auto") == whole


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(2), nn.LazyBatchNorm1d())


def test_a_lazy_model_gets_its_shapes_in_training(tmp_path: Path) -> None:
    trainer = Trainer(TrainerConfig(out_dir=tmp_path, epoch=1, cpu=True, log_with="none", disable_tqdm=True))
    model = lazy()
    trainer.set_model(model)
    trainer.set_optimizer(torch.optim.SGD(model.parameters(), 0.1))
    trainer.set_train_dataloader([bat.reshape(4, 9) for bat in batches()])
    trainer.fit(lambda trainer, bat, *_: model(bat).square().mean())
    assert model[0].weight.shape == (2, 9)


def test_in_several_processes_a_lazy_model_is_refused() -> None:
    with pytest.raises(SetupError) as caught:
        replicate(TorchExchange(lazy(), torch.device("cpu"), False))
    assert str(caught.value) == (
        "The parameters ['0.weight', '0.bias', '1.weight', '1.bias'] (4 in all) have no shape yet, and in several "
        "processes they need one. Run the model once on an input like yours before set_models."
    )

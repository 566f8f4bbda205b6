"""What torch.compile wraps around modules, and weights that are tied, in checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from dowdyboy_conformance._checkpoints import rewrite_index
from dowdyboy_torch import Trainer, TrainerConfig, _names, _own_state, _state
from dowdyboy_torch.model_util import load_checkpoint, save_checkpoint

PATHS = ["body.weight", "body.bias", "head.weight", "head.bias"]
SETTINGS: dict[str, Any] = {"cpu": True, "disable_tqdm": True, "log_with": "none", "ema_decay": 0.5}


class Metric(nn.Module):
    """A metric of the form that torchmetrics gives its own."""

    def __init__(self) -> None:
        super().__init__()
        self._defaults: dict[str, Any] = {}
        self._persistent: dict[str, bool] = {}
        self.add_state("total", torch.zeros(()))

    def add_state(self, name: str, default: torch.Tensor) -> None:
        self._defaults[name], self._persistent[name] = default, False
        setattr(self, name, default.clone())


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.metric = nn.Linear(3, 4), nn.Linear(4, 2), Metric()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(torch.tanh(self.body(x)))
        return result


def build(compiled: str, seed: int = 0) -> Any:
    """A model of which what ``compiled`` names is compiled: parts, and the whole."""
    torch.manual_seed(seed)
    model: Any = Model()
    model.head.bias.requires_grad_(False)
    for part in ("body", "metric"):
        if "parts" in compiled:
            setattr(model, part, torch.compile(getattr(model, part), backend="eager"))
    return torch.compile(model, backend="eager") if "whole" in compiled else model


def fit(out_dir: Path, compiled: str, epoch: int, **changed: Any) -> Any:
    trainer = Trainer(TrainerConfig(out_dir=out_dir, epoch=epoch, **SETTINGS, **changed))
    model = build(compiled, epoch)
    trainer.set_model(model)
    trainer.set_optimizer(torch.optim.Adam(model.parameters(), lr=0.1))
    torch.manual_seed(7)
    trainer.set_train_dataloader([torch.randn(5, 3) for _ in range(3)])

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        model.metric.total += 1
        return (trainer.get_models()[0](bat) ** 2).mean()

    trainer.fit(step)
    assert trainer.get_raw_models()[0] is model
    return model


def files(folder: Path) -> dict[str, Any]:
    """All that a checkpoint holds but for its index and random streams."""
    found: dict[str, Any] = {path.name: json.loads(path.read_bytes()) for path in folder.glob("*.json")}
    for path in folder.glob("*.safetensors"):
        found[path.name] = {name: array.tolist() for name, array in safetensors.torch.load_file(path).items()}
    return {name: content for name, content in found.items() if not name.startswith(("checkpoint", "rng"))}


def test_compilation_leaves_no_trace_and_is_switched_on_and_off(tmp_path: Path) -> None:
    ways = ("", "whole", "parts of the whole")
    for number, way in enumerate(ways):
        fit(tmp_path / f"run {way}", way, 1)
        assert files(tmp_path / f"run {way}" / "checkpoint/epoch_1") == files(
            tmp_path / "run " / "checkpoint/epoch_1"
        ), way
        fit(tmp_path / f"run {way}", ways[(number + 1) % len(ways)], 2, resume="auto")
    found = files(tmp_path / "run whole" / "checkpoint/epoch_2")
    assert sorted(found["model_0.safetensors"]) == sorted(found["ema_0.safetensors"]) == sorted(PATHS)
    assert found["frozen.json"] == ["0/head.bias"]
    assert found["optimizer_0.json"]["param_groups"][0]["params"] == [f"0/{path}" for path in PATHS]
    assert found["ema.json"]["parameters"] == [f"0/{path}" for path in PATHS[:-1]]
    assert list(found["model_0_beside.json"][0]) == ["metric"]
    for way in ways:
        assert files(tmp_path / f"run {way}" / "checkpoint/epoch_2") == found, way


def test_names_of_wrappers_in_a_checkpoint_of_version_1_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        for module in (_names, _state, _own_state):
            older.setattr(module, "plain_paths", lambda model: lambda path: path)
        trained = fit(tmp_path, "parts of the whole", 1)
        by_hand = save_checkpoint(1, tmp_path / "by_hand", [trained], [torch.optim.SGD(trained.parameters(), lr=0.5)])
    folder = tmp_path / "checkpoint" / "last_epoch_1"
    files_of_index = json.loads((folder / "checkpoint.json").read_bytes())["files"]
    kept = {name: said for name, said in files_of_index.items() if not name.startswith(("frozen", "model_0_beside"))}
    rewrite_index(folder, format_version=1, files=kept)
    rewrite_index(Path(by_hand), format_version=1)
    assert "_orig_mod.body._orig_mod.weight" in safetensors.torch.load_file(folder / "model_0.safetensors")

    for way in ("", "whole"):
        other = build(way, seed=3)
        optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
        load_checkpoint(by_hand, [other], [optimizer])
        assert optimizer.param_groups[0]["lr"] == 0.5
        assert all(torch.equal(one, two) for one, two in zip(other.parameters(), trained.parameters(), strict=True))
    fit(tmp_path, "whole", 2, resume=str(folder))
    assert sorted(files(tmp_path / "checkpoint/epoch_2")["model_0.safetensors"]) == sorted(PATHS)


def test_a_module_of_the_users_own_may_be_named_so() -> None:
    model = nn.Module()
    model._orig_mod = nn.Linear(1, 1)
    assert [path for path, _ in _names.named_parameters(model)] == ["_orig_mod.weight", "_orig_mod.bias"]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(300, 20), nn.Linear(20, 300)
        self.head.weight = self.embedding.weight
        self.register_buffer("part", self.embedding.weight.detach()[:2])
        self.register_buffer("none", torch.zeros(0))
        self.register_buffer("nothing", torch.zeros(0))


def test_tied_weights_are_readable_by_everybody(tmp_path: Path) -> None:
    model = Tied()
    folder = Path(save_checkpoint(1, tmp_path, [model]))
    path = folder / "model_0.safetensors"
    assert 300 * 20 * 4 < path.stat().st_size < 300 * 20 * 4 * 1.2
    stored = safetensors.torch.load_file(path)
    assert sorted(stored) == ["embedding.weight", "head.bias", "none", "nothing", "part"]
    tied = json.loads((folder / "checkpoint.json").read_bytes())["tied"]["model_0"]
    assert tied == {"head.weight": "embedding.weight"}

    ours, theirs, plain = (Tied() for _ in range(3))
    load_checkpoint(folder, [ours])
    plain.load_state_dict(stored | {name: stored[at] for name, at in tied.items()})
    del theirs.part, model.part  # which is no whole tensor, and the library refuses such
    weights = {name: array for name, array in stored.items() if name != "part"}
    safetensors.torch.save_file(weights, tmp_path / "whole.safetensors")
    missing, unexpected = safetensors.torch.load_model(theirs, tmp_path / "whole.safetensors")
    assert not missing and not unexpected
    for other in (ours, theirs, plain):
        assert other.head.weight is other.embedding.weight
        assert torch.equal(other.head.weight, model.head.weight) and torch.equal(other.head.bias, model.head.bias)

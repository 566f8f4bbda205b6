"""What paddle.jit.to_static makes of layers, and weights that are tied, in checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn
from safetensors.numpy import load_file as load_arrays
from safetensors.paddle import load_file

from dowdyboy_paddle import Trainer, TrainerConfig
from dowdyboy_paddle.model_util import load_checkpoint, save_checkpoint

PATHS = ["body.weight", "body.bias", "head.weight", "head.bias"]


class Model(nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        result: paddle.Tensor = self.head(paddle.tanh(self.body(x)))
        return result


def fit(out_dir: Path, static: str, epoch: int, **changed: Any) -> None:
    settings: dict[str, Any] = {"cpu": True, "disable_tqdm": True, "log_with": "none", "ema_decay": 0.5}
    trainer = Trainer(TrainerConfig(out_dir=out_dir, epoch=epoch, **settings, **changed))
    paddle.seed(epoch)
    model: Any = Model()
    if static == "part":
        model.body = paddle.jit.to_static(model.body, full_graph=True)
    if static == "whole":
        model = paddle.jit.to_static(model, full_graph=True)
    trainer.set_model(model)
    trainer.set_optimizer(paddle.optimizer.Adam(0.1, parameters=model.parameters()))
    paddle.seed(7)
    trainer.set_train_dataloader([paddle.randn([5, 3]) for _ in range(3)])
    trainer.fit(lambda trainer, bat, *_: (trainer.get_models()[0](bat) ** 2).mean())
    assert trainer.get_raw_models()[0] is model


@pytest.mark.filterwarnings("ignore:Tensor do not have 'place' interface")  # the framework's own way of compiling
def test_static_layers_leave_no_trace_and_are_switched_on_and_off(tmp_path: Path) -> None:
    ways = ("", "whole", "part")
    for number, way in enumerate(ways):
        fit(tmp_path / f"run{way}", way, 1)
        fit(tmp_path / f"run{way}", ways[(number + 1) % len(ways)], 2, resume="auto")
        for name in ("epoch_1", "epoch_2"):
            folder = tmp_path / f"run{way}" / "checkpoint" / name
            groups = json.loads((folder / "optimizer_0.json").read_bytes())["param_groups"]
            assert groups[0]["params"] == [f"0/{path}" for path in PATHS]
            stored = load_arrays(folder / "model_0.safetensors")
            plain = load_arrays(tmp_path / "run" / "checkpoint" / name / "model_0.safetensors")  # that of the first way
            assert sorted(stored) == sorted(PATHS)
            for path in PATHS:
                np.testing.assert_allclose(stored[path], plain[path], rtol=1e-5, atol=1e-6, err_msg=path)


class Tied(nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.scale = nn.Embedding(300, 20), nn.Linear(20, 20)
        self.weight = self.embedding.weight
        self.register_buffer("kept", paddle.ones([2]))
        self.register_buffer("again", self.kept)


def test_tied_weights_are_readable_by_everybody(tmp_path: Path) -> None:
    model = Tied()
    folder = Path(save_checkpoint(1, tmp_path, [model]))
    path = folder / "model_0.safetensors"
    assert 300 * 20 * 4 < path.stat().st_size < 300 * 20 * 4 * 1.2
    assert sorted(load_arrays(path)) == ["kept", "scale.bias", "scale.weight", "weight"]
    tied = json.loads((folder / "checkpoint.json").read_bytes())["tied"]["model_0"]
    assert tied == {"embedding.weight": "weight", "again": "kept"}

    ours, theirs = Tied(), Tied()
    for other in (ours, theirs):
        other.kept.set_value(paddle.zeros([2]))
    load_checkpoint(folder, [ours])
    with pytest.warns(UserWarning, match="embedding.weight is not found|again is not found"):
        theirs.set_state_dict(load_file(path))
    for other in (ours, theirs):
        assert other.weight is other.embedding.weight
        lives, wanted = other.state_dict(), model.state_dict()
        assert lives.keys() == wanted.keys()
        for name, tensor in wanted.items():
            np.testing.assert_array_equal(lives[name].numpy(), tensor.numpy(), err_msg=name)

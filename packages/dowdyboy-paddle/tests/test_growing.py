"""A model that resizes what it holds while it loads resumes as its own set_state_dict would have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from dowdyboy_core import CheckpointError
from dowdyboy_paddle import Trainer, TrainerConfig


class Queue(paddle.nn.Layer):  # type: ignore[misc]
    """A buffer that grows with each batch, and is made to fit by the layer itself."""

    def __init__(self, features: int = 6) -> None:
        super().__init__()
        self.linear = paddle.nn.Linear(features, 3)
        self.register_buffer("queue", paddle.zeros([1, features]))

    def forward(self, x: Any) -> Any:
        self.queue = paddle.concat([self.queue, x.detach()[:1]])
        return self.linear(x)

    def set_state_dict(self, state_dict: Any, use_structured_name: bool = True) -> Any:
        self.queue = paddle.zeros_like(state_dict["queue"])
        return super().set_state_dict(state_dict, use_structured_name)


def start(out_dir: Path, epochs: int, resume: str | None = None, features: int = 6) -> tuple[Trainer, Queue]:
    paddle.seed(5)
    trainer = Trainer(
        TrainerConfig(epoch=epochs, out_dir=out_dir, cpu=True, disable_tqdm=True, log_with="none", resume=resume)
    )
    model = Queue(features)
    trainer.set_model(model)
    trainer.set_optimizer(paddle.optimizer.Momentum(0.1, parameters=model.parameters()))
    data = paddle.arange(48, dtype="float32").reshape([8, 6]) / 48
    trainer.set_train_dataloader([data[:4], data[4:]])
    return trainer, model


def train(*given: Any) -> Queue:
    trainer, model = start(*given)
    trainer.fit(lambda trainer, bat, i, step: (trainer.get_models()[0](bat) ** 2).mean())
    return model


def test_what_set_state_dict_takes_resumes_exactly(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", 3)
    train(tmp_path / "cut", 1)
    resumed = train(tmp_path / "cut", 3, "auto")
    for name, value in whole.state_dict().items():
        np.testing.assert_array_equal(resumed.state_dict()[name].numpy(), value.numpy(), err_msg=name)
    trainer, model = start(tmp_path / "cut", 3, None, 5)
    before = model.linear.weight.numpy()
    with pytest.raises(CheckpointError, match=r"shape of linear\.weight"):
        trainer.load_checkpoint(tmp_path / "cut" / "checkpoint" / "last_epoch_3", weights_only=True)
    np.testing.assert_array_equal(model.linear.weight.numpy(), before)

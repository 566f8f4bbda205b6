"""D-23 with PaddlePaddle's own generators and wrappers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle

from dowdyboy_paddle import Trainer, TrainerConfig


class Holding(paddle.io.Dataset):  # type: ignore[type-arg]
    """Data that has a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = paddle.base.core.Generator()

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return np.full(2, index, np.float32)


def test_generators_are_found_in_what_is_wrapped(tmp_path: Path) -> None:
    model = paddle.nn.Linear(2, 1)
    trainer = Trainer(TrainerConfig(out_dir=tmp_path, epoch=1, cpu=True, disable_tqdm=True))
    trainer.set_model(model)
    trainer.set_optimizer(paddle.optimizer.SGD(0.1, parameters=model.parameters()))
    together: Any = paddle.io.ConcatDataset([paddle.io.Subset(Holding(), [1, 2]), Holding()])
    trainer.set_train_dataloader(paddle.io.DataLoader(together, batch_size=2, shuffle=True))
    trainer.fit(lambda trainer, bat, *_: trainer.get_models()[0](bat).mean())
    told = (tmp_path / "default_run.log").read_text()
    assert "dataset.datasets[1].generator (paddle Generator)" in told
    assert "dataset.datasets[0].dataset.generator (paddle Generator)" in told
    assert "    self.generator.manual_seed(random.getrandbits(63))" in told

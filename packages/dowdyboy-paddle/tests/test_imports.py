"""What is heavy is imported when it is used, and not before."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from dowdyboy_paddle._framework import LEAST

HEAVY = ["matplotlib", "pandas", "safetensors", "tensorboard", "thop", "tqdm", "visualdl", "yaml"]

SCRIPT = """
import json, sys
import paddle
loaded = set(sys.modules)

from dowdyboy_paddle import Trainer, TrainerConfig, args, assist, dataset_util, log, model_util, rand

layer = paddle.nn.Linear(2, 1)
settings = {"epoch": 1, "cpu": True, "disable_tqdm": True, "enable_save_checkpoint": False}
trainer = Trainer(TrainerConfig(out_dir=sys.argv[1], **settings))
trainer.set_train_dataloader([paddle.ones([4, 2])])
trainer.set_model(layer)
trainer.set_optimizer(paddle.optimizer.SGD(0.1, parameters=layer.parameters()))
trainer.fit(lambda trainer, bat, bat_idx, global_step: layer(bat).mean())
exec(sys.argv[2])
print(json.dumps([name for name in json.loads(sys.argv[3]) if name in sys.modules and name not in loaded]))
"""


def heavy_modules(out_dir: Path, then: str = "") -> list[str]:
    """Which of the heavy modules a program loads that trains without a bar and then does something more."""
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(out_dir), then, json.dumps(HEAVY)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_training_without_a_bar_loads_nothing_heavy(tmp_path: Path) -> None:
    assert heavy_modules(tmp_path) == []


def test_the_viewer_is_loaded_with_the_first_point(tmp_path: Path) -> None:
    assert "visualdl" in heavy_modules(tmp_path, "trainer.log({'loss': 1.0}, 0)")


def test_a_framework_that_is_too_old_is_refused_before_anything_of_it_is_used() -> None:
    code = "import sys, paddle; paddle.version.full_version = sys.argv[1]; import dowdyboy_paddle"
    least = ".".join(map(str, LEAST))
    version = f"{LEAST[0] - 1}.99"
    command = [sys.executable, "-W", "ignore", "-c", code, version]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: PaddlePaddle {version} is installed, and this needs {least} or later. Run pip install "
        f"--upgrade 'paddlepaddle>={least}'."
    )

"""What the core package gives, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import dowdyboy_core

HEAVY = ["numpy", "yaml", "tqdm", "safetensors", "torch", "paddle", "matplotlib"]


def test_the_public_names() -> None:
    assert dowdyboy_core.__all__ == sorted(dowdyboy_core.__all__, key=str)
    assert all(hasattr(dowdyboy_core, name) for name in dowdyboy_core.__all__)
    assert set(dowdyboy_core.__all__) == {
        "Backend",
        "CheckpointError",
        "ConfigError",
        "DowdyboyError",
        "Point",
        "SetupError",
        "Tracker",
        "Trainer",
        "TrainerConfig",
        "UnsupportedError",
        "__version__",
    }


def test_importing_loads_nothing_heavy() -> None:
    modules = "args, assist, dataset_util, log, rand, trainer"
    code = f"import sys; from dowdyboy_core import {modules}; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"

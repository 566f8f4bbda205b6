"""Checkpoints to be looked into, damaged and refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core import CheckpointError

from ._problem import Run, build
from ._resuming import read_index


def saved(harness: Harness, out_dir: Path, **changed: Any) -> tuple[Run, Path]:
    """A finished run of one epoch, and its checkpoint."""
    run = build(harness, out_dir, enable_save_checkpoint=True, optimizer="adam", **changed).fit()
    return run, out_dir / "checkpoint" / "epoch_1"


def refuse(trainer: Any, folder: Path, **options: Any) -> str:
    """The error of loading a checkpoint."""
    with pytest.raises(CheckpointError) as caught:
        trainer.load_checkpoint(folder, **options)
    return str(caught.value)


ZEROS = "0" * 64
"""What stands in an index in the place of its digest while that is computed."""


def rewrite_index(folder: Path, **changed: Any) -> None:
    """Changes what an index says, and its digest with it, by the rule of the specification."""
    seal(folder, json.dumps({**read_index(folder), **changed, "sha256": ZEROS}))


def seal(folder: Path, blank: str) -> None:
    """Writes an index with its digest in the place of ``ZEROS``."""
    digest = hashlib.sha256(blank.encode()).hexdigest()
    (folder / "checkpoint.json").write_text(blank.replace(ZEROS, digest))


def forge(folder: Path, name: str, content: bytes) -> None:
    """Puts a file into a checkpoint as one who knows the format would."""
    (folder / name).write_bytes(content)
    files = read_index(folder)["files"]
    files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    rewrite_index(folder, files=files)

"""What each of several processes does in scripts that are drawn from a number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dowdyboy_conformance._inside import inside
from dowdyboy_conformance._playing import play_all
from dowdyboy_conformance._problem import config
from dowdyboy_conformance.harnesses.harness import Harness

_stopping = inside("_run.stopping")

COUNT = 2


def scripts(harness: Harness, out_dir: Path) -> Any:
    """What is wrong with scripts that are interrupted; in two processes, since one or three show nothing else."""
    if harness.make_trainer(config(out_dir)).world_size != 2:
        return []
    return _play(harness, out_dir)


def play_together(spec: str, out_dir: str) -> None:
    """A process of a job that plays those that the environment names."""
    from dowdyboy_conformance._together import load

    harness: Harness = load(spec)()
    rank = harness.make_trainer(config(Path(out_dir))).rank
    Path(out_dir, f"rank_{rank}.txt").write_text("\n\n".join(_play(harness, Path(out_dir))), encoding="utf-8")


def _play(harness: Harness, out_dir: Path) -> list[str]:
    period, _stopping.PERIOD = _stopping.PERIOD, 0.0  # they ask one another after each batch
    try:
        return play_all(harness, out_dir, COUNT)
    finally:
        _stopping.PERIOD = period

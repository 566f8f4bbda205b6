"""P: precision. What the CPU of a framework can do is in the harness's capabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance._problem import build
from dowdyboy_conformance.harnesses.harness import Harness

SIXTEEN_BITS = {"fp16": "float16", "bf16": "bfloat16"}


@pytest.mark.clause("P-1", "P-2")
@pytest.mark.parametrize("asked", ["no", "fp16", "bf16"])
def test_the_precision_in_force_is_told(
    harness: Harness, tmp_path: Path, asked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = build(harness, tmp_path, mixed_precision=asked)
    expected = asked if asked in harness.capabilities else "no"
    assert run.trainer.precision == expected
    warning = f"mixed_precision={asked!r} can't be had on {run.trainer.device()} with {harness.name}; 'no' is in force."
    said = capsys.readouterr().out, (tmp_path / "default_run.log").read_text()
    times = 0 if expected == asked else 1
    assert [text.count(warning) for text in said] == [times, times]
    run.fit()
    assert len(run.losses) == 3


@pytest.mark.clause("P-3", "P-4")
@pytest.mark.parametrize("asked", ["no", "fp16", "bf16"])
def test_hooks_run_under_autocast(harness: Harness, tmp_path: Path, asked: str) -> None:
    run = build(harness, tmp_path, mixed_precision=asked)
    seen: list[str] = []
    kept: list[Any] = []

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        output = run.model(bat[0])
        seen.append(str(output.dtype).rpartition(".")[2])
        trainer.set_records({"output": output[0]})
        kept.append(trainer.get_records()["output"])
        return run.loss(output, bat[1])

    run.trainer.fit(step, step)
    run.trainer.test(step)
    dtype = SIXTEEN_BITS[asked] if asked in harness.capabilities else "float32"
    assert set(seen) == {dtype} and len(seen) == 9
    assert {harness.numpy(item).dtype for item in kept} == {np.dtype("float32")}

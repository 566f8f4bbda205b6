"""The benchmarks run, and print and write what benchmarks/README.md says; no time is looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("paddle")

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
README = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
FRAMEWORKS = ("torch", "paddle")


def scaling(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONIOENCODING": "utf-8"} | variables
    command = [sys.executable, str(BENCHMARKS / "scaling.py"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=100)


def tables(output: str) -> list[list[dict[str, str]]]:
    """The tables in a text: each a list of rows, by the heading of the column."""
    found: list[list[list[str]]] = [[]]
    for line in output.splitlines():
        if "|" in line:
            found[-1].append([cell.strip() for cell in line.split("|")])
        elif found[-1]:
            found.append([])
    return [[dict(zip(table[0], row, strict=True)) for row in table[2:]] for table in found if table]


@pytest.mark.distributed
def test_scaling_prints_and_writes_what_the_readme_says(tmp_path: Path) -> None:
    def run(framework: str) -> tuple[str, dict[str, Any]]:
        path = tmp_path / f"{framework}.json"
        job = scaling("--framework", framework, "--models", "tiny", "--blocks", "3", "--json", str(path))
        assert job.returncode == 0, job.stdout + job.stderr
        return job.stdout, json.loads(path.read_text(encoding="utf-8"))

    with ThreadPoolExecutor() as pool:
        outputs = list(pool.map(run, FRAMEWORKS))
    for framework, (printed, written) in zip(FRAMEWORKS, outputs, strict=True):
        check_printed(printed, written)
        check_rows(framework, written["rows"])
        check_gains(framework, written)
        assert (written["batch_size"], written["blocks"], written["workers"]) == (32, 3, 0)
        for name in names_in(written):
            assert name in README, f"the README doesn't say what {name} in the JSON file is"


def check_printed(printed: str, written: dict[str, Any]) -> None:
    rows, gains = tables(printed)
    for heading in rows[0]:
        assert heading.startswith(("framework", "processes", "model", "extras")) or heading in README
    shown = [(row["framework"], int(row["processes"]), row["model"], row["extras"]) for row in rows]
    assert shown == [(row["framework"], row["processes"], row["model"], row["extras"]) for row in written["rows"]]
    assert [row["ours/s"] for row in rows] == [f"{row['ours_steps_per_second']:.1f}" for row in written["rows"]]
    assert [row["hand/s"] for row in rows] == [f"{row['hand_steps_per_second']:.1f}" for row in written["rows"]]
    for row, figures in zip(rows, written["rows"], strict=True):
        for heading, name in (("ours:hand [95 %]", "ratio"), ("hand:hand [95 %]", "control")):
            low, high = figures[name]["interval"]
            assert row[heading] == f"{figures[name]['median']:.3f} [{low:.3f}, {high:.3f}]"
    assert [row["ours x2"] for row in gains] == [
        f"{row['ours_samples_per_second'][1]:.0f}" for row in written["scaling"]
    ]


def check_rows(framework: str, rows: list[dict[str, Any]]) -> None:
    cases = [(row["framework"], row["processes"], row["model"], row["extras"]) for row in rows]
    assert cases == [(framework, processes, "tiny", extras) for processes in (1, 2) for extras in ("bare", "loss+bar")]
    for row in rows:
        assert {name: len(values) for name, values in row["seconds"].items()} == {"ours": 3, "hand": 3, "control": 3}
        assert all(value > 0 for values in row["seconds"].values() for value in values)
        for side, other in (("ours", "ratio"), ("hand", "control")):
            middle = sorted(row["seconds"][side])[1]  # of three
            assert row[f"{side}_steps_per_second"] == pytest.approx(100 / middle)
            assert row[f"{side}_samples_per_second"] == pytest.approx(100 / middle * 32 * row["processes"])
            low, high = row[other]["interval"]
            assert 0 < low <= row[other]["median"] <= high
        pairs = [hand / ours for ours, hand in zip(row["seconds"]["ours"], row["seconds"]["hand"], strict=True)]
        assert row["ratio"]["median"] == pytest.approx(sorted(pairs)[1])


def check_gains(framework: str, written: dict[str, Any]) -> None:
    by_case = {(row["processes"], row["extras"]): row for row in written["rows"]}
    assert [(row["framework"], row["extras"], row["processes"]) for row in written["scaling"]] == [
        (framework, extras, 2) for extras in ("bare", "loss+bar")
    ]
    for gain in written["scaling"]:
        for side in ("ours", "hand"):
            rates = [by_case[number, gain["extras"]][f"{side}_samples_per_second"] for number in (1, 2)]
            assert gain[f"{side}_samples_per_second"] == rates
            assert gain[f"{side}_gain"] == pytest.approx(rates[1] / rates[0])


def names_in(written: dict[str, Any]) -> set[str]:
    """The names of the JSON file; the README writes those of the gains without their side."""
    of_gains = {name.removeprefix("ours").removeprefix("hand") for name in written["scaling"][0]}
    return {*written, *written["rows"][0], *written["rows"][0]["ratio"], *of_gains}


def test_scaling_refuses_what_it_cannot_run() -> None:
    job = scaling("--blocks", "1")
    assert job.returncode == 2
    assert "--blocks at least 2" in job.stderr


def test_a_failed_job_ends_it_with_what_the_job_said(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('broken on purpose')\n", encoding="utf-8")
    job = scaling("--framework", "torch", "--processes", "1", "--blocks", "2", PYTHONPATH=str(tmp_path))
    assert job.returncode == 1
    assert "1 process(es) of torch ended with exit code 1" in job.stderr
    assert "broken on purpose" in job.stderr
    assert not tables(job.stdout)

"""The benchmarks run, and print and write what benchmarks/README.md says; no time is looked at."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("paddle")

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
README = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
FRAMEWORKS = ("torch", "paddle")


def scaling(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return benchmark("scaling.py", *arguments, **variables)


def benchmark(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONIOENCODING": "utf-8"} | variables
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=400)


def tables(output: str) -> list[list[dict[str, str]]]:
    """The tables in a text: each a list of rows, by the heading of the column."""
    found: list[list[list[str]]] = [[]]
    for line in output.splitlines():
        if "|" in line:
            found[-1].append([cell.strip() for cell in line.split("|")])
        elif found[-1]:
            found.append([])
    return [[dict(zip(table[0], row, strict=True)) for row in table[2:]] for table in found if table]


@pytest.mark.long
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
        assert heading.startswith(("framework", "processes", "model", "data", "extras")) or heading in README
    assert [case(row) for row in rows] == [case(row) for row in written["rows"]]
    assert [row["ours/s"] for row in rows] == [f"{row['ours_steps_per_second']:.1f}" for row in written["rows"]]
    assert [row["hand/s"] for row in rows] == [f"{row['hand_steps_per_second']:.1f}" for row in written["rows"]]
    for row, figures in zip(rows, written["rows"], strict=True):
        for heading, name in (("ours:hand [95 %]", "ratio"), ("hand:hand [95 %]", "control")):
            low, high = figures[name]["interval"]
            assert row[heading] == f"{figures[name]['median']:.3f} [{low:.3f}, {high:.3f}]"
    assert [row["ours x2"] for row in gains] == [
        f"{row['ours_samples_per_second'][1]:.0f}" for row in written["scaling"]
    ]


def case(row: Mapping[str, Any]) -> tuple[str, int, str, str, str]:
    return row["framework"], int(row["processes"]), row["model"], row["data"], row["extras"]


def check_rows(framework: str, rows: list[dict[str, Any]]) -> None:
    wanted = itertools.product([framework], (1, 2), ["tiny"], ["tensors", "own"], ["bare", "loss+bar"])
    assert [case(row) for row in rows] == list(wanted)
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
    by_case = {case(row): row for row in written["rows"]}
    wanted = itertools.product([framework], [2], ["tiny"], ["tensors", "own"], ["bare", "loss+bar"])
    assert [case(row) for row in written["scaling"]] == list(wanted)
    for gain in written["scaling"]:
        for side in ("ours", "hand"):
            rates = [by_case[case(gain | {"processes": count})][f"{side}_samples_per_second"] for count in (1, 2)]
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


# ---- checkpoints

CONTENDERS = {
    "stands still": ["ours", "copy", "copy again", "theirs"],
    "writes": ["ours", "plain", "plain again", "safetensors", "theirs"],
    "step meanwhile": ["writing", "idle", "idle again"],
    "loads cold": ["ours", "theirs", "theirs again"],
    "loads warm": ["ours", "theirs", "theirs again"],
}


@pytest.mark.long
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_checkpoints_print_and_write_what_the_readme_says(framework: str, tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    size = ["--megabytes", "36", "--rounds", "2", "--processes", "1"]
    job = benchmark("checkpoints.py", "--framework", framework, *size, "--json", str(path), "--dir", str(tmp_path))
    assert job.returncode == 0, job.stdout + job.stderr
    assert [item.name for item in tmp_path.iterdir()] == ["found.json"], "it clears away what it has written"
    written = json.loads(path.read_text(encoding="utf-8"))
    assert (written["megabytes"], written["rounds"], written["processes"]) == (36, 2, 1)
    check_times(framework, written["rows"])
    check_memory(framework, written["memory"])
    times, memory = tables(job.stdout)
    assert [[row["what"], row["contender"], row["reference"]] for row in times] == [
        [row["what"], row["contender"], row["reference"]] for row in written["rows"]
    ]
    assert [row["copies of the state"] for row in memory] == [f"{row['copies']:.2f}" for row in written["memory"]]
    names = {*written, *times[0], *memory[0], *CONTENDERS, *(row["contender"] for row in written["rows"])}
    names |= {name for row in written["rows"] + written["memory"] for name in row}
    for name in names | {row["what"] for row in written["memory"]}:
        assert f"`{name}`" in README, f"the README doesn't say what {name} is"


def check_times(framework: str, rows: list[dict[str, Any]]) -> None:
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        assert row["framework"] == framework
        found.setdefault(row["what"], {})[row["contender"]] = row
    assert {what: sorted(rows) for what, rows in found.items()} == {
        what: sorted(names) for what, names in CONTENDERS.items()
    }
    for contenders in found.values():
        for row in contenders.values():
            assert len(row["seconds"]) == 2 and min(row["seconds"]) > 0
            others = contenders[row["reference"]]["seconds"]
            ratios = [one / other for one, other in zip(row["seconds"], others, strict=True)]
            assert row["ratio"] == {"median": median(ratios), "min": min(ratios), "max": max(ratios)}
            if row["megabytes_per_second"] is not None:
                assert row["megabytes_per_second"] * median(row["seconds"]) == pytest.approx(36, rel=0.01)


def check_memory(framework: str, rows: list[dict[str, Any]]) -> None:
    copies = {row["what"]: row["copies"] for row in rows}
    assert list(copies) == ["ours saves", "theirs saves", "ours loads", "theirs loads"]
    assert {row["framework"] for row in rows} == {framework}
    # No time is looked at, but this is sure: there are no two copies of the state. A small one may fit in memory that
    # the process has got already, and then there seems to be less than one.
    assert 0 <= copies["ours saves"] < 1.9
    assert 0 <= copies["ours loads"] < 1.9


def test_checkpoints_refuse_what_they_cannot_run() -> None:
    job = benchmark("checkpoints.py", "--rounds", "0")
    assert job.returncode == 2
    assert "--rounds want numbers of at least 1" in job.stderr

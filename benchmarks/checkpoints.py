"""What a checkpoint costs: a Trainer beside the framework's own save and load, in the same run.

    python benchmarks/checkpoints.py

It measures and doesn't judge: the exit code is 0 unless something fails. What it does exactly stands in README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from measuring import spread
from reporting import Report

WORKER = Path(__file__).with_name("checkpoints_worker.py")
REFERENCES = {
    "stands still": "copy",
    "writes": "plain",
    "step meanwhile": "idle",
    "loads cold": "theirs",
    "loads warm": "theirs",
}
"""What is measured in seconds, and the contender that the others are compared with."""
MEMORY = ("ours saves", "theirs saves", "ours loads", "theirs loads")  # ours loads what ours has saved
HEADINGS = ("framework", "what", "contender", "seconds [min, max]", "MB/s", "reference", "times as long [min, max]")
HEADINGS_OF_MEMORY = ("framework", "what", "peak MB [min, max]", "copies of the state")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Times and weighs checkpoints beside the framework's own.")
    parser.add_argument("--framework", choices=["torch", "paddle", "both"], default="both")
    parser.add_argument("--megabytes", type=int, default=600, help="size of the state (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="timings of each contender (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=3, help="for the memory of each (default: %(default)s)")
    parser.add_argument("--dir", type=Path, help="a folder on the disk to measure (default: the temporary folder)")
    parser.add_argument("--out", type=Path, help="write tables and figures to this folder")
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    found = parser.parse_args()
    if min(found.megabytes, found.rounds) < 1 or found.processes < 0:
        parser.error("--megabytes and --rounds want numbers of at least 1, --processes at least 0.")
    return found


def run_worker(*arguments: str) -> None:
    job = subprocess.run([sys.executable, str(WORKER), *arguments], env=environment(), capture_output=True, text=True)
    if job.returncode:
        said = (job.stdout[-3000:] + job.stderr[-3000:]).strip()
        sys.exit(f"{' '.join(arguments)} ended with exit code {job.returncode}:\n{said}")


def environment() -> dict[str, str]:
    """One thread a process for all that computes."""
    found = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    for name in ("CUDA_VISIBLE_DEVICES", "RANK", "WORLD_SIZE", "PADDLE_TRAINER_ID", "PADDLE_TRAINERS_NUM"):
        found.pop(name, None)
    return found


def time_it(framework: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each thing that is timed and each contender."""
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        run_worker("times", framework, str(args.megabytes), str(args.rounds), folder)
        found = json.loads(Path(folder, "times.json").read_text(encoding="utf-8"))
    rows = []
    for what, reference in REFERENCES.items():
        for contender, seconds in found["seconds"][what].items():
            pairs = zip(seconds, found["seconds"][what][reference], strict=True)
            row = {"framework": framework, "what": what, "contender": contender, "seconds": seconds}
            row["megabytes_per_second"] = None if what == "step meanwhile" else found["bytes"] / 1e6 / median(seconds)
            row |= {"reference": reference, "ratio": spread([one / other for one, other in pairs])}
            if what == "loads cold":
                row["fetched_megabytes"] = found["fetched_megabytes"][contender]
            rows.append(row)
    return rows


def weigh(framework: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for the memory of each contender, every one of them in processes of its own."""
    peaks: dict[str, list[float]] = {what: [] for what in MEMORY}
    size = 1
    for _ in range(args.processes):
        with tempfile.TemporaryDirectory(dir=args.dir) as folder:
            for what in MEMORY:
                run_worker("memory", framework, str(args.megabytes), what, folder)
                found = json.loads(Path(folder, "memory.json").read_text(encoding="utf-8"))
                size = found["bytes"]
                peaks[what].append(found["peak_bytes"])
    return [
        {"framework": framework, "what": what, "peak_bytes": found, "copies": median(found) / size}
        for what, found in peaks.items()
        if found
    ]


def say(values: dict[str, float], digits: int) -> str:
    return "{median:.{n}f} [{min:.{n}f}, {max:.{n}f}]".format(n=digits, **values)


def say_row(row: dict[str, Any]) -> list[str]:
    rate = row["megabytes_per_second"]
    seconds = say(spread(row["seconds"]), 5 if rate is None else 3)
    said = [row["framework"], row["what"], row["contender"], seconds, "" if rate is None else f"{rate:.0f}"]
    return [*said, row["reference"], say(row["ratio"], 2)]


def say_memory(row: dict[str, Any]) -> list[str]:
    peak = say(spread([value / 1e6 for value in row["peak_bytes"]]), 0)
    return [row["framework"], row["what"], peak, f"{row['copies']:.2f}"]


def main() -> None:
    args = options()
    rows: list[dict[str, Any]] = []
    memory: list[dict[str, Any]] = []
    for framework in ["torch", "paddle"] if args.framework == "both" else [args.framework]:
        print(f"{framework}, times ...", file=sys.stderr, flush=True)
        rows += time_it(framework, args)
        print(f"{framework}, memory ...", file=sys.stderr, flush=True)
        memory += weigh(framework, args)
    report = Report("checkpoints", args.out)
    report.say(f"Seconds, for a state of {args.megabytes} MB, in {args.rounds} rounds")
    report.table(HEADINGS, [say_row(row) for row in rows])
    if memory:
        report.say(f"Memory above the live state, in {args.processes} processes each")
        report.table(HEADINGS_OF_MEMORY, [say_memory(row) for row in memory])
    about = {"megabytes": args.megabytes, "rounds": args.rounds, "processes": args.processes}
    report.keep(**about, rows=rows, memory=memory)
    report.close()
    if args.json is not None:
        args.json.write_text(json.dumps({**about, "rows": rows, "memory": memory}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Steps per second of one and of two processes: a Trainer beside a hand-written loop, in the same run.

    python benchmarks/scaling.py

It measures and doesn't judge: the exit code is 0 unless something fails. What it does exactly stands in README.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from measuring import environment
from reporting import Report, frameworks, options
from scaling_cases import BATCH, CASES, LIFE

WORKER = Path(__file__).with_name("scaling_worker.py")
MODELS = list(dict.fromkeys(case.model for case in CASES))
HEADINGS = (
    *("framework", "processes", "model", "data", "extras"),
    *("ours/s", "hand/s", "ours:hand [95 %]", "hand:hand [95 %]"),
)
SAME = ("framework", "model", "data", "extras")
HEADINGS_OF_GAIN = (*SAME, "ours x1", "ours x{n}", "gain", "hand x1", "hand x{n}", "gain")


def chosen() -> argparse.Namespace:
    parser = options("Times a Trainer beside a hand-written loop, side by side.")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="(default: 1 2)")
    parser.add_argument("--models", choices=MODELS, nargs="+", default=MODELS, help="(default: all)")
    parser.add_argument("--blocks", type=int, default=40, help="blocks of each contender (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="processes that read data, each (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    found = parser.parse_args()
    if min(found.processes) < 1 or found.blocks < 2 or found.workers < 0:
        parser.error("--processes wants numbers of at least 1, --blocks at least 2, --workers at least 0.")
    if found.quick:
        found.processes, found.models, found.blocks = [1], ["tiny"], 2
    return found


def run_job(framework: str, processes: int, args: argparse.Namespace) -> list[list[dict[str, Any]]]:
    """Times all cases in one job; gives what each process found."""
    with tempfile.TemporaryDirectory() as folder:
        launcher = []
        if processes > 1 and framework == "torch":
            launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        elif processes > 1:
            launcher = ["-m", "paddle.distributed.launch", f"--nproc_per_node={processes}"]
            launcher += ["--log_dir", f"{folder}/launcher"]
        worker = [str(WORKER), framework, str(args.blocks), str(args.workers), ",".join(args.models), folder]
        job = subprocess.run([sys.executable, *launcher, *worker], env=environment(), capture_output=True, text=True)
        if job.returncode:
            logs = "".join(path.read_text()[-3000:] for path in sorted(Path(folder).glob("launcher/workerlog.*")))
            said = (job.stdout[-3000:] + job.stderr[-3000:] + logs).strip()
            sys.exit(f"{processes} process(es) of {framework} ended with exit code {job.returncode}:\n{said}")
        return [json.loads(Path(folder, f"rank_{rank}.json").read_text()) for rank in range(processes)]


def ratio(ours: Any, hand: Any) -> dict[str, Any]:
    """The median of how many times as fast ``ours`` is, block beside block, with an interval of 95 %.

    The interval is bootstrapped in two steps, since the blocks of one life of the contenders are alike: lives are drawn
    first, then blocks from each.
    """
    pairs = hand / ours
    lives = np.array_split(pairs, range(LIFE, len(pairs), LIFE))
    generator = np.random.default_rng(0)

    def draw() -> Any:
        chosen = [lives[index] for index in generator.integers(0, len(lives), len(lives))]
        return np.median(np.concatenate([generator.choice(life, len(life)) for life in chosen]))

    low, high = np.percentile([draw() for _ in range(2000)], [2.5, 97.5])
    quartiles = np.percentile(pairs, [25, 75])
    return {"median": float(np.median(pairs)), "interval": [float(low), float(high)], "quartiles": quartiles.tolist()}


def summarise(framework: str, processes: int, ranks: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row of the table for each case."""
    rows = []
    for parts in zip(*ranks, strict=True):
        # A job is as fast as its slowest process.
        seconds = {
            name: np.max([part["seconds"][name] for part in parts], axis=0) for name in ("ours", "hand", "control")
        }
        rate = {name: float(parts[0]["steps"] / np.median(seconds[name])) for name in ("ours", "hand")}
        rows.append(
            {
                "framework": framework,
                "processes": processes,
                "model": parts[0]["model"],
                "data": parts[0]["data"],
                "extras": parts[0]["extras"],
                "ours_steps_per_second": rate["ours"],
                "hand_steps_per_second": rate["hand"],
                "ours_samples_per_second": rate["ours"] * BATCH * processes,
                "hand_samples_per_second": rate["hand"] * BATCH * processes,
                "ratio": ratio(seconds["ours"], seconds["hand"]),
                "control": ratio(seconds["control"], seconds["hand"]),
                "seconds": {name: values.tolist() for name, values in seconds.items()},
            }
        )
    return rows


def say_row(row: dict[str, Any]) -> list[str]:
    rates = [f"{row[f'{name}_steps_per_second']:.1f}" for name in ("ours", "hand")]
    ratios = ["{median:.3f} [{0:.3f}, {1:.3f}]".format(*row[of]["interval"], **row[of]) for of in ("ratio", "control")]
    return [row["framework"], str(row["processes"]), row["model"], row["data"], row["extras"], *rates, *ratios]


def gains(rows: list[dict[str, Any]], processes: int) -> list[dict[str, Any]]:
    """How many times the samples per second of one process several process."""
    by_case = {(*(row[name] for name in SAME), row["processes"]): row for row in rows}
    found = []
    for (*case, number), many in by_case.items():
        one = by_case.get((*case, 1))
        if number != processes or one is None:
            continue
        gain: dict[str, Any] = dict(zip(SAME, case, strict=True), processes=processes)
        for name in ("ours", "hand"):
            rates = [row[f"{name}_samples_per_second"] for row in (one, many)]
            gain |= {f"{name}_samples_per_second": rates, f"{name}_gain": rates[1] / rates[0]}
        found.append(gain)
    return found


def say_gain(gain: dict[str, Any]) -> list[str]:
    said = [gain[name] for name in SAME]
    for name in ("ours", "hand"):
        said += [f"{rate:.0f}" for rate in gain[f"{name}_samples_per_second"]] + [f"{gain[f'{name}_gain']:.2f}"]
    return said


def main() -> None:
    args = chosen()
    report = Report("scaling", args.out)
    rows: list[dict[str, Any]] = []
    scaling: list[dict[str, Any]] = []
    for framework in frameworks(args):
        for processes in dict.fromkeys(args.processes):
            print(f"{framework}, {processes} process(es) ...", file=sys.stderr, flush=True)
            rows += summarise(framework, processes, run_job(framework, processes, args))
    report.say(f"Steps per second, batches of {BATCH} a process, {args.blocks} blocks of each contender")
    report.table(HEADINGS, [say_row(row) for row in rows])
    for processes in sorted(set(args.processes) - {1}):
        several = gains(rows, processes)
        scaling += several
        if several:
            report.say(f"Samples per second of 1 and of {processes} processes")
            report.table([heading.format(n=processes) for heading in HEADINGS_OF_GAIN], list(map(say_gain, several)))
    figures = {"batch_size": BATCH, "blocks": args.blocks, "workers": args.workers, "rows": rows, "scaling": scaling}
    report.bars(
        "scaling", "A Trainer's speed", "ours : hand-written", {item: bars_of(rows, item) for item in frameworks(args)}
    )
    report.keep(**figures)
    report.close()
    if args.json is not None:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


def bars_of(rows: list[dict[str, Any]], framework: str) -> dict[str, dict[str, float]]:
    """What the chart shows: the ratios with their intervals."""
    found = {}
    for row in (row for row in rows if row["framework"] == framework):
        low, high = row["ratio"]["interval"]
        name = f"ours: {row['model']}, {row['data']}, {row['extras']}, x{row['processes']}"
        found[name] = {"median": row["ratio"]["median"], "min": low, "max": high}
    return found


if __name__ == "__main__":
    main()

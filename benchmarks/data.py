"""Samples per second of a Trainer's data beside a plain DataLoader's, and what the order of a very long epoch costs.

    python benchmarks/data.py

It measures and doesn't judge: the exit code is 0 unless something fails, or a batch isn't what it should be. What it
does exactly stands in README.md.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from data_cases import BATCH, KINDS
from measuring import fresh, spread
from reporting import Report, frameworks, options

WORKER = Path(__file__).with_name("data_worker.py")
HEADINGS = ("framework", "data", "workers", "DataLoader, samples/s", "ours, samples/s", "ours:DataLoader", "control")
HEADINGS_OF_ORDER = ("framework", "loader", "samples", "to the first batch, s", "more memory, MB")


def main() -> None:
    parser = options("Times data loaders.")
    parser.add_argument("--rounds", type=int, default=7, help="epochs of each loader (default: %(default)s)")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="(default: 0 2)")
    parser.add_argument("--kinds", choices=KINDS, nargs="+", default=list(KINDS), help="(default: all)")
    parser.add_argument("--samples", type=int, default=10_000_000, help="of the long epoch (default: %(default)s)")
    args = parser.parse_args()
    rounds, scale, samples = (1, 0.01, 100_000) if args.quick else (args.rounds, 1.0, args.samples)
    report = Report("data", args.out)
    report.say(f"Batches of {BATCH}, {rounds} epochs of each loader in turn: median [smallest, largest].")
    rows, orders = [], []
    charts: dict[str, dict[str, dict[str, float]]] = {}
    figures: dict[str, dict[str, Any]] = {}
    for framework in frameworks(args):
        print(f"{framework} ...", file=sys.stderr, flush=True)
        charts[framework], figures[framework] = {}, {"rates": [], "orders": {}}
        cases = [(kind, workers) for kind in args.kinds for workers in args.workers]
        if framework == "paddle":  # whose own DataLoader crashes: tensors can't be read in a forked process
            cases = [(kind, workers) for kind, workers in cases if kind != "tensors" or not workers]
        rates = fresh(WORKER, "rate", framework, json.dumps(cases), rounds, scale)
        for (kind, workers), found in zip(cases, rates, strict=True):
            ratio, control = (
                spread([one / other for one, other in zip(found[name], found["plain"], strict=True)])
                for name in ("ours", "control")
            )
            plain, ours = (f"{spread(found[name])['median']:,.0f}" for name in ("plain", "ours"))
            said = ["{median:.3f} [{min:.3f}, {max:.3f}]".format(**item) for item in (ratio, control)]
            rows.append([framework, KINDS[kind].what, str(workers), plain, ours, *said])
            charts[framework][f"ours: {kind}, {workers} workers"] = ratio
            figures[framework]["rates"].append({"kind": kind, "workers": workers, **found})
        for name in ("plain", "ours"):
            parts = [fresh(WORKER, "order", framework, name, samples, hoard=False) for _ in range(min(rounds, 3))]
            seconds, memory = (spread([part[what] for part in parts]) for what in ("seconds", "bytes"))
            called = {"plain": "DataLoader", "ours": "ours"}[name]
            said = ["{median:.2f} [{min:.2f}, {max:.2f}]".format(**seconds), f"{memory['median'] / 1e6:.0f}"]
            orders.append([framework, called, f"{samples:,}", *said])
            figures[framework]["orders"][name] = parts
    report.table(HEADINGS, rows)
    report.table(HEADINGS_OF_ORDER, orders)
    report.bars("data", "Samples a second", "ours : plain DataLoader", charts)
    report.keep(rounds=rounds, samples=samples, frameworks=figures)
    report.close()


if __name__ == "__main__":
    main()

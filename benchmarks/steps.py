"""What a step costs over a hand-written loop: ways to write it, side by side in the same run.

    python benchmarks/steps.py

It measures and doesn't judge: the exit code is 0 unless something fails, or two contenders that have done the same end
with other weights. What it does exactly stands in README.md.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

from measuring import CLOCKS, fresh, over
from reporting import Report, frameworks, options
from steps_cases import BATCH, CLASSES, DATA, FEATURES, HIDDEN

WORKER = Path(__file__).with_name("steps_worker.py")
BASE = "hand-written"
HEADINGS = (
    *("framework", "contender", "over the hand-written loop, µs a step", "of the median step", "times"),
    "besides, ms an epoch",
)


def rows_of(framework: str, found: dict[str, Any]) -> list[list[str]]:
    means, medians = over(BASE, found["means"], 1e6), over(BASE, found["medians"], 1e6)
    besides = over(BASE, found["besides"], 1e3)
    rows = []
    for name, spread in means.items():
        if name == BASE:
            took = median(found["means"][BASE]) * 1e6, median(found["medians"][BASE]) * 1e6
            rows.append([framework, name, f"({took[0]:.0f} in all)", f"({took[1]:.0f} in all)", "1.00", ""])
            continue
        times = median(own / base for own, base in zip(found["means"][name], found["means"][BASE], strict=True))
        said = "{median:+.1f} [{min:+.1f}, {max:+.1f}]".format(**spread)
        rows.append([framework, name, said, f"{medians[name]['median']:+.1f}", f"{times:.2f}"])
        rows[-1].append(f"{besides[name]['median']:+.1f}")
    return rows


def main() -> None:
    parser = options("Times the steps of training loops, side by side.")
    parser.add_argument("--data", choices=DATA, nargs="+", default=list(DATA), help="(default: all)")
    parser.add_argument("--rounds", type=int, default=30, help="blocks of each contender (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=200, help="timed steps of a block (default: %(default)s)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="(default: %(default)s)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help=f"contenders besides {BASE!r}")
    parser.add_argument("--with", dest="modules", nargs="+", default=[], metavar="MODULE", help="further contenders")
    parser.add_argument(
        "--peers", action="store_true", help="other libraries, too; needs the environment that has them"
    )
    args = parser.parse_args()
    rounds, steps = (1, 8) if args.quick else (args.rounds, args.steps)
    if rounds < 1 or steps < 4 or steps % 4:
        parser.error("--rounds wants at least 1, and --steps a multiple of 4.")
    report = Report("steps_with_peers" if args.peers else "steps", args.out)
    report.say(
        f"An MLP {FEATURES}-{HIDDEN}-{CLASSES}, batches of {BATCH}, SGD; {rounds} blocks of {steps} steps of each "
        f"contender, by the clock {args.clock!r}; median [smallest, largest] of the blocks."
    )
    report.keep(rounds=rounds, steps=steps, clock=args.clock)
    only = json.dumps([BASE, *args.only] if args.only else [])
    found = {}
    for framework in frameworks(args):
        print(f"{framework} ...", file=sys.stderr, flush=True)
        modules = json.dumps([*args.modules, *([f"steps_peers_{framework}"] if args.peers else [])])
        data = json.dumps(args.data)
        found[framework] = fresh(WORKER, framework, data, rounds, steps, args.clock, modules, only)
    for data in args.data:
        report.say(f"### Steps over {DATA[data]}")
        report.table(HEADINGS, [row for framework in found for row in rows_of(framework, found[framework][data])])
        spreads = {framework: over(BASE, found[framework][data]["means"], 1e6) for framework in found}
        for item in spreads.values():
            del item[BASE]
        report.bars(
            f"{report.subject}_{data}", f"Steps over {DATA[data]}", "µs a step over the hand-written loop", spreads
        )
    report.keep(frameworks=found)
    report.close()


if __name__ == "__main__":
    main()

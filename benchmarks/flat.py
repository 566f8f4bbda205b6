"""Whether a step costs more the more steps there were: time and memory over a million steps of a trivial model.

    python benchmarks/flat.py

It measures and doesn't judge: the exit code is 0 unless something fails. What it does exactly stands in README.md.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median

from flat_worker import CASES
from measuring import CLOCKS, fresh
from reporting import Report, frameworks, options

WORKER = Path(__file__).with_name("flat_worker.py")
CHUNKS = 50
HEADINGS = (
    "framework",
    "loop",
    "over the hand-written one beside it, µs a step: first tenth",
    "last tenth",
    "that takes: first tenth",
    "last tenth",
    "resident, bytes a step",
    "Python's own, bytes a step",
)


def ends(values: list[float]) -> tuple[float, float]:
    """The medians of the first and the last tenth."""
    tenth = max(1, len(values) // 10)
    return median(values[:tenth]), median(values[-tenth:])


def growth(points: list[int], steps: int) -> float:
    """Bytes a step in the second half, when everything has been loaded that is needed."""
    middle = len(points) // 2
    return (points[-1] - points[middle]) / (steps * (len(points) - 1 - middle) / (len(points) - 1))


def main() -> None:
    parser = options("Times and weighs very many steps.")
    parser.add_argument("--steps", type=int, default=1_000_000, help="(default: %(default)s)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="(default: %(default)s)")
    parser.add_argument("--cases", choices=CASES, nargs="+", default=list(CASES), help="(default: all)")
    args = parser.parse_args()
    chunks, steps = (5, 500) if args.quick else (CHUNKS, args.steps)
    if steps < chunks or steps % chunks:
        parser.error(f"--steps wants a multiple of {chunks}.")
    report = Report("flat", args.out)
    report.say(f"{steps:,} steps in one epoch, in {chunks} pieces; Python's own memory over a tenth as many.")
    rows, figures = [], {}
    times: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for framework in frameworks(args):
        for case in args.cases[1:2] if args.quick else args.cases:
            print(f"{framework}, {case} ...", file=sys.stderr, flush=True)
            fewer = max(steps // 10, chunks)
            found = fresh(WORKER, framework, case, steps, chunks, "resident", args.clock, hoard=False)
            traced = fresh(WORKER, framework, case, fewer, chunks, "python", args.clock, hoard=False)
            over = ends([ours - hand for ours, hand in zip(found["ours"], found["hand"], strict=True)])
            said = [f"{value:+.1f}" for value in over] + [f"{value:.1f}" for value in ends(found["hand"])]
            grown = growth(found["bytes"], steps), growth(traced["bytes"], fewer)
            rows.append([framework, case, *said, *(f"{value:.1f}" for value in grown)])
            figures[f"{framework}, {case}"] = {"resident": found, "python": traced}
            at = [steps // chunks * (number + 1) for number in range(chunks)]
            times.setdefault(framework, {})[f"ours, {case}"] = list(zip(at, found["ours"], strict=True))
            times[framework][f"hand-written beside {case}"] = list(zip(at, found["hand"], strict=True))
    report.table(HEADINGS, rows)
    report.lines("flat", "A step, by how many there were", ("steps", "µs a step"), times)
    report.keep(steps=steps, chunks=chunks, clock=args.clock, cases=figures)
    report.close()


if __name__ == "__main__":
    main()

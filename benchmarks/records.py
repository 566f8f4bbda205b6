"""What a record costs: microseconds a value of each kind, whether many cost more each, and the memory of very many.

    python benchmarks/records.py

It measures and doesn't judge: the exit code is 0 unless something fails. What it does exactly stands in README.md.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from measuring import CLOCKS, fresh, spread
from reporting import Report, frameworks, options

WORKER = Path(__file__).with_name("records_worker.py")
KINDS = ("float", "int", "three floats", "tensor", "vector")
COUNTS = (1_000, 10_000, 100_000, 1_000_000)
MOST_VECTORS = 100_000  # of 16 numbers each, kept as tensors until they are stacked
HEADINGS = ("framework", "value", "values", "ours, µs each", "list.append, µs each", "get_records, ms")
HEADINGS_OF_MEMORY = ("framework", "floats", "held, MB", "bytes each", "peak of get_records, MB")


def main() -> None:
    parser = options("Times records, and weighs them.")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--floats", type=int, default=10_000_000, help="of which memory is told (default: %(default)s)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="(default: %(default)s)")
    args = parser.parse_args()
    rounds, floats = (1, 100_000) if args.quick else (args.rounds, args.floats)
    report = Report("records", args.out)
    report.say(f"{rounds} rounds, by the clock {args.clock!r}: median [smallest, largest].")
    rows, weights, figures = [], [], {}
    lines: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for framework in frameworks(args):
        print(f"{framework} ...", file=sys.stderr, flush=True)
        counts = COUNTS[:2] if args.quick else COUNTS
        cases = [(kind, count) for kind in KINDS for count in counts if kind != "vector" or count <= MOST_VECTORS]
        times = fresh(WORKER, "time", framework, json.dumps(cases), rounds, args.clock)
        memory = fresh(WORKER, "weigh", framework, floats, hoard=False)
        for (kind, count), found in zip(cases, times, strict=True):
            ours, read = spread(found["ours"]), spread(found["get_records"])
            said = ["{median:.2f} [{min:.2f}, {max:.2f}]".format(**item) for item in (ours, spread(found["append"]))]
            rows.append([framework, kind, f"{count:,}", *said, f"{read['median']:.1f}"])
            lines.setdefault(framework, {}).setdefault(kind, []).append((count, ours["median"]))
        held = memory["held"] / 1e6
        weights.append([framework, f"{floats:,}", f"{held:.0f}", f"{memory['held'] / floats:.1f}"])
        weights[-1].append(f"{memory['peak'] / 1e6:.0f}")
        figures[framework] = {"times": [[*case, found] for case, found in zip(cases, times, strict=True)], **memory}
    report.table(HEADINGS, rows)
    report.table(HEADINGS_OF_MEMORY, weights)
    report.lines("records", "A record, by how many there are", ("records", "µs each"), lines, logarithmic=True)
    report.keep(rounds=rounds, floats=floats, clock=args.clock, frameworks=figures)
    report.close()


if __name__ == "__main__":
    main()

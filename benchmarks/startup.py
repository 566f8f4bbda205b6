"""What it costs to begin: imports, the distributions they draw in, and the time to the first step.

    python benchmarks/startup.py

It measures and doesn't judge: the exit code is 0 unless something fails. What it does exactly stands in README.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from measuring import CLOCKS, fresh, spread, turns
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from reporting import Report, frameworks, options

WORKER = Path(__file__).with_name("startup_worker.py")

# What is imported, over what, and the distributions of both.
OURS = {
    "torch": ("dowdyboy_torch", "torch", "dowdyboy-torch", "torch"),
    "paddle": ("dowdyboy_paddle", "paddle", "dowdyboy-paddle", "paddlepaddle"),
}
CORE = ("dowdyboy_core", "", "dowdyboy-core", "")
FURTHER: dict[str, list[tuple[str, str, str, str]]] = {
    "torch": [
        ("ignite.engine", "torch", "pytorch-ignite", "torch"),
        ("accelerate", "torch", "accelerate", "torch"),
        ("lightning.fabric", "torch", "lightning", "torch"),
        ("lightning.pytorch", "torch", "lightning", "torch"),
        ("torchtnt.framework", "torch", "torchtnt", "torch"),
        ("keras", "torch", "keras", "torch"),
        ("mmengine", "torch", "mmengine", "torch"),
    ],
    "paddle": [],
}
LOOPS = ("hand-written", "hand-written + bar", "ours, silent", "ours: bar with the loss, a record each step")


def is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def drawn_in(name: str) -> set[str]:
    """All distributions that installing ``name`` brings here, itself among them."""
    found: set[str] = set()
    waiting = [Requirement(name)] if name else []
    while waiting:
        wanted = waiting.pop()
        key = canonicalize_name(wanted.name)
        for extra in [*wanted.extras, ""]:
            if f"{key}[{extra}]" in found:
                continue
            found.add(f"{key}[{extra}]")
            try:
                needs = [Requirement(text) for text in distribution(key).requires or []]
            except PackageNotFoundError:  # of a platform's own kind, or not installed beside a build for the CPU
                continue
            waiting += [item for item in needs if item.marker is None or item.marker.evaluate({"extra": extra})]
    return {item.partition("[")[0] for item in found}


def measure_imports(chosen: list[str], rounds: int, clock: str) -> dict[str, dict[str, Any]]:
    """For each module the milliseconds that importing it takes, once the one below it is there; in fresh processes."""
    cases = [CORE]
    for framework in chosen:
        cases += [OURS[framework], *(case for case in FURTHER[framework] if is_installed(case[2]))]
    names = {case[0]: case for case in cases}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number in range(rounds):
        for name in turns(names, number):
            found[name].append(fresh(WORKER, "import", name, names[name][1], clock))
    return {
        name: {
            "over": names[name][1] or "Python",
            "milliseconds": spread([item["milliseconds"] for item in answers]),
            "below": spread([item["below"] for item in answers]),
            "heavy": answers[0]["heavy"],
            "distributions": sorted(drawn_in(names[name][2]) - drawn_in(names[name][3])),
        }
        for name, answers in found.items()
    }


def measure_first_steps(chosen: list[str], loops: Sequence[str], rounds: int, clock: str) -> dict[str, dict[str, Any]]:
    """Milliseconds from before the trainer is made to the first step, and to the end of that step."""
    found: dict[str, dict[str, Any]] = {}
    for framework in chosen:
        times: dict[str, list[dict[str, Any]]] = {name: [] for name in loops}
        for number in range(rounds):
            for name in turns(loops, number):
                times[name].append(fresh(WORKER, "step", framework, name, clock))
        found[framework] = {
            name: {
                **{until: spread([item[until] for item in answers]) for until in ("first", "second")},
                "heavy": answers[0]["heavy"],
            }
            for name, answers in times.items()
        }
    return found


def say(figures: dict[str, float], base: dict[str, float] | None = None) -> str:
    if base is not None:
        return f"{figures['median'] - base['median']:+.1f}"
    return "{median:.1f} [{min:.1f}, {max:.1f}]".format(**figures)


def main() -> None:
    parser = options("Times imports and the way to the first step.")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="fresh processes of each kind (default: %(default)s)")
    args = parser.parse_args()
    rounds, loops = (1, LOOPS[::3]) if args.quick else (args.rounds, LOOPS)
    chosen = frameworks(args)
    peers = any(is_installed(case[2]) for framework in chosen for case in FURTHER[framework])
    report = Report("startup_with_peers" if peers else "startup", args.out)
    report.say(f"Milliseconds in {rounds} fresh processes of each kind, by the clock {args.clock!r}.")
    imports = measure_imports(chosen, rounds, args.clock)
    report.table(
        ("import", "over", "which takes", "takes", "distributions", "loads"),
        [
            [
                name,
                item["over"],
                say(item["below"]),
                say(item["milliseconds"]),
                str(len(item["distributions"])),
                ", ".join(item["heavy"]),
            ]
            for name, item in imports.items()
        ],
    )
    steps = measure_first_steps(chosen, loops, rounds, args.clock)
    rows = []
    for framework, figures in steps.items():
        base = figures[LOOPS[0]]
        for name, item in figures.items():
            times = [
                text for until in ("first", "second") for text in (say(item[until]), say(item[until], base[until]))
            ]
            rows.append([framework, name, *times, ", ".join(item["heavy"])])
    report.table(("framework", "loop", "to the first step", "over", "to the second", "over", "loads"), rows)
    charts = {}
    for framework in chosen:
        module, below, *_ = OURS[framework]
        charts[f"over {below}"] = {
            f"ours: {name}" if name == module else name: item["milliseconds"]
            for name, item in imports.items()
            if item["over"] == below
        }
    report.bars(report.subject, "What importing takes", "milliseconds", charts)
    report.keep(rounds=rounds, imports=imports, first_steps=steps)
    report.close()


if __name__ == "__main__":
    main()

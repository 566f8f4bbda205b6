"""What was meant to be reached, and what the last run came to: from the figures in benchmarks/results.

python benchmarks/summary.py    # writes benchmarks/results/summary.md; `hatch run bench:paste` does it, too
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from reporting import table

RESULTS = Path(__file__).with_name("results")
FRAMEWORKS = ("torch", "paddle")
HAND, SILENT = "hand-written", "ours, silent"
SHOWN, LOGGED = "ours: bar with the loss, a record each step", "ours: the same, and trainer.log each step"


class Goal(NamedTuple):
    """A figure, and what it was to be.

    Attributes:
        what: what is measured.
        bound: at most so much; at least so much where ``least`` is set.
        unit: of both.
        found: what was measured.
        framework: where; empty if on none.
        least: whether more is better.
    """

    what: str
    bound: float
    unit: str
    found: float
    framework: str = ""
    least: bool = False

    def row(self) -> list[str]:
        """The line of the table."""
        reached = self.found >= self.bound if self.least else self.found <= self.bound
        sign = "≥" if self.least else "≤"
        found = f"{self.found:.3g} {self.unit}".strip()
        return [
            self.what,
            self.framework,
            f"{sign} {self.bound:g} {self.unit}".strip(),
            found,
            "yes" if reached else "no",
        ]


def difference(figures: dict[str, list[float]], one: str, other: str) -> float:
    """Microseconds, the median over the rounds."""
    return median((a - b) * 1e6 for a, b in zip(figures[one], figures[other], strict=True))


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median over the rounds."""
    return median(one / other for one, other in zip(ours, theirs, strict=True))


def steps(figures: dict[str, Any]) -> Iterator[Goal]:
    for framework, shown in zip(FRAMEWORKS, (10, 15), strict=True):
        for data, where in (("tensors", "from a DataLoader"), ("batches", "the loop alone")):
            found = figures["frameworks"][framework][data]["means"]
            what = f"a step {where}"
            yield Goal(f"{what}, silent, over one by hand", 5, "µs", difference(found, SILENT, HAND), framework)
            yield Goal(f"{what}, bar, loss, a record", shown, "µs", difference(found, SHOWN, HAND), framework)
            yield Goal(f"{what}, logging besides", 25, "µs more", difference(found, LOGGED, SHOWN), framework)


def records(figures: dict[str, Any]) -> Iterator[Goal]:
    for framework in FRAMEWORKS:
        times = {
            (kind, count): median(found["ours"]) for kind, count, found in figures["frameworks"][framework]["times"]
        }
        for kind, bound in (("float", 1), ("tensor", 2)):
            most = max(count for name, count in times if name == kind)
            yield Goal(f"a record of a {kind}, {most:,} of them", bound, "µs", times[kind, most], framework)
        held = figures["frameworks"][framework]["held"] / 1e6
        yield Goal(f"{figures['floats']:,} recorded floats", 100, "MB", held, framework)


def startup(figures: dict[str, Any]) -> Iterator[Goal]:
    imports = figures["imports"]
    yield Goal("import dowdyboy_core", 50, "ms", imports["dowdyboy_core"]["milliseconds"]["median"])
    for framework in FRAMEWORKS:
        took = imports[f"dowdyboy_{framework}"]["milliseconds"]["median"]
        yield Goal(f"import dowdyboy_{framework}, over {framework}", 100, "ms", took, framework)
        loops = figures["first_steps"][framework]
        over = loops[SHOWN]["first"]["median"] - loops[HAND]["first"]["median"]
        yield Goal("to the first step, over a hand-written loop", 20, "ms", over, framework)


def data(figures: dict[str, Any]) -> Iterator[Goal]:
    for framework in FRAMEWORKS:
        for case in figures["frameworks"][framework]["rates"]:
            what = f"samples a second, {case['kind']}, {case['workers']} workers, ours : DataLoader"
            yield Goal(what, 0.98, "", ratio(case["ours"], case["plain"]), framework, least=True)
        ours = figures["frameworks"][framework]["orders"]["ours"]
        what = f"the order of {figures['samples']:,} samples"
        yield Goal(what, 0.5, "s", median(part["seconds"] for part in ours), framework)
        yield Goal(what, 100, "MB", median(part["bytes"] for part in ours) / 1e6, framework)


def flat(figures: dict[str, Any]) -> Iterator[Goal]:
    for name, case in figures["cases"].items():
        framework, _, what = name.partition(", ")
        over = [ours - hand for ours, hand in zip(case["resident"]["ours"], case["resident"]["hand"], strict=True)]
        tenth = max(1, len(over) // 10)
        later = median(over[-tenth:]) - median(over[:tenth])
        yield Goal(f"{what}: the last tenth of {figures['steps']:,} steps over the first", 5, "µs", later, framework)


def scaling(figures: dict[str, Any]) -> Iterator[Goal]:
    for row in figures["rows"]:
        if row["processes"] > 1:
            what = f"{row['processes']} processes, {row['model']}, {row['data']}, {row['extras']}, ours : hand-written"
            yield Goal(what, 0.98, "", row["ratio"]["median"], row["framework"], least=True)


def checkpoints(figures: dict[str, Any]) -> Iterator[Goal]:
    rows = {(row["framework"], row["what"], row["contender"]): row["seconds"] for row in figures["rows"]}
    for framework in FRAMEWORKS:
        for what, other, says in (
            ("stands still", "copy", "training stands still, in copies of the state"),
            ("writes", "theirs", "a checkpoint is written, in saves of the framework's"),
            ("loads cold", "theirs", "a checkpoint is loaded, in loads of the framework's"),
        ):
            ours, theirs = (rows[framework, what, contender] for contender in ("ours", other))
            yield Goal(says, 1, "", ratio(ours, theirs), framework)
        for found in figures["memory"]:
            if found["framework"] == framework and found["what"] == "ours saves":
                yield Goal("memory of a save, in copies of the state", 1.01, "", found["copies"], framework)


SUBJECTS = {
    "steps": steps,
    "flat": flat,
    "records": records,
    "startup": startup,
    "checkpoints": checkpoints,
    "data": data,
    "scaling": scaling,
}


def main() -> None:
    goals: list[Goal] = []
    for subject, read in SUBJECTS.items():
        goals += read(json.loads((RESULTS / f"{subject}.json").read_text(encoding="utf-8")))
    text = table(("what", "framework", "meant", "measured", "reached"), [goal.row() for goal in goals])
    (RESULTS / "summary.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""What every subject does with its figures: tables in Markdown, a chart, and everything as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

DISTRIBUTIONS = (
    *("torch", "paddlepaddle", "numpy", "tqdm", "tensorboard", "visualdl"),
    *("accelerate", "keras", "lightning", "mmengine", "pytorch-ignite", "torchtnt"),
)


class Report:
    """Prints tables as they come, and writes them to ``OUT/SUBJECT.md`` at the end, with a chart and all figures.

    Args:
        subject: what was measured, as a file name.
        out: the folder; None writes nothing.
    """

    def __init__(self, subject: str, out: Path | None) -> None:
        self.subject = subject
        self._out = out
        self._said: list[str] = []
        self._figures: dict[str, Any] = {}
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)

    def say(self, text: str) -> None:
        """Prints a paragraph or a table."""
        print(f"\n{text}", flush=True)
        self._said.append(text)

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Prints a table."""
        self.say(table(headings, rows))

    def keep(self, **figures: Any) -> None:
        """Adds figures to the JSON file."""
        self._figures |= figures

    def bars(self, name: str, title: str, unit: str, groups: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
        """Draws ``OUT/NAME.png``: a panel for each group, in it a bar a contender, from its ``spread``."""
        if self._out is None:
            return
        figure, panels = _panels(max(map(len, groups.values())) * 0.28 + 1.2, len(groups))
        for panel, (group, spreads) in zip(panels, groups.items(), strict=True):
            names, middles = list(spreads), [item["median"] for item in spreads.values()]
            below = [item["median"] - item["min"] for item in spreads.values()]
            above = [item["max"] - item["median"] for item in spreads.values()]
            colours = ["tab:orange" if item.startswith("ours") else "tab:gray" for item in names]
            panel.barh(names, middles, xerr=[below, above], color=colours, error_kw={"lw": 0.8, "ecolor": "black"})
            panel.invert_yaxis()
            panel.axvline(0, color="black", lw=0.8)
            panel.set(title=group, xlabel=unit)
        self._save(figure, name, title)

    def lines(
        self,
        name: str,
        title: str,
        labels: tuple[str, str],
        groups: Mapping[str, Mapping[str, Sequence[Any]]],
        *,
        logarithmic: bool = False,
    ) -> None:
        """Draws ``OUT/NAME.png``: a panel for each group, in it a line for each sequence of points (x, y)."""
        if self._out is None:
            return
        figure, panels = _panels(3.2, len(groups))
        for panel, (group, lines) in zip(panels, groups.items(), strict=True):
            for label, points in lines.items():
                panel.plot(*zip(*points, strict=True), label=label, lw=1.2)
            panel.set(title=group, xlabel=labels[0], ylabel=labels[1])
            panel.set_ylim(bottom=0)
            panel.set_xscale("log" if logarithmic else "linear")
            panel.legend()
        self._save(figure, name, title)

    def _save(self, figure: Any, name: str, title: str) -> None:
        assert self._out is not None
        figure.suptitle(title)
        figure.savefig(self._out / f"{name}.png", dpi=110)

    def close(self) -> None:
        """Writes the files."""
        if self._out is None:
            return
        about = machine()
        text = "\n\n".join([*self._said, f"Measured on {about['text']}."])
        (self._out / f"{self.subject}.md").write_text(text + "\n", encoding="utf-8")
        figures = {"machine": about, **self._figures}
        (self._out / f"{self.subject}.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def _panels(height: float, count: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # without pyplot, which looks for a screen

    figure = Figure(figsize=(6.4 * count, height), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False)[0]


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown whose columns stand under one another."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    lines = [headings, ["-" * width for width in widths], *rows]
    return "\n".join(
        " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def options(description: str, *, frameworks: bool = True) -> argparse.ArgumentParser:
    """The options that all subjects have."""
    parser = argparse.ArgumentParser(description=description)
    if frameworks:
        parser.add_argument("--framework", choices=["torch", "paddle", "both"], default="both")
    parser.add_argument("--out", type=Path, help="write tables, charts and figures to this folder")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, the figures say nothing")
    return parser


def frameworks(args: argparse.Namespace) -> list[str]:
    """Which frameworks are to be measured."""
    return ["torch", "paddle"] if args.framework == "both" else [args.framework]


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, cores, memory, system and versions; nothing that tells whose it is."""
    versions = {"Python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    about = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "versions": versions,
    }
    named = ", ".join(f"{name} {number}" for name, number in versions.items())
    text = f"{about['processor']}, {about['cores']} cores, {about['memory_gb']} GB, {about['system']}; {named}"
    return {**about, "text": text}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()

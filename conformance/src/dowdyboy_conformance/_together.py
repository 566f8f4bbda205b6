"""Starts several processes, has each run the same scenarios, and brings together what they saw."""

from __future__ import annotations

import importlib
import json
import traceback
from collections.abc import Callable
from multiprocessing import set_forkserver_preload
from pathlib import Path
from typing import Any

from dowdyboy_conformance.harnesses.harness import Harness

from ._problem import config

SCENARIOS = {
    name: f"dowdyboy_conformance.{module}:{name}"
    for module, names in {
        "scenarios.numbers": [
            "facts",
            "evaluation",
            "dealing",
            "draws",
            "training",
            "adversaries",
            "overflow",
            "branches",
        ],
        "scenarios.runs": [
            "schedules",
            "own_values",
            "files",
            "buffers",
            "divergence",
            "exchanges",
            "resuming",
            "elsewhere",
            "own_disks",
            "in_use",
            "stopping",
        ],
        "scenarios.hooks": ["interludes"],
        "scenarios.ending": ["ending"],
        "scenarios.own_state": ["own_state"],
        "scenarios.deadline": ["deadline"],
        "scenarios.models": ["uses", "disguise", "thawing", "adversarial", "refusals", "drifting"],
        "scenarios.data": ["parts"],
        "scenarios.steps": ["passes"],
        "scenarios.records": ["samples"],
        "scenarios.averages": ["average", "asking"],
        "scenarios.scripts": ["scripts", "counts"],
        "scenarios.weights": ["weighted", "some_only"],
        "scenarios.loader_states": ["own_states"],
        "scenarios.frameworks": ["long_training"],
    }.items()
    for name in names
}
"""Where the scenarios are, by name, in the order in which they run."""

NEEDED = sorted(
    {__name__, "dowdyboy_conformance.harnesses.numpy", *(spec.partition(":")[0] for spec in SCENARIOS.values())}
)
"""What the server of the reference imports once, for all processes that it forks."""

Scenario = Callable[[Harness, Path], Any]
"""What each process does in a folder that all share; gives a tree that JSON can hold."""


def spec_of(harness: Harness) -> str:
    """What ``--backend`` calls a harness."""
    return f"{type(harness).__module__}:{type(harness).__qualname__}"


def load(spec: str) -> Any:
    """What ``package.module:name`` stands for."""
    module, _, name = spec.partition(":")
    return getattr(importlib.import_module(module), name)


def start(harness: Harness, processes: int, function: Callable[..., Any], *arguments: Any) -> None:
    """Calls ``function(spec of the harness, *arguments)`` in so many processes, or here if it is one.

    Raises:
        Exception: what ``spawn`` of the distribution raises when a process fails.
    """
    if processes == 1:
        function(spec_of(harness), *arguments)
    else:
        set_forkserver_preload(NEEDED)
        spawn = importlib.import_module(harness.module).spawn
        spawn(function, processes, (spec_of(harness), *arguments))


def work(spec: str, folder: str, scenarios: dict[str, str]) -> None:
    """What each process does: runs the scenarios, and writes down what they gave and the first error."""
    harness: Harness = load(spec)()
    seen: dict[str, Any] = {}
    rank = harness.make_trainer(config(Path(folder))).rank
    for name, scenario in scenarios.items():
        out_dir = Path(folder, name)
        try:
            seen[name] = load(scenario)(harness, out_dir)
        except Exception:
            seen[name] = {"error": traceback.format_exc()}
            break  # the others may have gone on without this process
    Path(folder, f"rank_{rank}.json").write_text(json.dumps(seen), encoding="utf-8")


class Together:
    """What processes saw together, started once for each number of them."""

    def __init__(self, harness: Harness, folder: Path, scenarios: dict[str, str]) -> None:
        self.harness = harness
        self.folder = folder
        self._scenarios = scenarios
        self._seen: dict[int, list[dict[str, Any]]] = {}
        self._failed: dict[int, str] = {}

    def __call__(self, processes: int, scenario: str) -> list[Any]:
        """What each process saw of a scenario, in the order of their ranks."""
        ranks = self._ranks(processes)
        assert all(scenario in rank for rank in ranks), f"{scenario} in {processes} processes: an earlier one failed"
        seen = [rank[scenario] for rank in ranks]
        errors = [item["error"] for item in seen if isinstance(item, dict) and "error" in item]
        assert not errors, f"{scenario} in {processes} processes:\n" + "\n".join(errors)
        return seen

    def of(self, processes: int) -> Path:
        """The folder in which so many processes ran."""
        return self.folder / str(processes)

    def _ranks(self, processes: int) -> list[dict[str, Any]]:
        assert processes not in self._failed, f"{processes} processes: {self._failed[processes]}"
        if processes not in self._seen:
            if processes > 1:  # whose checkpoints it takes up
                self._ranks(processes - 1)
            folder = self.of(processes)
            folder.mkdir(parents=True)
            self._failed[processes] = "they did not come to their end; see the first check that used them"
            start(self.harness, processes, work, str(folder), self._scenarios)
            texts = [(folder / f"rank_{rank}.json").read_text(encoding="utf-8") for rank in range(processes)]
            self._seen[processes] = [json.loads(text) for text in texts]
            del self._failed[processes]
        return self._seen[processes]

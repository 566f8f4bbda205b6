"""What a case is, and the verdict on it.

A case is a function that builds what a user brings: a model, an optimizer, data, and a loss. From it the harness makes
three runs, each in a process of its own that is forked from here, so that nothing is imported twice:

- *whole*: the trainer, undisturbed.
- *by hand*: a loop as the library's own pages show it, on the same batches; losses, learning rates and weights have to
  be equal to the bit.
- *killed*: the trainer again, ended by SIGKILL within an epoch, resumed, ended by SIGKILL at the end of an epoch, and
  resumed; losses, curves and the files of the last checkpoint have to be those of the whole run, to the bit.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from safetensors.numpy import load_file

from . import lives
from .loops import EPOCHS, Kill, Parts, Run, by_hand, by_trainer, read_steps, read_weights

__all__ = ["CASES", "Case", "Parts", "Verdict", "case", "judge"]

Aspect = Literal["whole", "by hand", "killed", "refused", "names"]

CASES: list[Case] = []
"""All cases, in the order in which their modules are imported."""


@dataclass(frozen=True)
class Case:
    """A case, and what is expected of it.

    Attributes:
        name: what the table calls it.
        framework: ``'torch'`` or ``'paddle'``.
        uses: the distributions that it is about, whose versions the table shows.
        build: makes the parts of a run; called after the random streams are seeded.
        settings: further fields of the configuration.
        processes: how many processes train together.
        batches: training batches of an epoch, over all processes.
        fails: what isn't as it should be today, and why; the case fails as soon as it is.
        not_by_hand: why there is no loop beside it.
        refused: the trainer has to refuse it before the first batch.
        note: what a reader of the table has to know or to do.
    """

    name: str
    framework: str
    uses: Sequence[str]
    build: Callable[[], Parts]
    settings: dict[str, Any]
    processes: int = 1
    batches: int = 4
    fails: tuple[Aspect, str] | None = None
    not_by_hand: str = ""
    refused: bool = False
    note: str = ""


def case(
    name: str, framework: str, uses: Sequence[str] = (), *, settings: dict[str, Any] | None = None, **about: Any
) -> Callable[[Callable[[], Parts]], Callable[[], Parts]]:
    """Makes a case of a function that builds the parts of a run; the arguments are those of :class:`Case`.

    With ``by_step=True`` the hook steps the optimizer itself.
    """

    def register(build: Callable[[], Parts]) -> Callable[[], Parts]:
        assert name not in [other.name for other in CASES], f"there are two cases {name!r}"
        by_step = {"auto_optimize": False, "auto_schedule": False} if about.pop("by_step", False) else {}
        CASES.append(Case(name, framework, list(uses), build, by_step | (settings or {}), **about))
        return build

    return register


@dataclass
class Verdict:
    """What is wrong with each aspect of a case; an aspect that was tried and is right has an empty text."""

    problems: dict[str, str] = field(default_factory=dict)

    def failed(self) -> dict[str, str]:
        """The aspects that are wrong, and how."""
        return {aspect: text for aspect, text in self.problems.items() if text}


def judge(case: Case, folder: Path) -> Verdict:
    """Runs a case in every way, and compares."""
    verdict = Verdict()
    run = Run(case.framework, case.build, case.settings, case.processes)
    if case.refused:
        verdict.problems["refused"] = _refusal(case, run, folder / "refused")
        return verdict
    whole = folder / "whole"
    verdict.problems["whole"] = lives.live(case.framework, case.processes, whole, lambda rank: by_trainer(run, whole))
    if verdict.problems["whole"]:
        return verdict
    if (whole / "wanted.json").exists():
        verdict.problems["names"] = _unlike_names(whole)
    if not case.not_by_hand:
        hand = folder / "hand"
        problem = lives.live(case.framework, 1, hand, lambda rank: by_hand(run, hand))
        verdict.problems["by hand"] = problem or _unlike(whole, hand)
    killed = folder / "killed"
    verdict.problems["killed"] = _kill(case, run, killed) or _unlike(whole, killed, files=True)
    return verdict


def _refusal(case: Case, run: Run, folder: Path) -> str:
    """Whether the trainer refuses a run in words of its own before it trains."""
    ended = lives.live(case.framework, case.processes, folder, lambda rank: by_trainer(run, folder))
    if not ended:
        return "it is accepted"
    if read_steps(folder):
        return f"it trains {len(read_steps(folder))} batches first; then {ended[-300:]}"
    return "" if "Error: " in ended and "dowdyboy" in ended.splitlines()[-1] else ended[-300:]


def _kill(case: Case, run: Run, folder: Path) -> str:
    """Kills a run within an epoch and at the end of one, and lets it come to its end."""
    drawn = random.Random(int.from_bytes(hashlib.sha256(case.name.encode()).digest()[:8], "big"))
    steps = case.batches // case.processes
    epoch, batch = drawn.randint(1, EPOCHS - 1), drawn.randint(1, steps - 1)
    kills = [Kill("batch", (epoch - 1) * steps + batch), Kill("end", drawn.randint(epoch, EPOCHS)), None]
    for kill in kills:
        ended = lives.live(case.framework, case.processes, folder, partial(_train, run, folder, kill))
        wanted = "" if kill is None else lives.KILLED
        if ended != wanted:
            return ended or f"it was not killed at {kill}: has an epoch {steps} steps?"
    window = case.settings.get("accumulate_steps", 1)
    begun = [int(step["step"]) for step in read_steps(folder, first_of_lives=True)]
    resumed_at = (epoch - 1) * steps + batch // window * window
    if begun[:1] != [0] or resumed_at not in begun[1:]:
        return f"its lives began at the steps {begun}, and the second should have gone on at {resumed_at}"
    return ""


def _train(run: Run, folder: Path, kill: Kill | None, rank: int) -> None:
    by_trainer(run, folder, kill)


def _unlike(whole: Path, other: Path, *, files: bool = False) -> str:
    """In what a run differs from the whole one."""
    expected, found = read_steps(whole), read_steps(other)
    unlike = [f"{want} and {got}" for want, got in zip(expected, found, strict=False) if want != got]
    if unlike or len(expected) != len(found):
        return f"{len(expected)} steps and {len(found)}; {len(unlike)} differ, first {unlike[:1]}"
    weights, others = read_weights(whole), read_weights(other)
    if weights.keys() != others.keys():
        return f"other names: {sorted(weights.keys() ^ others.keys())[:6]}"
    lines = [name for name in weights if weights[name].tobytes() != others[name].tobytes()]
    if lines:
        return f"{len(lines)} of {len(weights)} tensors differ, first {lines[0]}"
    return _unlike_files(whole, other) if files else ""


def _unlike_names(folder: Path) -> str:
    """Whether the weights in the checkpoint have the names that they should have."""
    stored = sorted(load_file(folder / f"checkpoint/last_epoch_{EPOCHS}/model_0.safetensors"))
    wanted = json.loads((folder / "wanted.json").read_text())
    return "" if stored == wanted else f"{stored[:3]} for {wanted[:3]}"


def _unlike_files(whole: Path, other: Path) -> str:
    """What of a run's files differs from that of the whole one."""
    last = f"checkpoint/last_epoch_{EPOCHS}"
    names = {path.relative_to(whole) for path in (whole / last).iterdir()} | {Path("metrics.jsonl")}
    differ = [str(name) for name in sorted(names) if (whole / name).read_bytes() != (other / name).read_bytes()]
    return f"files differ: {differ}" if differ else ""

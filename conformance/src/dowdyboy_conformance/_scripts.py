"""Training scripts that are drawn from a number: what they train, how, on what, and where they are interrupted."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from typing import Any

from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core.rand import derive_seed

VARIABLE = "DOWDYBOY_SCRIPTS"
"""Names the scripts to play in place of those that are played always: ``"17"``, or ``"100+50"`` for 50 from 100 on."""

Event = tuple[str, int, int]
"""A place that a run comes by: ``"begin"``, ``"train"``, ``"step"``, ``"val"`` or ``"end"``, epoch, number in it."""


@dataclass(frozen=True)
class Script:
    """What is drawn of a script.

    Attributes:
        number: what it is drawn from.
        model: which kind.
        optimizers: name and schedule of each.
        settings: of the trainer.
        source: which kind of data.
        samples: how many there are.
        batch_size: of how many a batch is made.
        hooks: which of the things that hooks may do, they do.
        stop_at: where it calls ``trainer.stop()``, if anywhere.
        interruptions: how often it is interrupted.
    """

    number: int
    model: str
    optimizers: tuple[tuple[str, str | None], ...]
    settings: dict[str, Any]
    source: str
    samples: int
    batch_size: int
    hooks: frozenset[str]
    stop_at: Event | None
    interruptions: int


def numbers(harness: Harness, count: int) -> list[int]:
    """The scripts to play: those that the environment names, or else so many of the backend's own."""
    first, _, some = os.environ.get(VARIABLE, "").partition("+")
    if first:
        return list(range(int(first), int(first) + int(some or 1)))
    begin = derive_seed(harness.name, "scripts") % 10**6
    return list(range(begin, begin + count))


def draw_script(number: int, harness: Harness, processes: int = 1) -> Script:
    """The script of a number, for a framework and a number of processes."""
    draw = random.Random(number)
    model = draw.choice(["mlp", "norm", "tied", "two", *sorted(harness.further_models())])
    optimizers = tuple(
        (draw.choice(["sgd", "momentum", "adam", "adamw"]), draw.choice([None, "step", "cosine", "plateau"]))
        for _ in range(draw.choice([1, 2]) if model == "two" else 1)
    )
    settings: dict[str, Any] = {
        "epoch": draw.choice([2, 3, 4]),
        "seed": draw.randrange(1000),
        "save_steps": draw.choice([None, 1, 2, 3]),
        "save_interval": draw.choice([1, 2]),
        "max_keep_num": draw.choice([None, None, 1]),
        "save_best": draw.random() < 0.5,
        "save_best_type": draw.choice(["min", "max"]),
        "steps_per_epoch": draw.choice([None, None, 2, 3, 5]),
        "clip_grad_norm": draw.choice([None, None, 0.5]),
        "ema_decay": draw.choice([None, None, 0.8]),
        "early_stop": draw.choice([None, None, 1, 2]),
        "schedule_by": draw.choice(["epoch", "step", [draw.choice(["epoch", "step"]) for _ in optimizers]]),
        "auto_optimize": draw.random() < 0.75,
    }
    settings["accumulate_steps"] = draw.choice([1, 1, 2, 3]) if settings["auto_optimize"] else 1
    doing = ["freeze", "draw", "own state", "samples", "test", "label", "validate"]
    chances = {"validate": 0.9, "freeze": 0.4 * (model != "recurrent")}  # which PaddlePaddle freezes as a whole only
    hooks = frozenset(name for name in doing if draw.random() < chances.get(name, 0.4))
    settings["val_interval"] = draw.choice([1, 1, 2]) if "validate" in hooks else 1
    settings["save_best_rec"] = "val_loss" if "validate" in hooks else "train_loss"
    sources = ["shuffled"] * 3 + ["ordered", "stream", "list", "sampler"]
    batch_size = draw.choice([2, 3, 4])
    samples = batch_size * draw.choice([2, 3, 4, 5]) * processes
    samples += draw.randrange(2, batch_size + 1) % batch_size  # a single sample has no variance
    # A signal that comes after the call would have the resumed run go on: a stop counts for one fit.
    places = ["end", "val"] + ["train"] * (settings["accumulate_steps"] == 1)
    stop_at = (draw.choice(places), draw.choice([1, 2]), 1) if draw.random() < 0.25 else None
    source = "workers" if draw.random() < 0.03 and processes == 1 else draw.choice(sources)
    interruptions = draw.choice([1, 1, 2, 3, 4])
    kinds = [] if model == "recurrent" else sorted(harness.capabilities)  # on a CPU PyTorch has none for an LSTM
    settings["mixed_precision"] = draw.choice(["no", "no", "no", *kinds])
    if draw.random() < 0.3:
        hooks |= {"load by hand"}
    return Script(number, model, optimizers, settings, source, samples, batch_size, hooks, stop_at, interruptions)


def choose_interruptions(script: Script, events: list[Event], processes: int) -> dict[Event, str]:
    """Where a script is interrupted, of the places that it came by, and how."""
    draw = random.Random(f"{script.number} interruptions")
    if script.stop_at in events:
        events = events[: events.index(script.stop_at)]
    chosen: dict[Event, str] = {}
    for _ in range(script.interruptions if events else 0):
        event = draw.choice(events)
        # In several processes a kill is one of all of them, which all have to come by.
        kills = draw.random() < 0.5 and (processes == 1 or event[0] == "train")
        chosen[event] = "kill" if kills else "signal"
    return chosen

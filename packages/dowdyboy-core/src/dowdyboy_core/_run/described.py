"""What the tensors of a checkpoint are, in words that no framework owns: ``exchange.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dowdyboy_core._errors import CheckpointError
from dowdyboy_core._exchange import optimizers
from dowdyboy_core.backend.words import ModelWords, OptimizerWords, ScheduleWords, is_count

from .carried import Carried
from .checkpoints import Snapshot
from .run import Run

EXCHANGE, PASSENGERS = "exchange", "passengers"
"""The trees of a checkpoint with its description, and with what only another framework keeps."""


def steps_made(run: Run) -> list[int]:
    """How many steps each optimizer has made, over all runs that this one goes on from."""
    return [run.carried.steps[item] + run.stepper.steps_of[item] for item in run.parts.optimizers]


def describe(run: Run, snapshot: Snapshot) -> dict[str, Any] | None:
    """What the tensors of a snapshot are; None where the backend has no words for them.

    Args:
        run: the run.
        snapshot: the rest of it.
    """
    parts, own = run.parts, run.backend.vocabulary
    if own is None:
        return None
    made, listed = steps_made(run), []
    names = [name for name, _ in parts.named_parameters()]
    for number, optimizer in enumerate(parts.optimizers):
        words = own.optimizer(optimizer)
        found = optimizers.steps_of(words, snapshot.trees[f"optimizer_{number}"]["state"], made[number])
        steps = {name: found[name] for name in names if name in found}  # in an order that no optimizer decides
        listed.append({**words.plain(), "made": made[number], "steps": steps})
    schedules = [None if item is None else own.schedule(item).plain() for item in parts.schedulers]
    return {
        "models": [own.model(model).plain() for model in parts.raw_models()],
        "components": {str(place): own.model(item).plain() for place, item in parts.modules_of_components().items()},
        "optimizers": listed,
        "schedules": schedules,
    }


def is_strange(run: Run, snapshot: Snapshot) -> bool:
    """Whether a snapshot is another framework's, of which nothing says what its tensors are."""
    return bool(snapshot.index["backend"] != run.backend.name and snapshot.trees.get(EXCHANGE) is None)


def take_up(run: Run, snapshot: Snapshot) -> None:
    """Goes on counting, and carrying along, where a snapshot that is in place had come to."""
    tree = snapshot.trees.get(EXCHANGE)
    run.carried.forget()
    run.carried.load_state(snapshot.trees.get(PASSENGERS))
    if tree is not None:
        for optimizer, (_, _, made) in zip(run.parts.optimizers, Described.read(tree).optimizers, strict=True):
            run.carried.steps[optimizer] = made - run.stepper.steps_of[optimizer]


def check(snapshot: Snapshot) -> None:
    """Refuses what is no description, and what no run carries along.

    Raises:
        CheckpointError: it is none.
    """
    if snapshot.trees.get(EXCHANGE) is not None:
        Described.read(snapshot.trees[EXCHANGE])
    Carried().load_state(snapshot.trees.get(PASSENGERS))


@dataclass(frozen=True)
class Described:
    """The description in a checkpoint."""

    models: list[ModelWords]
    components: dict[str, ModelWords]
    optimizers: list[tuple[OptimizerWords, dict[str, int], int]]
    schedules: list[ScheduleWords | None]

    @classmethod
    def read(cls, tree: Any) -> Described:
        """What ``exchange.json`` says.

        Raises:
            CheckpointError: it is of another kind.
        """
        wanted = {"models": list, "components": dict, "optimizers": list, "schedules": list}
        if not isinstance(tree, dict) or any(not isinstance(tree.get(name), kind) for name, kind in wanted.items()):
            raise CheckpointError("The checkpoint has no exchange.json of the right kind. Use another checkpoint.")
        listed = []
        for entries in tree["optimizers"]:
            words = OptimizerWords.read(entries)
            steps, made = entries.get("steps"), entries.get("made")
            counts = isinstance(steps, dict) and all(map(is_count, steps.values()))
            if not counts or not is_count(made):
                raise CheckpointError("The checkpoint has no exchange.json of the right kind. Use another checkpoint.")
            listed.append((words, steps, made))
        return cls(
            [ModelWords.read(entries) for entries in tree["models"]],
            {str(place): ModelWords.read(entries) for place, entries in tree["components"].items()},
            listed,
            [None if entries is None else ScheduleWords.read(entries) for entries in tree["schedules"]],
        )

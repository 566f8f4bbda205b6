"""A run crosses from one framework to another: what a checkpoint says its tensors are, and one of another framework.

A checkpoint of another backend is brought into the form that this one would have written, and then taken up as any.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dowdyboy_core._errors import CheckpointError
from dowdyboy_core._exchange import optimizers, weights
from dowdyboy_core._exchange.disagreements import disagreements, of_layers
from dowdyboy_core._exchange.pairing import Key, Names, Pair, pair, untied
from dowdyboy_core._exchange.schedules import check_alike
from dowdyboy_core.backend.arrays import Array
from dowdyboy_core.backend.layouts import BUFFERS
from dowdyboy_core.backend.left_out import TREE
from dowdyboy_core.backend.vocabulary import Vocabulary
from dowdyboy_core.backend.words import BUFFER, ModelWords, ScheduleWords

from . import frozen
from .assembly import Assembly
from .carried import Carried
from .checkpoints import Snapshot
from .described import EXCHANGE, PASSENGERS, Described
from .frozen import frozen_names
from .run import Run


def crossed(run: Run, snapshot: Snapshot, folder: Path, names: Names = None, *, weights_only: bool = False) -> Snapshot:
    """A snapshot in the form of this run's own framework; itself where it is of that already and nothing is renamed.

    What it is made of is used up, so that not all of it is in memory twice.

    Raises:
        CheckpointError: it doesn't say what its tensors are, or they don't fit; the message lists all that doesn't.
    """
    origin, own = snapshot.index["backend"], run.backend.name
    if origin == own and names is None:
        return snapshot
    tree = snapshot.trees.get(EXCHANGE)
    if tree is None or run.backend.vocabulary is None:
        raise CheckpointError(
            f"{str(folder)!r} was saved by {origin!r} and this is {own!r}, which lays out weights in another way; and "
            "it doesn't say what its tensors are, as checkpoints do from format version 3 on. Save it anew there with "
            "this version, or load it there."
        )
    left_out = snapshot.trees.get(TREE, {}).get("left_out")
    if origin != own and left_out:
        raise CheckpointError(
            f"{str(folder)!r} was saved by {origin!r} with save_trained_only=True, and so without what was never "
            f"trained there: {own!r} has no such tensors to compare. Go on from it there with save_trained_only=False, "
            "and cross from a checkpoint of that."
        )
    try:
        crossing = _Crossing(run, run.backend.vocabulary, snapshot, folder, Described.read(tree), names)
        return crossing.whole(weights_only)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{str(folder)!r} holds what can't be taken up from {origin!r}: {type(error).__name__}: {error}. Nothing "
            "was loaded. Use another checkpoint, or load the weights alone with weights_only=True."
        ) from error


class _Crossing:
    """One snapshot on its way."""

    def __init__(
        self, run: Run, own: Vocabulary, snapshot: Snapshot, folder: Path, said: Described, names: Names
    ) -> None:
        self._run, self._snapshot, self._folder, self._said = run, snapshot, folder, said
        self._backend, self._own = run.backend, own
        self._renamed = snapshot.index["backend"] == run.backend.name  # and crosses no border
        self._parts: Assembly = run.parts
        self._ours = {f"model_{n}": own.model(model) for n, model in enumerate(run.parts.raw_models())}
        self._ours |= {f"component_{n}": own.model(item) for n, item in run.parts.modules_of_components().items()}
        theirs = {f"model_{n}": words for n, words in enumerate(said.models)}
        theirs |= {f"component_{n}": words for n, words in said.components.items()}
        self._theirs = theirs
        self._pairs = self._paired(names)
        self._of_models: dict[int, Mapping[Key, Pair]] = {
            int(name.rsplit("_", 1)[1]): pairs for name, pairs in self._pairs.items() if name.startswith("model_")
        }
        self._there, self._here = self._lying(theirs, "source"), self._lying(self._ours, "target")
        self._exact: dict[str, dict[str, dict[str, Any]]] = {}
        self._came = Carried()
        self._came.load_state(snapshot.trees.get(PASSENGERS))

    def _paired(self, names: Names) -> dict[str, dict[Key, Pair]]:
        """The pairs of each model and component.

        Raises:
            CheckpointError: something has no pair; the message lists all of it.
        """
        problems = [f"{name} is there only" for name in self._theirs if name not in self._ours]
        problems += [f"{name} is here only" for name in self._ours if name not in self._theirs]
        found = {}
        for name in self._ours.keys() & self._theirs.keys():
            found[name], lines = pair(self._theirs[name], self._ours[name], names)
            problems += [f"{name}: {line}" for line in lines]
        problems += self._beside()
        if problems:
            self._refuse(problems)
        return found

    def _beside(self) -> list[str]:
        """What no words are for, in words."""
        own = [] if self._renamed else [name for name in self._snapshot.trees if name.endswith("_beside")]
        return [
            f"{name.removesuffix('_beside')} keeps metrics of the framework's own, which can't cross" for name in own
        ]

    def _refuse(self, problems: list[str]) -> None:
        listed = "\n  ".join(sorted(problems))
        raise CheckpointError(
            f"{str(self._folder)!r} was saved by {self._snapshot.index['backend']!r} and doesn't fit the models "
            f'here, of {self._backend.name!r}; nothing was loaded. Rename with names={{"old.": "new."}}, and say what '
            f"a class is with register_exchange. What has no pair:\n  {listed}"
        )

    def whole(self, weights_only: bool) -> Snapshot:
        """The snapshot as this framework would have written it."""
        found, carried = self._all_weights()
        index = {**self._snapshot.index, "backend": self._backend.name}
        if weights_only:
            return Snapshot(index, found)
        trees = {
            name: tree
            for name, tree in self._snapshot.trees.items()
            if name in ("scaler", "records") or name.startswith("component_")
        }
        trees |= {"rng": self._snapshot.trees["rng"] if self._renamed else [], "frozen": self._frozen()}
        if "ema" in self._snapshot.trees:
            trees["ema"] = self._average(self._snapshot.trees["ema"])
        trees |= self._optimizers()
        trees[EXCHANGE] = self._snapshot.trees[EXCHANGE]
        along = Carried(carried, self._exact, self._snapshot.index["backend"], int(index["train_step"]))
        trees[PASSENGERS] = along.state(along.at)
        self._tell()
        return Snapshot(index, found, trees)

    def _all_weights(self) -> tuple[dict[str, Any], dict[str, dict[str, Array]]]:
        """The weights of everything, and what travels along."""
        stored = self._came.passengers
        found: dict[str, Any] = {}
        carried: dict[str, dict[str, Array]] = {}
        problems: list[str] = []
        for name in list(self._snapshot.weights):
            owner = name.replace("ema_", "model_")
            if owner not in self._pairs:
                continue
            pairs, tied = self._pairs[owner], self._theirs[owner].tied
            arrays = {path: item for path, item in self._snapshot.weights.pop(name).items() if path not in tied}
            unsaid = weights.undescribed(arrays, self._theirs[owner])
            problems += [f"{name}: nothing says what {array!r} is" for array in unsaid]
            along, lines = weights.left_behind(arrays, pairs)
            problems += [f"{name}: {line}" for line in lines]
            if along:
                carried[name] = along
            given = stored.get(name, {})
            found[name] = weights.converted(arrays, pairs, self._ours[owner], self._layout(owner), given)
        if problems:
            self._refuse(problems)
        return found, carried

    def _layout(self, name: str) -> Mapping[str, Array]:
        stem, number = name.rsplit("_", 1)
        item = self._parts.raw_models()[int(number)] if stem == "model" else self._parts.components[int(number)]
        return self._backend.model_layout(item)

    # ---- by the names of parameters

    def _lying(self, words: Mapping[str, ModelWords], side: str) -> optimizers.At:
        tied = {number: words[f"model_{number}"].tied for number in self._of_models}
        return optimizers.lying_at(self._of_models, side, tied)

    def _own_names(self, names: list[str]) -> list[str]:
        """The names here of parameters that have others there: of all whose tensors are theirs."""
        theirs, ours = self._there, self._here
        wanted = {key for name in names for key, _ in theirs.get(name, ())}
        own = [name for name, _ in self._parts.named_parameters()]
        return [name for name in own if (keys := {key for key, _ in ours.get(name, ())}) and keys <= wanted]

    def _frozen(self) -> list[str] | None:
        """What isn't trained: that of the checkpoint, and running statistics where these count as parameters."""
        stored = self._snapshot.trees.get("frozen")
        frozen.check(stored)
        if stored is None:
            return None
        ours = self._here
        statistics = [
            name
            for name, _ in self._parts.named_parameters()
            if (found := ours.get(name))
            and all(_is_buffer(self._of_models[key[0]][key[1]], key[1]) for key, _ in found)
        ]
        # What isn't there at all is trained here or not as the script has it.
        alone = [
            name
            for name in frozen_names(self._backend, self._parts)
            if not any(self._of_models[key[0]][key[1]].source for key, _ in ours.get(name, ()))
        ]
        return self._in_order([*self._own_names(stored), *statistics, *alone])

    def _in_order(self, names: list[str]) -> list[str]:
        wanted = set(names)
        return [name for name, _ in self._parts.named_parameters() if name in wanted]

    def _average(self, tree: Any) -> Any:
        names = tree.get("parameters") if isinstance(tree, dict) else None
        if not isinstance(names, list):
            raise CheckpointError("ema.json says nothing of the right kind. Use another checkpoint.")
        return {**tree, "parameters": self._own_names(names)}

    # ---- optimizers and schedulers

    def _optimizers(self) -> dict[str, Any]:
        """The state of all optimizers and schedulers in this framework's form."""
        parts, said = self._parts, self._said
        if len(said.optimizers) != len(parts.optimizers):
            raise CheckpointError(
                f"{str(self._folder)!r} holds {len(said.optimizers)} optimizers and the trainer has "
                f"{len(parts.optimizers)}. Give as many as when it was saved, or load the weights alone with "
                "weights_only=True."
            )
        if apart := [line for pairs in self._of_models.values() for line in untied(pairs)]:
            raise CheckpointError(
                f"{str(self._folder)!r} was saved with tied tensors that are apart here, so that optimizers would move "
                "them apart. Tie them, or load the weights alone with weights_only=True:\n  " + "\n  ".join(apart)
            )
        found: dict[str, Any] = {}
        problems: list[str] = []
        for number, (optimizer, scheduler) in enumerate(zip(parts.optimizers, parts.schedulers, strict=True)):
            there = said.schedules[number] if number < len(said.schedules) else None
            schedule = None
            try:
                schedule = self._schedule(number, scheduler, there, said.optimizers[number][0].rates)
            except CheckpointError as error:
                problems.append(str(error))
            try:
                found[f"optimizer_{number}"] = self._optimizer(number, optimizer, schedule)
            except CheckpointError as error:
                problems.append(str(error))
            found[f"lr_scheduler_{number}"] = schedule
        if problems:  # all of them at once
            raise CheckpointError("\n".join(problems))
        return found

    def _optimizer(self, number: int, optimizer: Any, schedule: Any) -> Any:
        source, steps, made = self._said.optimizers[number]
        target = self._own.optimizer(optimizer)
        optimizers.check_kinds(number, source, target)
        stored = self._snapshot.trees[f"optimizer_{number}"]
        live = self._backend.optimizer_state(optimizer, self._parts.parameter_names())
        theirs, ours = self._there, self._here
        given = [group["params"] for group in stored["param_groups"]]
        own = [group["params"] for group in live["param_groups"]]
        before, now = (
            [
                {key for key in group if self._has_both(key)}
                for group in optimizers.groups_by_tensor(groups, at, BUFFERS)
            ]
            for groups, at in ((given, theirs), (own, ours))
        )
        if before != now:
            self._refuse_groups(number, before, now)
        if len(source.rates) != len(own):
            raise CheckpointError(
                f"exchange.json has {len(source.rates)} rates of optimizer {number}. Use another checkpoint."
            )
        rates = {name: rate for group, rate in zip(own, source.rates, strict=True) for name in group}
        their_rates = {name: rate for group, rate in zip(given, source.rates, strict=True) for name in group}
        state = stored["state"]
        if not source.slots and made:  # it keeps nothing of any, and has moved all of them
            untrained = set(self._snapshot.trees.get("frozen") or ())
            state = {name: {} for name in their_rates if name not in untrained}
            steps = dict.fromkeys(state, made)
        exact = optimizers.inexact(source, target, state, steps, made)
        slots = optimizers.converted(source, state, steps, theirs, target, rates, ours, their_rates)
        if not self._put_exact(f"optimizer_{number}", slots):
            self._exact[f"optimizer_{number}"] = exact
        return self._own.optimizer_state(optimizer, live, slots, source.rates, schedule)

    def _put_exact(self, name: str, slots: dict[str, dict[str, Array]]) -> bool:
        """Puts slots back that were this framework's own, if no step was made since; says whether there were any."""
        came = self._came
        if (came.origin, came.at) != (self._backend.name, self._snapshot.index["train_step"]):
            return False
        for path, exact in came.exact.get(name, {}).items():
            if path in slots:
                fitting = {slot: array for slot, array in exact.items() if slot in slots[path]}
                if any(tuple(array.shape) != tuple(slots[path][slot].shape) for slot, array in fitting.items()):
                    raise CheckpointError(f"passengers.json has slots of {path!r} of another shape. Use another one.")
                slots[path] |= fitting
        return name in came.exact

    def _has_both(self, key: optimizers.NeutralName) -> bool:
        """Whether a tensor is on both sides, or is missing without a reason."""
        one = self._of_models.get(key[0], {}).get(key[1])
        return one is None or (one.source is not None and one.target is not None)

    def _refuse_groups(self, number: int, before: list[Any], now: list[Any]) -> None:
        lines = [f"{len(before)} parameter groups there, and {len(now)} here"] if len(before) != len(now) else []
        for place, (there, here) in enumerate(zip(before, now, strict=False)):
            lines += [f"group {place}: {_word(name)} is there only" for name in there - here]
            lines += [f"group {place}: {_word(name)} is here only" for name in here - there]
        listed = "\n  ".join(sorted(lines))
        raise CheckpointError(
            f"Optimizer {number} doesn't have the parameters that were saved. Make it with the same groups, or load "
            f"the weights alone with weights_only=True. Differences:\n  {listed}"
        )

    def _schedule(self, number: int, scheduler: Any, there: ScheduleWords | None, rates: tuple[float, ...]) -> Any:
        here = None if scheduler is None else self._own.schedule(scheduler)
        check_alike(number, there, here)
        if there is None:
            return None
        return self._own.schedule_state(scheduler, self._backend.scheduler_state(scheduler), there, rates)

    def _tell(self) -> None:
        """Says once what goes on otherwise than it would have there."""
        run, lines = self._run, list[str]()
        if self._renamed:
            return
        ours = [self._own.optimizer(item) for item in self._parts.optimizers]
        for number, ((source, _, _), target) in enumerate(zip(self._said.optimizers, ours, strict=True)):
            lines += [f"optimizer {number}: {line}" for line in disagreements(source, target, self._scheduled(number))]
        lines += of_layers(self._pairs)
        origin, own = self._snapshot.index["backend"], self._backend.name
        listed = "".join(f"\n  {line}" for line in lines)
        run.tell(
            f"crossed from {origin} to {own}: random streams begin anew from the seed"
            + (f"; what the two can't agree on:{listed}" if lines else "")
        )

    def _scheduled(self, number: int) -> bool:
        return self._parts.schedulers[number] is not None


def _is_buffer(one: Pair, key: Key) -> bool:
    return key[1] in BUFFERS or one.kind == BUFFER


def _word(name: optimizers.NeutralName) -> str:
    number, (path, role) = name
    return f"model_{number} {path}" + ("" if role == "value" else f": {role}")

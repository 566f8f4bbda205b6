"""Scripts that are drawn from a number, played: from beginning to end, and with interruptions.

After each interruption a script is resumed. Both ways it must leave the same, bit by bit.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import traceback
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dowdyboy_conformance.harnesses.harness import Harness

from ._data import Augmented
from ._problem import CLASSES, FEATURES, config, data, layers
from ._resuming import Killed
from ._scripts import VARIABLE, Event, Script, choose_interruptions, draw_script, numbers


class _Own:
    """A component with a state of its own, which the loss depends on."""

    def __init__(self) -> None:
        self.count = 0
        self.stream = random.Random(5)
        self.recent: deque[float] = deque(maxlen=3)
        self.mean = np.zeros(2)

    def factor(self, loss: float) -> float:
        self.count += 1
        self.recent.append(loss)
        self.mean += (loss - self.mean) / self.count
        return 1.0 + 0.1 * self.stream.random() + 0.01 * float(np.mean(self.recent)) + 0.01 * float(self.mean.sum())

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "stream": self.stream.getstate(), "recent": self.recent, "mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count, self.recent, self.mean = state["count"], state["recent"], state["mean"]
        self.stream.setstate(state["stream"])


class _Drawing:
    """A batch sampler of a user's own, which draws."""

    def __init__(self, samples: int, batch_size: int) -> None:
        self.samples, self.batch_size = samples, batch_size

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.permutation(self.samples).tolist()
        for begin in range(0, self.samples, self.batch_size):
            yield order[begin : begin + self.batch_size]

    def __len__(self) -> int:
        return -(-self.samples // self.batch_size)


class Play:
    """Plays one script in one folder.

    Args:
        harness: of the framework.
        script: what is played.
        out_dir: of the run.
        interruptions: where it is interrupted, and how: ``"kill"`` or ``"signal"``.
    """

    def __init__(
        self, harness: Harness, script: Script, out_dir: Path, interruptions: dict[Event, str] | None = None
    ) -> None:
        self.harness, self.script, self.out_dir = harness, script, out_dir
        self.left = dict(interruptions or {})
        self.events: list[Event] = []
        self.loss = harness.loss("cross_entropy")
        self.parts = 0

    def to_the_end(self) -> Any:
        """Plays, goes on after each interruption, and gives the trainer that came to the end."""
        while True:
            trainer = self._build()
            self.parts += 1
            try:
                self._fit(trainer)
                return trainer
            except (Killed, SystemExit) as error:
                if isinstance(error, SystemExit) and error.code != 143:
                    raise
            trainer._backend.barrier()
            found = [path for path in self.out_dir.glob("checkpoint/*epoch_*") if (path / "checkpoint.json").exists()]
            if not found and trainer.rank == 0:  # a new run's lines would stand behind those of this one
                shutil.rmtree(self.out_dir)
            trainer._backend.barrier()

    def _build(self) -> Any:
        script, harness = self.script, self.harness
        by_hand = "load by hand" in script.hooks
        quiet = {"enable_save_checkpoint": True, "resume": None if by_hand else "auto", **script.settings}
        trainer = harness.make_trainer(config(self.out_dir, **quiet))
        self.models = self._make_models()
        self.trained = [
            (f"{number} {path.rpartition('.')[0]}", parameter)
            for number, model in enumerate(self.models)
            for path, parameter in list(harness.native_parameters(model))[1:]
            if trainer._backend.wants_gradient(parameter)
        ]
        trainer.set_models(self.models)
        groups = [[model] for model in self.models] if len(script.optimizers) == 2 else [self.models]
        made = [
            harness.optimizer(name, group, 0.05, schedule=schedule, mode=script.settings["save_best_type"])
            for (name, schedule), group in zip(script.optimizers, groups, strict=True)
        ]
        trainer.set_optimizers([item.optimizer for item in made], [item.scheduler for item in made])
        self.own = _Own()
        trainer.set_components([self.loss, self.own])
        trainer.set_train_dataloader(self._make_loader())
        trainer.set_val_dataloader(harness.loader(harness.dataset(*data(script.samples, 1)), 3, shuffle=True))
        trainer.set_test_dataloader(harness.loader(harness.dataset(*data(5, 2)), 2))
        for folder in self.out_dir.glob("checkpoint/last_epoch_*") if by_hand else ():
            trainer.load_checkpoint(folder)
        return trainer

    def _make_models(self) -> list[Any]:
        harness, kind = self.harness, self.script.model
        further = harness.further_models()
        if kind in further:
            return [further[kind]()]
        if kind == "two":
            return [
                harness.model(layers(FEATURES, 3, FEATURES), dropout=0.3),
                harness.model(layers(FEATURES, CLASSES, seed=2)),
            ]
        if kind == "tied":
            model = harness.branched_model([*layers(FEATURES, CLASSES), *layers(FEATURES, CLASSES, seed=2)])
            model.fc1.weight = model.fc0.weight
            return [model]
        return [harness.model(layers(FEATURES, 4, CLASSES), batch_norm=kind == "norm", dropout=0.3)]

    def _make_loader(self) -> Any:
        harness, source, size = self.harness, self.script.source, self.script.batch_size
        augmented = Augmented(harness, self.script.samples)
        if source == "stream":
            return harness.loader(harness.stream(lambda: map(augmented.__getitem__, range(len(augmented)))), size)
        if source == "list":
            pairs = data(self.script.samples)
            begins = range(0, self.script.samples, size)
            return [[harness.tensor(array[begin : begin + size]) for array in pairs] for begin in begins]
        if source == "sampler":
            return harness.batched_by(augmented, _Drawing(self.script.samples, size))
        workers = 2 if source == "workers" else 0
        return harness.loader(augmented, size, shuffle=source != "ordered", workers=workers)

    # ---- the hooks

    def _fit(self, trainer: Any) -> None:
        validate = "validate" in self.script.hooks
        trainer.fit(
            self._train_step,
            self._val_step if validate else None,
            self._on_epoch_end,
            on_epoch_begin=self._on_epoch_begin,
            on_step_end=self._on_step_end,
        )

    def _pass_by(self, trainer: Any, *event: Any) -> None:
        self.events.append(event)
        if event == self.script.stop_at:
            trainer.stop()
        how = self.left.pop(event, None)
        if how == "kill":
            raise Killed
        if how == "signal" and trainer.rank == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    def _on_epoch_begin(self, trainer: Any, ep: int) -> None:
        if "freeze" in self.script.hooks:
            for part, parameter in self.trained:  # by layer, since a kernel may give gradients for all of one or none
                trains = random.Random(f"{self.script.number} {ep} {part}").random() < 0.7
                trainer._backend.set_wants_gradient(parameter, trains)
        if "draw" in self.script.hooks:
            drawn = random.random() + np.random.rand() + self.harness.draw()
            trainer.log({"begin": drawn}, trainer.global_step)
            trainer.set_records({"drawn": drawn})
        if not trainer.resuming:
            self._pass_by(trainer, "begin", ep, 0)

    def _scores(self, trainer: Any, features: Any) -> Any:
        models = trainer.get_models()
        if self.script.model == "two":
            return models[1](models[0](features))
        return models[0](features, True) if self.script.model == "tied" else models[0](features)

    def _train_step(self, trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        hooks, harness = self.script.hooks, self.harness
        loss = self.loss(self._scores(trainer, bat[0]), bat[1])
        value = float(harness.numpy(loss))
        if "own state" in hooks:
            loss = loss * self.own.factor(value)
        seen = harness.numpy(bat[0]).sum(axis=1)
        trainer.set_records({"train_loss": loss})
        if "samples" in hooks:
            trainer.set_records({"seen": seen}, samples=True)
        trainer.log({"loss": value, "seen": float(seen.sum()), "draw": random.random()}, global_step)
        if "test" in hooks and bat_idx == 1 and trainer.world_size == 1:
            trainer.test(self._test_step)
        if "label" in hooks and global_step == 2:
            trainer.save_checkpoint("marked")
        if not trainer.config.auto_optimize:
            self._step_by_hand(trainer, loss, global_step)
        self._pass_by(trainer, "train", trainer.epoch, bat_idx)
        return loss

    def _step_by_hand(self, trainer: Any, loss: Any, global_step: int) -> None:
        optimizers, _ = trainer.get_optimizers()
        for optimizer in optimizers:
            trainer.zero_grad(optimizer)
        trainer.backward(loss)
        for number, optimizer in enumerate(optimizers):
            if not number or global_step % 2:
                trainer.step(optimizer)

    def _on_step_end(self, trainer: Any, global_step: int) -> None:
        rates = [self.harness.learning_rate(item) for item in trainer.get_optimizers()[0]]
        trainer.log({f"rate {number}": rate for number, rate in enumerate(rates)}, global_step)
        self._pass_by(trainer, "step", trainer.epoch, global_step)

    def _val_step(self, trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        loss = self.loss(self._scores(trainer, bat[0]), bat[1])
        trainer.set_records({"val_loss": loss, "val_draw": self.harness.draw()})
        trainer.set_records({"val_seen": self.harness.numpy(bat[1])}, samples=True)
        self._pass_by(trainer, "val", trainer.epoch, bat_idx)
        return loss

    def _test_step(self, trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        loss = self.loss(self._scores(trainer, bat[0]), bat[1])
        trainer.set_records({"test_loss": loss, "test_draw": self.harness.draw()})

    def _on_epoch_end(self, trainer: Any, ep: int) -> None:
        if "test" in self.script.hooks:
            trainer.test(self._test_step, lambda trainer: self._log_records(trainer, "test"))
        self._log_records(trainer, "end")
        best = trainer.best
        trainer.log({"best": -1.0 if best is None else best[0]}, trainer.global_step)
        self._pass_by(trainer, "end", ep, 1)

    def _log_records(self, trainer: Any, name: str) -> None:
        """Logs what tells any two sequences of records apart."""
        records = {key: self.harness.numpy(value) for key, value in trainer.get_records().items()}
        digests = {f"{name} {key}": zlib.crc32(records[key].tobytes()) for key in sorted(records)}
        trainer.log({**digests, **{f"{key} count": len(records[key]) for key in sorted(records)}}, trainer.global_step)


def outcome(out_dir: Path) -> dict[str, bytes]:
    """All that a run leaves but its messages, to be compared bit by bit."""
    kept = [path for path in out_dir.rglob("*") if path.is_file() and path.suffix != ".log"]
    return {str(path.relative_to(out_dir)): path.read_bytes() for path in sorted(kept)}


def problem_of(harness: Harness, number: int, out_dir: Path) -> str | None:
    """What is wrong where a script is interrupted, and how to play it again alone; None if nothing is."""
    world = harness.make_trainer(config(out_dir / "first")).world_size
    script = draw_script(number, harness, world)
    chosen: dict[Event, str] = {}
    try:
        whole = Play(harness, script, out_dir / "whole")
        trainer = whole.to_the_end()
        chosen = choose_interruptions(script, trainer._backend.gather(whole.events)[0], world)
        Play(harness, script, out_dir / "parts", chosen).to_the_end()
        trainer._backend.barrier()
        different = _difference(out_dir / "parts", out_dir / "whole") if trainer.rank == 0 else ""
        text = trainer._backend.gather(different)[0]
    except Exception:
        text = traceback.format_exc()
    if not text:
        return None
    again = f"{VARIABLE}={number} pytest --pyargs dowdyboy_conformance.checks.test_scripts --backend ..."
    return f"{harness.name}, {world} processes, {script}\ninterrupted {chosen}\n{text}\nto play it again alone: {again}"


def _difference(parts: Path, whole: Path) -> str:
    """What the interrupted run has left otherwise."""
    found, expected = outcome(parts), outcome(whole)
    differing = [name for name in sorted({*found, *expected}) if found.get(name) != expected.get(name)]
    if not differing:
        shutil.rmtree(parts)
        shutil.rmtree(whole)
        return ""
    text = "these files differ: " + ", ".join(differing)
    one, other = (side.get("metrics.jsonl", b"").decode().splitlines() for side in (found, expected))
    for number, (line, right) in enumerate(zip(one, other, strict=False), start=1):
        if line != right:
            return f"{text}\nmetrics.jsonl, line {number}:\n  {line}\n  where the whole run has\n  {right}"
    return f"{text}\nmetrics.jsonl has {len(one)} lines, and {len(other)} of the whole run"


def play_all(harness: Harness, out_dir: Path, count: int) -> list[str]:
    """What is wrong with each of the scripts that are to be played and that is wrong, told on the screen, too."""
    problems = []
    for number in numbers(harness, count):
        problem = problem_of(harness, number, out_dir / str(number))
        if problem is not None:
            print(problem, file=sys.stderr, flush=True)
            problems.append(problem)
    return problems

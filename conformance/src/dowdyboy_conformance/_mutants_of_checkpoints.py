"""Mutants of how checkpoints are written and read, and of how a run stops."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from typing import Any

from dowdyboy_core import _checkpoint, _files, _persistence, _saving

from ._mutation import Mutant, TorchMutant, change


class WritesInTheLoop(Mutant):
    """Has the training wait for the disk."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._writer, "start", lambda original: lambda job: job())


class SavesWhatIsYetToCome(TorchMutant):
    """Saves the weights that the model has when they are written, not when they were to be saved."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def state(model: Any) -> Any:
                live = dict(model.state_dict())
                return {
                    name: array._replace(data=live[name].detach().view(-1).numpy().view("uint8"))
                    for name, array in original(model).items()
                }

            return state

        change(trainer._backend, "model_state", make)


class DigestsUnread(Mutant):
    """Reads files without looking at their digests."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def load(checkpoint_dir: Any, **named: Any) -> None:
                reader: Any = _files.FolderReader
                kept = reader._compare
                reader._compare = lambda self, name, digest: None
                try:
                    original(checkpoint_dir, **named)
                finally:
                    reader._compare = kept

            return load

        change(trainer, "load_checkpoint", make)


class IndexUnsealed(Mutant):
    """Takes any index that can be read."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def load(checkpoint_dir: Any, **named: Any) -> None:
                kept = _files._digest_of_index
                _files._digest_of_index = lambda content, said: json.loads(content).get("sha256")
                try:
                    original(checkpoint_dir, **named)
                finally:
                    _files._digest_of_index = kept

            return load

        change(trainer, "load_checkpoint", make)


class TextsUnchecked(Mutant):
    """Takes an index whose texts are of any kind."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def load(checkpoint_dir: Any, **named: Any) -> None:
                kept, _checkpoint._TEXTS = _checkpoint._TEXTS, ()
                try:
                    original(checkpoint_dir, **named)
                finally:
                    _checkpoint._TEXTS = kept

            return load

        change(trainer, "load_checkpoint", make)


class ReadsEverything(Mutant):
    """Reads files that it doesn't know."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def load(checkpoint_dir: Any, **named: Any) -> None:
                kept, _checkpoint._FILE = _checkpoint._FILE, re.compile(".*")
                try:
                    original(checkpoint_dir, **named)
                finally:
                    _checkpoint._FILE = kept

            return load

        change(trainer, "load_checkpoint", make)


class DeafToSignals(Mutant):
    """Notes no signal."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._stopping, "after_batch", lambda original: lambda phase: None)


class UserOverruled(Mutant):
    """Notes signals that the user has a handler for."""

    def spoil(self, trainer: Any) -> None:
        import signal

        def make(original: Any) -> Any:
            def listening() -> Any:
                signal.signal(signal.SIGTERM, trainer._stopping._note)
                return nullcontext()

            return listening

        change(trainer._stopping, "listening", make)


class ValidatesAgain(Mutant):
    """Begins a validation anew that was stopped."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def validate(ep: int, val_step: Any) -> None:
                trainer._position.val_batch = 0
                original(ep, val_step)

            return validate

        change(trainer, "_validate", make)


class BetterOneLost(Mutant):
    """Knows no best value but that of the resumed checkpoint."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._checkpoints, "best", lambda original: lambda: None)


class StopsAtTheEnd(Mutant):
    """Heeds a signal when all is done."""

    scenario = "stopping"

    def spoil(self, trainer: Any) -> None:
        for name in ("after_batch", "after_all"):
            change(trainer._stopping, name, lambda original: lambda phase: original(phase) and None)


def while_loading(trainer: Any, module: Any, name: str, replacement: Any) -> None:
    """Has a function of a module replaced while the trainer loads a checkpoint."""

    def make(original: Any) -> Any:
        def load(checkpoint_dir: Any, **named: Any) -> None:
            kept = getattr(module, name)
            setattr(module, name, replacement)
            try:
                original(checkpoint_dir, **named)
            finally:
                setattr(module, name, kept)

        return load

    change(trainer, "load_checkpoint", make)


class HalfLoaded(Mutant):
    """Leaves what was loaded before something was refused."""

    def spoil(self, trainer: Any) -> None:
        calls: list[int] = []
        original = _saving._load_states

        def load(*arguments: Any) -> None:
            calls.append(1)
            if len(calls) == 1:  # the second time is to put things back
                original(*arguments)

        while_loading(trainer, _saving, "_load_states", load)


class StreamsUntried(Mutant):
    """Takes anything for the state of random streams."""

    def spoil(self, trainer: Any) -> None:
        while_loading(trainer, _persistence, "check_streams", lambda *arguments: None)


class KindsMixed(Mutant):
    """Takes the state of any optimizer or scheduler for any other."""

    def spoil(self, trainer: Any) -> None:
        from dowdyboy_conformance.reference import _backend

        while_loading(trainer, _backend, "check_entries", lambda *arguments: None)


class OneDifferenceTold(Mutant):
    """Tells the first difference alone."""

    def spoil(self, trainer: Any) -> None:
        from dowdyboy_core._state import describe_differences as original

        while_loading(trainer, _saving, "describe_differences", lambda *arguments: original(*arguments)[:1])


class KeysTwice(Mutant):
    """Takes the last of two values under one key."""

    def spoil(self, trainer: Any) -> None:
        while_loading(trainer, _files, "_parse_json", json.loads)


class MeasuredByAnEarlierRun(Mutant):
    """Has the best value of an earlier run count for a resumed one."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def best_of_all() -> Any:
                found = trainer._checkpoints.best()
                if found is not None and trainer._improves(found["best"]):
                    return found["best"], found["best_epoch"]
                return original()

            return best_of_all

        change(trainer, "_best_of_all", make)


class RunsOfOneNumber(Mutant):
    """Numbers a run that goes back to an earlier epoch like the one that it leaves."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._checkpoints, "holds_later", lambda original: lambda index: False)

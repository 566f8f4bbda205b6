"""Mutants of what several processes do together."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from ._mutation import Mutant, TorchMutant, change, nothing


class EverythingEverywhere(Mutant):
    """Gives every process all training batches."""

    scenario = "dealing"

    def spoil(self, trainer: Any) -> None:
        _change_loader(trainer, "train", lambda loader: setattr(loader, "_share", type(loader._share)(0, 1)))


class EvaluationFilledUp(Mutant):
    """Fills up the last round of an evaluation, too."""

    scenario = "evaluation"

    def spoil(self, trainer: Any) -> None:
        _change_loader(trainer, "test", lambda loader: setattr(loader, "_fill_up", True))


def _change_loader(trainer: Any, role: str, spoil: Any) -> None:
    def make(original: Any) -> Any:
        def set_loader(which: str, loader: Any) -> None:
            original(which, loader)
            if which == role:
                spoil(trainer._parts.loaders[role])

        return set_loader

    change(trainer._parts, "set_loader", make)


class AugmentedByRank(Mutant):
    """Seeds the reading of a batch by its number in this process."""

    scenario = "dealing"

    def spoil(self, trainer: Any) -> None:
        def spoil(loader: Any) -> None:
            def make(original: Any) -> Any:
                def keys() -> Any:
                    for number, [key] in enumerate(original()):
                        yield [type(key)(number, key.indices)]

                return keys

            if hasattr(loader, "_keys"):
                change(loader, "_keys", make)

        _change_loader(trainer, "train", spoil)


class RecordsByRank(Mutant):
    """Puts the records of one process behind those of another."""

    scenario = "evaluation"

    def spoil(self, trainer: Any) -> None:
        def spoil(value: Any) -> Any:
            if isinstance(value, dict):
                for column in value.values():
                    if isinstance(column, dict) and "positions" in column:
                        column["positions"] = [trainer.rank] * len(column["positions"])
            return value

        change(trainer._backend, "gather", lambda original: lambda value: original(spoil(value)))


class RecordsAtHome(Mutant):
    """Doesn't bring the records of the processes together."""

    scenario = "schedules"

    def spoil(self, trainer: Any) -> None:
        change(trainer._records, "gather", nothing)


class GradientsAtHome(Mutant):
    """Never exchanges gradients."""

    scenario = "training"

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "prepare_model", lambda original: lambda model, **named: model)


class GradientsSummed(Mutant):
    """Adds the gradients of the processes up."""

    scenario = "training"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda loss, factor: original(loss, factor * trainer.world_size)

        change(trainer._backend, "backward", make)


class ExchangedEachBatch(Mutant):
    """Exchanges gradients within a window, too."""

    scenario = "training"

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "unsynchronised", lambda original: lambda models: nullcontext())


class BuffersAtHome(Mutant):
    """Leaves every process the buffers that it has."""

    scenario = "buffers"

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "align_untrained", nothing)


class NormAtHome(Mutant):
    """Computes BatchNorm over the batch of each process."""

    scenario = "training"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda model, *, sync_bn, **named: original(model, sync_bn=False, **named)

        change(trainer._backend, "prepare_model", make)


class ScheduledByEach(Mutant):
    """Steps a scheduler once for each process."""

    scenario = "schedules"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def step(scheduler: Any, value: Any) -> None:
                for _ in range(trainer.world_size):
                    original(scheduler, value)

            return step

        change(trainer._backend, "step_scheduler", make)


class OwnValues(Mutant):
    """Has each process follow its own value."""

    scenario = "own_values"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda value: [value, *original(value)[1:]] if isinstance(value, float) else original(value)

        change(trainer._backend, "gather", make)


class EqualStreams(Mutant):
    """Seeds every process alike."""

    scenario = "draws"

    def spoil(self, trainer: Any) -> None:
        change(trainer._streams, "seed", lambda original: lambda seed: original(7))


class EveryoneLogs(Mutant):
    """Logs in every process."""

    scenario = "files"

    def spoil(self, trainer: Any) -> None:
        change(trainer, "log", lambda original: _as_main(trainer, original))


def _as_main(trainer: Any, action: Any) -> Any:
    def log(*args: Any) -> None:
        trainer.is_main_process = lambda: True
        try:
            action(*args)
        finally:
            del trainer.is_main_process

    return log


class DivergenceUnseen(Mutant):
    """Takes the digests of the weights of all processes for equal."""

    scenario = "divergence"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def gather(value: Any) -> list[Any]:
                digests = isinstance(value, dict) and all(isinstance(item, int) for item in value.values())
                return [value] * trainer.world_size if digests and value else original(value)

            return gather

        change(trainer._backend, "gather", make)


class OneStreamSaved(Mutant):
    """Gives all processes the random streams of the first one when a run is resumed."""

    scenario = "resuming"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def continue_streams() -> None:
                if trainer._resumed is not None:
                    states = trainer._resumed.trees["rng"]
                    trainer._resumed.trees["rng"] = states[:1] * len(states)
                original()

            return continue_streams

        change(trainer, "_continue_streams", make)


class WrappedNames(Mutant):
    """Saves the names of the wrapped model."""

    scenario = "elsewhere"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def state(model: Any) -> Any:
                return {f"module.{name}": array for name, array in original(model).items()}

            return state

        change(trainer._backend, "model_state", make)


class ChangeUntold(Mutant):
    """Says nothing of another number of processes."""

    scenario = "elsewhere"

    def spoil(self, trainer: Any) -> None:
        change(trainer, "_warn", nothing)


class OverflowShared(TorchMutant):
    """Has every optimizer skip its step when one overflows."""

    def spoil(self, trainer: Any) -> None:
        overflowed: list[int] = []

        def make(original: Any) -> Any:
            def scale(optimizer: Any, factor: float, *, check: bool) -> bool:
                finite = original(optimizer, factor, check=check)
                if not finite:
                    overflowed.append(trainer.global_step)
                return finite and trainer.global_step not in overflowed

            return scale

        change(trainer._backend, "scale_gradients", make)


class RecordsOneByOne(Mutant):
    """Brings the records together name by name."""

    scenario = "exchanges"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def gather() -> None:
                for name in trainer.get_records():
                    trainer._backend.gather(name)
                original()

            return gather

        change(trainer._records, "gather", make)


class EveryLossGathered(Mutant):
    """Brings the loss of each batch together."""

    scenario = "exchanges"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def backward(loss: Any, factor: float) -> None:
                trainer._backend.gather(float(loss.detach()))
                original(loss, factor)

            return backward

        change(trainer._backend, "backward", make)

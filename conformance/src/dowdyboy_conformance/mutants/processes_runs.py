"""Mutants of several processes that make one run: schedules, files, checkpoints, exchanges, one end."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dowdyboy_conformance import reference
from dowdyboy_core import CheckpointError
from dowdyboy_core.backend import spawning as _spawning

from .mutant import Mutant, caught, change, nothing

if TYPE_CHECKING:
    from pytest import MonkeyPatch


@caught("W-10", "test_schedules_and_the_best_are_those_of_one_process")
class RecordsAtHome(Mutant):
    """Doesn't bring the records of the processes together."""

    scenario = "schedules"

    def spoil(self, trainer: Any) -> None:
        change(trainer._records, "gather", nothing)


@caught("W-10", "test_schedules_and_the_best_are_those_of_one_process")
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


@caught("W-10", "test_all_follow_the_value_of_the_first_process")
class OwnValues(Mutant):
    """Has each process follow its own value."""

    scenario = "own_values"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda value: [value, *original(value)[1:]] if isinstance(value, float) else original(value)

        change(trainer._backend, "gather", make)


@caught("W-12", "test_there_is_one_of_everything")
class EveryoneLogs(Mutant):
    """Logs in every process."""

    scenario = "files"

    def spoil(self, trainer: Any) -> None:
        change(trainer, "log", lambda original: _as_main(trainer, original))


def _as_main(trainer: Any, action: Any) -> Any:
    def log(*args: Any) -> None:
        rank, trainer._backend.rank = trainer._backend.rank, 0
        try:
            action(*args)
        finally:
            trainer._backend.rank = rank

    return log


@caught("W-13", "test_weights_that_differ_are_an_error_and_are_not_saved")
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


@caught("W-16", "test_a_resumed_run_of_several_is_bitwise_the_uninterrupted_one")
class OneStreamSaved(Mutant):
    """Gives all processes the random streams of the first one when a run is resumed."""

    scenario = "resuming"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def continue_streams() -> None:
                if trainer._saver.resumed.snapshot is not None:
                    states = trainer._saver.resumed.snapshot.trees["rng"]
                    trainer._saver.resumed.snapshot.trees["rng"] = states[:1] * len(states)
                original()

            return continue_streams

        change(trainer._saver.resumed, "continue_streams", make)


@caught("W-17", "test_a_checkpoint_serves_one_process")
@caught("C-4", "test_weights_are_plain_safetensors")
class WrappedNames(Mutant):
    """Saves the names of the wrapped model."""

    scenario = "elsewhere"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def state(model: Any) -> Any:
                return {f"module.{name}": array for name, array in original(model).items()}

            return state

        change(trainer._backend, "model_state", make)


@caught("W-17", "test_a_checkpoint_serves_one_process", "test_a_checkpoint_serves_more_processes")
class ChangeUntold(Mutant):
    """Says nothing of another number of processes."""

    scenario = "elsewhere"

    def spoil(self, trainer: Any) -> None:
        change(trainer._run, "warn", nothing)


@caught("W-20", "test_neither_batches_nor_names_need_exchanges_of_their_own")
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


@caught("W-20", "test_neither_batches_nor_names_need_exchanges_of_their_own")
class EveryLossGathered(Mutant):
    """Brings the loss of each batch together."""

    scenario = "exchanges"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def backward(loss: Any, factor: float) -> None:
                trainer._backend.gather(loss.item())
                original(loss, factor)

            return backward

        change(trainer._backend, "backward", make)


@caught("W-14", "test_a_branch_that_some_skip_is_an_error_without_it")
class UnusedUnminded(Mutant):
    """Looks for unused parameters without being asked to."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda model, **named: original(model, **{**named, "find_unused_parameters": True})

        change(trainer._backend, "prepare_model", make)


@caught("W-17", "test_processes_go_on_from_one_checkpoint_or_not_at_all")
class WhoUntold(Mutant):
    """Doesn't say which process can't go on."""

    scenario = "own_disks"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def read(*given: Any) -> Any:
                try:
                    return original(*given)
                except CheckpointError:
                    raise CheckpointError("Some process can't go on from the checkpoint.") from None

            return read

        change(trainer._saver, "_read_together", make)


@caught("W-19", "test_spawn_ends_as_its_processes_were_stopped")
class SpawnEndsInOrder(Mutant):
    """Ends spawn as if all were well where a signal has stopped its processes."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            def spawn(*given: Any) -> None:
                with suppress(SystemExit):
                    original(*given)

            return spawn

        change(reference, "spawn", make, patch)


def spawn(function: Any, nprocs: int, args: Any = ()) -> None:
    """Starts processes as the reference does, and leaves them behind when it is ended itself."""
    _spawning._Job._kill = nothing(None)  # type: ignore[method-assign] # in a process that is here for this alone
    reference.spawn(function, nprocs, args)


@caught("W-23", "test_a_second_signal_ends_all_that_spawn_has_started")
class LeavesOrphans(Mutant):
    """Leaves the processes that it has started to themselves when a second signal ends it."""

    module = __name__

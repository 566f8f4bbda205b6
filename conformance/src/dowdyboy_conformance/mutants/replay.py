"""Mutants of on_epoch_begin at a resume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dowdyboy_conformance._inside import inside

from .mutant import Mutant, caught, change, nothing

if TYPE_CHECKING:
    from pytest import MonkeyPatch

_resumed = inside("_run.resumed")
_AGAIN = "test_what_the_hook_did_by_epoch_is_done_again"


@caught("H-10", _AGAIN)
class NotAgain(Mutant):
    """Takes the state up without running the hook again."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._replay, "again", nothing)


@caught("H-10", _AGAIN)
class FinishedEpochsAlone(Mutant):
    """Runs the hook again for the epochs that were over, and for the one under way when that goes on."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(inside("_run.replay"), "epochs_begun", lambda original: lambda index: index["epoch"], patch)


@caught("H-10", _AGAIN)
class AfterTheState(Mutant):
    """Runs the hook again when the state is in place."""

    def spoil(self, trainer: Any) -> None:
        replay, resumed = trainer._replay, trainer._saver.resumed
        again = replay.again
        change(replay, "again", nothing)

        def make(original: Any) -> Any:
            def put_in_place(folder: Any, snapshot: Any, *given: Any, **named: Any) -> None:
                original(folder, snapshot, *given, **named)
                again(snapshot.index)

            return put_in_place

        change(resumed, "put_in_place", make)


@caught("H-10", _AGAIN)
class SaysNothingOfResuming(Mutant):
    """Has the hook run again as if its epoch began."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def hook(ep: int) -> None:
                trainer._replay.resuming = False
                original(ep)

            return hook

        def make_begin(original: Any) -> Any:
            return lambda hook: original(None if hook is None else make(hook))

        change(trainer._replay, "begin", make_begin)


@caught("H-10", _AGAIN)
class DrawsOtherNumbers(Mutant):
    """Has the hook draw on from wherever the streams are."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._replay, "_seed", nothing)


@caught("H-10", "test_what_the_hook_does_not_do_again_is_told")
class ToldAtOnce(Mutant):
    """Says what the script has frozen otherwise before the hook has run, and not after it."""

    def spoil(self, trainer: Any) -> None:
        resumed = trainer._saver.resumed

        def make(original: Any) -> Any:
            def put_in_place(folder: Any, snapshot: Any, weights_only: bool, tells: bool = True, **names: Any) -> None:
                original(folder, snapshot, weights_only, not tells, **names)

            return put_in_place

        change(resumed, "put_in_place", make)


@caught("H-10", _AGAIN)
class KeepsWhatItRecorded(Mutant):
    """Keeps what the hook records when it runs again."""

    def spoil(self, trainer: Any) -> None:
        change(trainer, "_begin_epoch", lambda original: lambda ep, hook: hook(trainer, ep))


@caught("H-10", _AGAIN)
class StopsInTheReplay(Mutant):
    """Takes trainer.stop() at its word when the hook runs again."""

    def spoil(self, trainer: Any) -> None:
        change(trainer, "stop", lambda original: trainer._stopping.request)


@caught("H-10", "test_what_is_changed_after_loading_stays")
class LogsAgain(Mutant):
    """Logs again what the hook logs."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def log(values: Any, step: int) -> None:
                before, trainer._replay.resuming = trainer._replay.resuming, False
                original(values, step)
                trainer._replay.resuming = before

            return log

        change(trainer, "log", make)


@caught("H-11", "test_what_is_changed_after_loading_stays")
class LeavesWhatTheHookDid(Mutant):
    """Doesn't put back a state that was in place when the hook ran again."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(inside("_run.replay"), "apply_all", nothing, patch)


@caught("H-11", "test_what_fits_only_after_the_hook_waits_for_fit")
class NeverWaits(Mutant):
    """Refuses at once what would fit after the hook."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_resumed, "epochs_begun", lambda original: lambda index: 0, patch)


@caught("H-11", "test_without_a_hook_nothing_waits")
class AlwaysWaits(Mutant):
    """Has whatever doesn't fit wait for fit."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            def read(*given: Any, **named: Any) -> Any:
                snapshot = original(*given, **named)
                snapshot.index["on_epoch_begin"] = True
                return snapshot

            return read

        change(_resumed, "read_snapshot", make, patch)

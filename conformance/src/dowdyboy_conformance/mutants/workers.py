"""Mutants of the processes that read for a loader."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from dowdyboy_conformance.reference import _data
from dowdyboy_core.backend import pool as _pool
from dowdyboy_core.backend import sent_errors as _sent_errors
from dowdyboy_core.backend import streams as _streams
from dowdyboy_core.backend import workers as _workers

from .mutant import Mutant, caught, change, nothing

if TYPE_CHECKING:
    from pytest import MonkeyPatch


@caught("D-11", "test_a_worker_begins_with_the_users_own_dataset")
class StandInTold(Mutant):
    """Leaves a worker with what the core puts in the place of the dataset."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_data._Workers, "tell", nothing, patch)


@caught("S-4", "test_a_stream_that_draws_does_not_depend_on_restarts_or_workers_that_stay")
class StreamsUnseeded(Mutant):
    """Reads a stream in a worker with the random streams that this began with."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_streams.StreamKeys, "begin", lambda original: lambda self, seed, epoch: original(self, seed, 1), patch)


@caught("D-12", "test_an_error_while_reading_is_the_users_own", "test_python_s_own_errors_stay_what_they_are")
class ErrorsOfAnotherKind(Mutant):
    """Raises what a worker has raised as a RuntimeError with its text."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_sent_errors.Failure, "error", lambda original: lambda self: RuntimeError(self._text), patch)


@caught("D-12", "test_a_batch_that_cannot_be_sent_is_refused")
class UnsendableInOtherWords(Mutant):
    """Says of what couldn't be sent what Python says."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_workers, "unsendable", lambda original: lambda error, who: RuntimeError(str(error)), patch)


@caught("D-13", "test_a_worker_that_is_no_more_is_named", "test_the_timeout_of_the_loader_is_kept")
class WorkersUnnamed(Mutant):
    """Leaves the framework to say that a worker is no more, or late."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_pool.WorkerWatch, "_explanation", nothing, patch)


@caught("D-13", "test_a_long_wait_is_told_once")
class WaitsWithoutAWord(Mutant):
    """Waits for a worker without telling."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_pool.WorkerWatch, "_late", lambda original: lambda self, waited: "", patch)


@caught("D-13", "test_a_worker_frees_nothing_of_its_parents")
class CollectsItsParents(Mutant):
    """Lets a worker's garbage collector at what its parent has made."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_pool, "forks_apart", lambda original: nullcontext, patch)

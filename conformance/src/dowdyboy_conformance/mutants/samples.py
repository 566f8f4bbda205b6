"""Mutants of records whose first axis counts samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dowdyboy_conformance._inside import inside

from .mutant import Mutant, caught, change

if TYPE_CHECKING:
    from pytest import MonkeyPatch

_records = inside("_run.records")


@caught("R-8", "test_samples_are_joined")
class ShortBatchLeftOut(Mutant):
    """Gives the samples of those batches alone that are as large as the first."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            return lambda backend, values, dtype: original(
                backend, [value for value in values if len(value) == len(values[0])], dtype
            )

        change(_records, "join_samples", make, patch)


@caught("R-8", "test_samples_are_copies")
class SamplesAlias(Mutant):
    """Keeps the tensor of samples itself."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "keep_tensor", lambda original: lambda value: value)


@caught("R-8", "test_what_are_no_samples_is_refused")
class BothWays(Mutant):
    """Takes a name with and without samples."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_records, "check_way", lambda original: lambda *given: None, patch)


@caught("R-9", "test_the_best_by_samples_is_the_mean_over_samples")
class MeanOfBatchMeans(Mutant):
    """Takes the mean of the means of batches for the best value."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def mean(tensor: Any) -> float:
                batches = [item for column in trainer._records._columns.values() for item in column.values]
                return sum(float(batch.mean()) for batch in batches if batch.dtype == bool) / 2

            return mean

        change(trainer._backend, "mean", make)


@caught("R-9", "test_samples_are_in_the_order_of_one_process")
class SamplesByRank(Mutant):
    """Puts the samples of one process behind those of another."""

    scenario = "samples"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def gather(value: Any) -> Any:
                if isinstance(value, dict) and "number" in value:
                    for column in value.values():
                        column["positions"] = [trainer.rank] * len(column["positions"])
                return original(value)

            return gather

        change(trainer._backend, "gather", make)


@caught("R-9", "test_samples_are_whole_after_a_resume")
class SamplesStartOver(Mutant):
    """Takes up no samples of an epoch that had begun."""

    scenario = "samples"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def load_state(state: Any) -> None:
                before_training = trainer._interlude.phase is None
                original({} if before_training else state)

            return load_state

        change(trainer._records, "load_state", make)

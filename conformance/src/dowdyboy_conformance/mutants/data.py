"""Mutants of which batches there are, what is in them, and which random numbers they are read with."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dowdyboy_conformance._inside import inside
from dowdyboy_conformance.reference.framework.tensor import Tensor
from dowdyboy_core.backend import RandomStreams
from dowdyboy_core.backend import orders as _order
from dowdyboy_core.backend import reading as _reading
from dowdyboy_core.rand import derive_seed

from .mutant import Mutant, caught, change, change_loaders, nothing

if TYPE_CHECKING:
    from pytest import MonkeyPatch

_epochs = inside("_run.epochs")


@caught("D-2", "test_each_role_has_an_order_of_its_own")
class RolesAlike(Mutant):
    """Takes the order of validation and of tests from the seed of training."""

    def spoil(self, trainer: Any) -> None:
        change_loaders(trainer, lambda loader: setattr(loader, "_seed", derive_seed(trainer.config.seed, "train")))


@caught("D-3", "test_a_short_last_batch_is_the_loaders_choice")
class ShortBatchDropped(Mutant):
    """Leaves a last batch out that is not full, whatever the loader says."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            return lambda self, order, size, drop_last: original(self, order, size, True)

        change(_order.FixedSizeBatches, "__init__", make, patch)


@caught("D-4", "test_the_frameworks_own_collate_serves_dicts_with_text")
class TextsLeftOut(Mutant):
    """Leaves out of a batch what is no tensor."""

    def spoil(self, trainer: Any) -> None:
        def tensors(batch: Any) -> Any:
            return {key: item for key, item in batch.items() if isinstance(item, Tensor)}

        change(trainer._backend, "to_device", lambda original: tensors)


@caught("D-10", "test_workers_end_with_the_run_that_they_read_for")
class WorkersGoOn(Mutant):
    """Leaves workers to themselves when a run ends before its data."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._parts, "close_loaders", nothing)


@caught("D-6", "test_data_without_indices_starts_afresh_each_epoch")
class StreamRunsOn(Mutant):
    """Starts a stream once, and reads on in it."""

    def spoil(self, trainer: Any) -> None:
        def spoil(loader: Any) -> None:
            parts = loader._split()
            running = parts.batches()
            loader._split = lambda: replace(parts, batches=lambda: running)

        change_loaders(trainer, spoil)


@caught("D-7", "test_a_batch_sampler_is_told_the_epoch")
class EpochsFromZero(Mutant):
    """Tells a sampler the epochs from 0."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_epochs, "tell_epoch", lambda original: lambda loader, epoch: original(loader, epoch - 1), patch)


@caught("D-8", "test_data_that_comes_in_batches")
class LastItemLeftOut(Mutant):
    """Leaves out the last item of data that comes in batches, as if it were a batch that is not full."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            return lambda self, seed, epoch: iter([*original(self, seed, epoch)][:-1])

        change(_order.SingleIndices, "batches", make, patch)


@caught("D-9", "test_arrays_in_a_batch_are_what_the_frameworks_own_loader_makes_of_them")
class ArraysConverted(Mutant):
    """Makes tensors of the arrays in a batch, which its framework's own loader doesn't do."""

    def spoil(self, trainer: Any) -> None:
        def converted(batch: Any) -> Any:
            arrays = {key: item for key, item in batch.items() if isinstance(item, np.ndarray)}
            return {**batch, **{key: Tensor(item) for key, item in arrays.items() if item.dtype.kind in "biuf"}}

        change(trainer._backend, "to_device", lambda original: converted)


# ---- random numbers


@caught("S-1", "test_a_trainer_seeds_the_global_streams")
class NothingSeeded(Mutant):
    """Leaves the random streams as they are."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(RandomStreams, "seed", nothing, patch)


@caught("S-3", "test_two_runs_are_bitwise_equal")
class SeededByTheClock(Mutant):
    """Seeds a run by the time of day."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._run.streams, "seed", lambda original: lambda seed: original(time.time_ns()))


@caught("S-4", "test_augmentation_differs_from_batch_to_batch_and_epoch_to_epoch")
class BatchesSeededAlike(Mutant):
    """Seeds the reading of every batch alike."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            return lambda self, keys: original(self, [_reading.BatchKey(7, key.indices) for key in keys])

        change(_reading.ReadBatch, "__call__", make, patch)


@caught("S-4", "test_augmentation_depends_on_neither_workers_nor_restart")
@caught("D-5", "test_the_sequences_dealt_out_are_what_they_should_be")
class WorkersUnseeded(Mutant):
    """Leaves workers the random streams that they began with."""

    scenario = "dealing"

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            def read(self: Any, keys: Any) -> Any:
                return original(self, keys) if os.getpid() == self._home else self._read(keys[0].indices)

            return read

        change(_reading.ReadBatch, "__call__", make, patch)

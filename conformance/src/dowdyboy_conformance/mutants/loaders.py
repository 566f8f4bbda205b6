"""Mutants of how loaders are read: as they are, as they are now, to an end, and by the process that they are for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from dowdyboy_conformance._inside import inside
from dowdyboy_conformance.reference import _data
from dowdyboy_core.backend import Share
from dowdyboy_core.backend import orders as _order

from .mutant import Mutant, caught, change, change_loaders

if TYPE_CHECKING:
    from pytest import MonkeyPatch

_epochs = inside("_run.epochs")


@caught("D-14", "test_a_loader_that_reads_in_a_way_of_its_own_is_run_as_it_is")
class OwnWayIgnored(Mutant):
    """Takes every loader apart, whatever it does by itself."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_data, "reads_for_itself", lambda original: lambda kind, native, names: False, patch)


@caught("D-14", "test_a_run_goes_on_within_an_epoch_of_such_a_loader")
class OwnWayNotSkipped(Mutant):
    """Begins anew with a loader that reads for itself when a run goes on within an epoch."""

    def spoil(self, trainer: Any) -> None:
        def spoil(loader: Any) -> None:
            change(loader, "epoch", lambda original: lambda epoch, start=0: original(epoch, 0))

        change_loaders(trainer, spoil)


@caught("D-14", "test_a_subclass_that_reads_as_its_framework_does_is_taken_apart")
class AnySubclassForeign(Mutant):
    """Takes no subclass apart."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_data, "reads_for_itself", lambda original: lambda kind, native, names: kind is not native, patch)


@caught("D-15", "test_an_epoch_is_made_of_what_is_there_when_it_begins")
class ReadOnce(Mutant):
    """Takes a loader apart once, when it is set."""

    def spoil(self, trainer: Any) -> None:
        def spoil(loader: Any) -> None:
            parts = loader._split()
            loader._split = lambda: parts

        change_loaders(trainer, spoil)


@caught("D-16", "test_a_sampler_without_an_end_is_refused")
class EndlessCutOff(Mutant):
    """Takes as much of a sampler without an end as it likes."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            return lambda self: [list(batch) for batch in islice(self._sampler, 10)]

        change(_order.SamplerOrder, "_drawn", make, patch)


@caught("D-17", "test_everything_is_told_the_epoch")
class SamplersToldAlone(Mutant):
    """Tells the batch sampler the epoch, and nothing else."""

    def alter(self, patch: MonkeyPatch) -> None:
        def tell(loader: Any, epoch: int) -> None:
            told = getattr(getattr(loader, "batch_sampler", None), "set_epoch", None)
            if told is not None:
                told(epoch)

        change(_epochs, "tell_epoch", lambda original: tell, patch)


@caught("D-18", "test_a_loader_gives_what_it_gives_by_hand")
class LastBatchLost(Mutant):
    """Loses the last batch of a batch sampler."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            return lambda self, seed, epoch: iter([*original(self, seed, epoch)][:-1])

        change(_order.SampledBatches, "batches", make, patch)


# ---- several processes


@caught(
    "W-21", "test_data_that_is_dealt_out_already_is_taken_as_it_is", "test_a_sampler_for_other_processes_is_refused"
)
class DealtTwice(Mutant):
    """Deals out what is dealt out already."""

    scenario = "parts"

    def spoil(self, trainer: Any) -> None:
        change_loaders(trainer, lambda loader: change(loader, "_dealing", lambda original: lambda parts: None))


@caught("W-21", "test_data_that_differs_between_processes_is_refused_in_all")
class NothingCompared(Mutant):
    """Doesn't look at the first batches."""

    scenario = "parts"

    def spoil(self, trainer: Any) -> None:
        change_loaders(trainer, lambda loader: setattr(loader, "_looked", True))


@caught("W-21", "test_other_data_is_dealt_out_as_ever")
class DeclaredInVain(Mutant):
    """Doesn't hear that data is not dealt out."""

    scenario = "parts"

    def spoil(self, trainer: Any) -> None:
        def spoil(loader: Any) -> None:
            change(loader, "_dealing", lambda original: lambda parts: original(parts) or None)

        change_loaders(trainer, spoil)


class _Alike(Share):
    """Counts the batches of each process by themselves."""

    def number(self, place: int) -> int:
        return place


@caught("W-21", "test_what_a_stream_that_is_dealt_out_draws_is_another_thing_in_each_process")
class DrawnAlike(Mutant):
    """Has all processes draw the same for their batches."""

    scenario = "parts"

    def spoil(self, trainer: Any) -> None:
        def spoil(loader: Any) -> None:
            share = loader._share
            loader._share = _Alike(share.rank, share.world_size)

        change_loaders(trainer, spoil)


@dataclass(frozen=True)
class _Hasty:
    """Has all processes stop when one has no batch left."""

    exchange: Any

    def gather(self, value: Any) -> list[Any]:
        """As ever."""
        found: list[Any] = self.exchange.gather(value)
        return found

    def largest(self, numbers: Any) -> list[int]:
        """Says that nobody goes on."""
        ended, going, over = self.exchange.largest(numbers)
        return [ended, 0 if ended else going, over]


@caught(
    "W-22",
    "test_unequal_numbers_of_batches_are_told_by_all_before_one_waits",
    "test_the_last_round_of_a_stream_that_is_dealt_out_is_filled_up",
)
class ShortestDecides(Mutant):
    """Ends an epoch where the first process has no more batches, without a word."""

    scenario = "parts"

    def spoil(self, trainer: Any) -> None:
        def spoil(loader: Any) -> None:
            loader._compared = replace(loader._compared, exchange=_Hasty(loader._compared.exchange))

        change_loaders(trainer, spoil)

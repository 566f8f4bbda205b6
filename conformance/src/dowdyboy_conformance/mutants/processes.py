"""Mutants of what several processes compute together."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from dowdyboy_conformance.reference import _distributed

from .mutant import Mutant, caught, change, change_loaders, nothing


@caught("W-2", "test_training_batches_are_dealt_out")
class EverythingEverywhere(Mutant):
    """Gives every process all training batches."""

    scenario = "dealing"

    def spoil(self, trainer: Any) -> None:
        change_loaders(trainer, lambda loader: setattr(loader, "_share", type(loader._share)(0, 1)), "train")


@caught("W-4", "test_evaluation_is_that_of_one_process_to_the_last_bit")
class EvaluationFilledUp(Mutant):
    """Fills up the last round of an evaluation, too."""

    scenario = "evaluation"

    def spoil(self, trainer: Any) -> None:
        change_loaders(trainer, lambda loader: setattr(loader, "_fill_up", True), "test")


@caught("W-3", "test_training_batches_are_dealt_out")
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

            def opened(original: Any) -> Any:
                def open_loader(parts: Any, share: Any) -> Any:
                    inner = original(parts, share)
                    change(inner, "keys", make)
                    return inner

                return open_loader

            change(loader, "_map_loader", opened)

        change_loaders(trainer, spoil, "train")


@caught("W-5", "test_evaluation_is_that_of_one_process_to_the_last_bit")
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


@caught("W-6", "test_training_is_that_of_one_process_on_the_joined_batches")
class GradientsAtHome(Mutant):
    """Never exchanges gradients."""

    scenario = "training"

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "prepare_model", lambda original: lambda model, **named: model)


@caught("W-6", "test_training_is_that_of_one_process_on_the_joined_batches")
class GradientsSummed(Mutant):
    """Adds the gradients of the processes up."""

    scenario = "training"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda loss, factor: original(loss, factor * trainer.world_size)

        change(trainer._backend, "backward", make)


@caught("W-7", "test_gradients_stay_at_home_until_the_window_closes")
class ExchangedEachBatch(Mutant):
    """Exchanges gradients within a window, too."""

    scenario = "training"

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "unsynchronised", lambda original: lambda models: nullcontext())


@caught("W-8", "test_buffers_are_those_of_the_first_process")
class BuffersAtHome(Mutant):
    """Leaves every process the buffers that it has."""

    scenario = "buffers"

    def spoil(self, trainer: Any) -> None:
        change(trainer._backend, "align_untrained", nothing)


@caught("W-9", "test_sync_bn_is_batch_norm_over_the_joined_batch")
class NormAtHome(Mutant):
    """Computes BatchNorm over the batch of each process."""

    scenario = "training"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda model, *, sync_bn, **named: original(model, sync_bn=False, **named)

        change(trainer._backend, "prepare_model", make)


@caught("W-11", "test_processes_draw_different_numbers")
class EqualStreams(Mutant):
    """Seeds every process alike."""

    scenario = "draws"

    def spoil(self, trainer: Any) -> None:
        change(trainer._run.streams, "seed", lambda original: lambda seed: original(7))


@caught("W-1", "test_each_process_knows_its_place")
class EveryoneIsMain(Mutant):
    """Takes every process for the first of its machine."""

    scenario = "facts"

    def spoil(self, trainer: Any) -> None:
        change(trainer, "is_local_main_process", lambda original: lambda: True)


@caught("W-6", "test_models_that_train_against_each_other_are_those_of_one_process")
class FirstModelAlone(Mutant):
    """Exchanges the gradients of the first model alone."""

    scenario = "adversaries"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            return lambda model, **named: model if trainer._backend._exchanges._made else original(model, **named)

        change(trainer._backend, "prepare_model", make)


@caught("W-14", "test_a_branch_that_some_skip_is_trained_with_find_unused_parameters")
class MeanOfThoseThatHaveOne(Mutant):
    """Takes the mean of a gradient over the processes that have one."""

    scenario = "branches"

    def spoil(self, trainer: Any) -> None:
        if trainer.world_size > 1:  # in a process that was started for this, and is not used for anything else
            change(_distributed, "_set_mean", lambda original: lambda item, all_own: original(item, _present(all_own)))


def _present(gradients: list[Any]) -> list[Any]:
    return [gradient for gradient in gradients if gradient is not None]


@caught("W-15", "test_an_overflow_is_one_of_all_processes_and_of_one_optimizer")
class OverflowAtHome(Mutant):
    """Has only the process skip a step whose own loss overflowed."""

    scenario = "overflow"

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def scale(optimizer: Any, factor: float, *, check: bool) -> bool:
                finite: bool = original(optimizer, factor, check=check)
                return finite or trainer.rank < trainer.world_size - 1

            return scale

        change(trainer._backend, "scale_gradients", make)

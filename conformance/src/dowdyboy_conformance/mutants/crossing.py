"""Mutants of runs that cross from one framework to another."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dowdyboy_conformance._inside import inside
from dowdyboy_conformance.reference._exchange import NumpyVocabulary
from dowdyboy_core.backend import ModelWords, Rules

from .mutant import Mutant, caught, change, nothing

if TYPE_CHECKING:
    from pytest import MonkeyPatch

_GOES_ON = "test_a_run_goes_on_in_another_framework"
_BYTES = "test_there_and_back_again_every_file_is_equal_to_the_byte"
_LISTED = "test_what_has_no_pair_is_listed_and_nothing_is_loaded"


@caught("C-40", "test_a_checkpoint_says_what_its_tensors_are")
class SaysNothing(Mutant):
    """Says of no layer what it is."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            return lambda self, model: ModelWords(())

        change(NumpyVocabulary, "model", make, patch)


def _square_as_they_lie(original: Any) -> Any:
    """Takes arrays whose axes lie otherwise as they are, if they are square."""

    def placed(place: Any, array: Any) -> Any:
        square = len(place.stored) == 2 and place.stored[0] == place.stored[1]
        return array if square and place.axes is not None else original(place, array)

    return placed


@caught("C-41", _GOES_ON, "test_the_weights_of_all_models_and_components_cross")
class NoTranspose(Mutant):
    """Leaves axes as they lie, of weights that are square."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(inside("_exchange.weights"), "to_neutral", _square_as_they_lie, patch)
        change(inside("_exchange.optimizers"), "to_neutral", _square_as_they_lie, patch)


@caught("C-41", _GOES_ON)
class SlotsNotTransposed(Mutant):
    """Leaves axes as they lie, of the optimizer's slots of weights that are square."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(inside("_exchange.optimizers"), "to_neutral", _square_as_they_lie, patch)


@caught("C-41", _GOES_ON, "test_the_weights_of_all_models_and_components_cross")
class RowsSwapped(Mutant):
    """Takes the last rows of a tensor for the first, as gates in another order are."""

    def alter(self, patch: MonkeyPatch) -> None:
        words = inside("backend.words")

        def make(original: Any) -> Any:
            def placed(place: Any, array: Any) -> Any:
                if place.rows is not None:
                    first, last = place.rows
                    rows = (place.stored[0] - last, place.stored[0] - first)
                    place = words.Place(place.array, place.stored, rows, place.axes, place.flat)
                return original(place, array)

            return placed

        change(inside("_exchange.weights"), "to_neutral", _square_as_they_lie, patch)


@caught("C-43", _BYTES)
@caught("C-41", _GOES_ON)
class StepsOffByOne(Mutant):
    """Counts a step too many of what crosses."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            return lambda slot, steps, dtype, shape: original(slot, steps + 1, dtype, shape)

        change(inside("_exchange.optimizers"), "slot_of", make, patch)


@caught("C-43", _BYTES)
@caught("C-41", _GOES_ON)
class PowersBeginAnew(Mutant):
    """Has the powers of the betas begin anew."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            def slot_of(slot: Any, steps: int, dtype: str, shape: Any) -> Any:
                return original(slot, 0 if "power" in slot.form else steps, dtype, shape)

            return slot_of

        change(inside("_exchange.optimizers"), "slot_of", make, patch)


@caught("C-43", _BYTES)
@caught("C-41", _GOES_ON)
class ScheduleStepsEarly(Mutant):
    """Takes up a scheduler one step further than it was."""

    def alter(self, patch: MonkeyPatch) -> None:
        crossing = inside("_run.crossing")

        def make(original: Any) -> Any:
            def schedule(self: Any, number: int, scheduler: Any, there: Any, rates: Any) -> Any:
                moved = None if there is None else replace(there, position=there.position + 1)
                return original(self, number, scheduler, moved, rates)

            return schedule

        change(crossing._Crossing, "_schedule", make, patch)


@caught("C-41", "test_the_weights_of_all_models_and_components_cross")
class BuffersDropped(Mutant):
    """Leaves running statistics as they begin."""

    def alter(self, patch: MonkeyPatch) -> None:
        arrays = inside("_exchange.arrays")

        def make(original: Any) -> Any:
            def converted(*given: Any) -> Any:
                found = original(*given)
                fresh = {
                    name: arrays.filled(array.dtype, tuple(array.shape), 0.0)
                    for name, array in found.items()
                    if name.endswith("running_mean")
                }
                return found | fresh

            return converted

        change(inside("_exchange.weights"), "converted", make, patch)


@caught("C-43", _BYTES)
class PassengersDropped(Mutant):
    """Leaves behind what the other framework has no place for."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(inside("_exchange.weights"), "left_behind", lambda original: lambda stored, pairs: ({}, []), patch)


@caught("C-43", _BYTES)
class SlotsRounded(Mutant):
    """Keeps no slot as it was that doesn't come back to the bit."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(inside("_exchange.optimizers"), "inexact", lambda original: lambda *given: {}, patch)


@caught("C-42", "test_names_say_which_layer_is_which")
class NamesIgnored(Mutant):
    """Pairs by the paths alone."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(inside("_exchange.pairing"), "renamed", lambda original: lambda path, names: path, patch)


@caught("C-42", _LISTED)
class UnpairedSkipped(Mutant):
    """Skips what has no pair."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            def pair(source: Any, target: Any, names: Any = None) -> Any:
                pairs, _ = original(source, target, names)
                found = {key: one for key, one in pairs.items() if None not in (one.source, one.target)}
                return found, []

            return pair

        change(inside("_run.crossing"), "pair", make, patch)


@caught("C-42", "test_a_class_of_the_users_own_crosses_when_it_is_registered")
class KindsIgnored(Mutant):
    """Pairs by the paths, whatever stands there."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(inside("_exchange.pairing"), "_unlike", lambda original: lambda *given: None, patch)


@caught("C-41", "test_a_run_goes_on_elsewhere_within_an_epoch")
class RecordsLeftBehind(Mutant):
    """Takes up a run without the records of its unfinished epoch."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            def whole(self: Any, weights_only: bool) -> Any:
                found = original(self, weights_only)
                found.trees["records"] = {}
                return found

            return whole

        change(inside("_run.crossing")._Crossing, "whole", make, patch)


@caught("C-41", "test_streams_begin_anew_from_the_seed_and_that_is_told")
@caught("C-38", "test_what_can_not_agree_is_said_once")
class CrossesInSilence(Mutant):
    """Says nothing of what goes on otherwise."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(inside("_run.crossing")._Crossing, "_tell", lambda original: lambda self: None, patch)


@caught("C-42", "test_names_rename_in_a_framework_of_its_own_and_lose_nothing")
class RenamingCrosses(Mutant):
    """Begins the random streams anew where only paths have other names."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            def whole(self: Any, weights_only: bool) -> Any:
                found = original(self, weights_only)
                found.trees["rng"] = []
                return found

            return whole

        change(inside("_run.crossing")._Crossing, "whole", make, patch)


@caught("C-21", "test_a_hostile_description_is_refused")
class DescriptionBelieved(Mutant):
    """Takes any number of a description for one."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(inside("backend.words"), "is_count", lambda original: lambda value: type(value) is int, patch)


@caught("C-21", "test_hostile_passengers_are_refused")
class PassengersLate(Mutant):
    """Looks at what is carried along only when everything is in place."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(inside("_run.described"), "check", lambda original: lambda snapshot: None, patch)


@caught("C-42", "test_names_of_another_kind_are_refused")
class AnyNames(Mutant):
    """Takes anything for names."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(inside("trainer"), "check_names", nothing, patch)
        change(inside("_exchange.pairing"), "renamed", lambda original: lambda path, names: path, patch)
        patch.setitem(inside("_config")._CHECKS, "resume_names", lambda name, value: None)


@caught("C-42", "test_a_rule_of_another_kind_is_refused")
class AnyRule(Mutant):
    """Takes anything for a rule."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(Rules, "register", nothing, patch)


@caught("C-42", "test_a_class_without_a_rule_is_refused_by_name")
class FrameworksOwnForUsers(Mutant):
    """Takes the framework's own classes for the user's, whose tensors lie alike everywhere."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(Rules, "is_own", lambda original: lambda self, cls: False, patch)


@caught("C-41", "test_another_kind_of_optimizer_or_schedule_is_refused")
class AnyKindOfOptimizer(Mutant):
    """Takes up the state of any kind of optimizer."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(inside("_exchange.optimizers"), "check_kinds", nothing, patch)


@caught("C-21", "test_passengers_of_another_shape_are_refused")
class PassengersOfAnyShape(Mutant):
    """Takes what is carried along as it is."""

    def alter(self, patch: MonkeyPatch) -> None:
        arrays = inside("backend.trees")

        def make(original: Any) -> Any:
            def load_state(self: Any, tree: Any) -> None:
                original(self, tree)
                self.exact = {}
                self.passengers = {
                    name: {key: arrays.Array(item.dtype, item.shape[1:], item.data[: len(item.data) // 2])
                           for key, item in found.items()}
                    for name, found in self.passengers.items()
                }  # fmt: skip

            return load_state

        change(inside("_run.carried").Carried, "load_state", make, patch)

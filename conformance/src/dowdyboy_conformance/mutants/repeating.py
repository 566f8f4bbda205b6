"""Mutants of what streams draw in workers, and of generators that data keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dowdyboy_conformance._inside import inside

from .mutant import Mutant, caught, change, nothing

if TYPE_CHECKING:
    from pytest import MonkeyPatch

_streams = inside("backend.streams")
_generators = inside("_run.generators")
_NAMED = "test_generators_that_data_keeps_are_named_once"


@caught("D-22", "test_what_a_stream_draws_in_workers_follows_from_seed_pass_and_worker")
class WorkersDrawAlike(Mutant):
    """Has all workers begin a stream with the same numbers."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            return lambda seed, *keys: seed if keys[:1] == ("worker",) else original(seed, *keys)

        change(_streams, "derive_seed", make, patch)


@caught("D-23", _NAMED)
class NamesNoGenerators(Mutant):
    """Says nothing of generators that data keeps."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._parts, "tell_generators", nothing)


@caught("D-23", _NAMED)
class LooksAtAttributesAlone(Mutant):
    """Looks for generators among the attributes of the dataset, and not within these."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_generators, "_DEPTH", lambda original: 1, patch)


@caught("D-23", _NAMED)
class AsksForAttributes(Mutant):
    """Looks for generators by asking objects of the user's for what they have."""

    def alter(self, patch: MonkeyPatch) -> None:
        def attributes(item: Any) -> Any:
            return {name: getattr(item, name) for name in dir(item) if not name.startswith("__")}

        change(_generators, "_attributes", lambda original: attributes, patch)


@caught("D-23", "test_what_keeps_no_generator_is_not_named")
class LooksIntoNoFunctions(Mutant):
    """Passes functions over."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_generators, "_LEAVES", lambda original: (*original, _generators.FunctionType), patch)


@caught("D-23", "test_the_lines_that_are_told_make_it_exact")
class SeedsBatchesByPlace(Mutant):
    """Seeds what is drawn for a batch by its place behind where a run went on."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def set_loader(role: str, loader: Any) -> None:
                original(role, loader)
                epochs = trainer._parts.loaders[role]
                begin = epochs.epoch

                def epoch(number: int, start: int = 0) -> Any:
                    epochs._seed += start
                    return begin(number, start)

                epochs.epoch = epoch

            return set_loader

        change(trainer._parts, "set_loader", make)

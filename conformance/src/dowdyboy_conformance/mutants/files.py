"""Mutants of what is in the files of a checkpoint, and of what is asked of one before it is taken up."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from dowdyboy_conformance._inside import inside
from dowdyboy_conformance.reference import _backend, _state

from .mutant import Mutant, caught, change, nothing

if TYPE_CHECKING:
    from pytest import MonkeyPatch

_files = inside("_disk.files")
_checkpoint = inside("_run.checkpoints")
_resumed = inside("_run.resumed")
_snapshots = inside("_run.snapshots")


@caught("C-2", "test_the_index_says_where_the_run_stands")
class EpochUnderWay(Mutant):
    """Has the index count the epoch that comes next as one that is over."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def snapshot() -> Any:
                made = original()
                made.index["epoch"] += 1
                return made

            return snapshot

        change(trainer._saver, "_snapshot", make)


@caught("C-3", "test_every_file_is_listed_with_its_digest")
class FileUnlisted(Mutant):
    """Leaves a file in a checkpoint that the index doesn't name."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def save(kind: str, epoch: int, content: Any) -> Any:
                there = original(kind, epoch, content)
                (trainer._saver.checkpoints.path / f"{kind}_{epoch}" / "done").touch()
                return there

            return save

        change(trainer._saver.checkpoints, "save", make)


@caught("C-4", "test_buffers_and_components_are_saved_too")
class ComponentsUnsaved(Mutant):
    """Saves models alone, and no components."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._parts, "modules_of_components", lambda original: dict)


@caught("C-5", "test_optimizer_state_goes_by_the_paths_of_parameters")
class ParametersNumbered(Mutant):
    """Saves the state of an optimizer by the numbers of its parameters."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def state(optimizer: Any, names: Any) -> Any:
                return original(optimizer, {id(item): str(number) for number, item in enumerate(optimizer.parameters)})

            return state

        change(trainer._backend, "optimizer_state", make)


@caught("C-17", "test_the_digest_of_the_index_is_as_the_specification_says")
class DigestOfTheRest(Mutant):
    """Takes the digest of the index before it has a place in it."""

    def alter(self, patch: MonkeyPatch) -> None:
        def sealed(index: Any) -> bytes:
            digest = hashlib.sha256(_files.dump_json(index)).hexdigest()
            return bytes(_files.dump_json({**index, "sha256": digest}))

        change(_files, "_sealed", lambda original: sealed, patch)


# ---- what is asked of it


@caught("C-9", "test_a_smaller_model_is_refused_too")
class TooMuchIsFine(Mutant):
    """Leaves out the weights that the model has no place for."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            return lambda stored, wanted: [line for line in original(stored, wanted) if "not in the model" not in line]

        change(_snapshots, "describe_differences", make, patch)


@caught("C-9", "test_an_optimizer_of_other_parameters_is_refused")
class GroupsUncompared(Mutant):
    """Doesn't compare the parameters of an optimizer with those that were saved."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_state, "check_groups", nothing, patch)


@caught("C-9", "test_another_setup_is_refused")
class SchedulerMadeUp(Mutant):
    """Leaves a scheduler as it is that the checkpoint knows nothing of."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            def check(parts: Any, snapshot: Any, folder: Any) -> Any:
                for number, scheduler in enumerate(parts.schedulers):
                    if scheduler is not None and snapshot.trees.get(f"lr_scheduler_{number}") is None:
                        snapshot.trees[f"lr_scheduler_{number}"] = scheduler.state()
                return original(parts, snapshot, folder)

            return check

        change(_snapshots, "_check_optimizers", make, patch)


@caught("C-9", "test_what_is_refused_changes_no_weight")
class WeightsFirst(Mutant):
    """Loads the weights before it looks at the rest."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            def apply(run: Any, snapshot: Any, folder: Any, **named: Any) -> None:
                _snapshots.apply_weights(run.backend, run.parts, snapshot, folder)
                original(run, snapshot, folder, **named)

            return apply

        change(_resumed, "apply_all", make, patch)


@caught("C-10", "test_a_damaged_index_is_refused")
class AnyVersion(Mutant):
    """Reads an index of any format version."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            def parse(content: bytes) -> Any:
                found = original(content)
                return {**found, "format_version": 1} if isinstance(found, dict) and "format" in found else found

            return parse

        change(_files, "parse_json", make, patch)


@caught("C-16", "test_a_checkpoint_without_a_description_is_for_its_own_backend")
class AnyBackend(Mutant):
    """Takes what nothing is said of for its own."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            def crossed(run: Any, snapshot: Any, *others: Any, **options: Any) -> Any:
                if snapshot.trees.get("exchange") is None:
                    snapshot.index["backend"] = run.backend.name
                return original(run, snapshot, *others, **options)

            return crossed

        change(_resumed, "crossed", make, patch)


@caught("C-21", "test_an_index_without_a_backend_gives_no_weights")
class IndexUnread(Mutant):
    """Looks at nothing that the index says where the weights alone are wanted."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            return lambda folder, index, weights_only: None if weights_only else original(folder, index, weights_only)

        change(_checkpoint, "_check_index", make, patch)


@caught("C-10", "test_a_damaged_file_is_refused")
@caught("C-17", "test_every_changed_byte_and_every_cut_is_noticed")
class DigestsUnread(Mutant):
    """Reads files without looking at their digests."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_files.FolderReader, "_compare", nothing, patch)


@caught("C-17", "test_every_changed_byte_and_every_cut_is_noticed")
class IndexUnsealed(Mutant):
    """Takes any index that can be read."""

    def alter(self, patch: MonkeyPatch) -> None:
        def digest(content: bytes, said: Any) -> Any:
            return json.loads(content).get("sha256")

        change(_files, "_digest_of_index", lambda original: digest, patch)


@caught("C-21", "test_an_index_with_a_field_of_another_kind_is_refused")
class TextsUnchecked(Mutant):
    """Takes an index whose texts are of any kind."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_checkpoint, "_TEXTS", lambda original: (), patch)


@caught("C-22", "test_what_is_not_known_is_ignored")
class ReadsEverything(Mutant):
    """Reads files that it doesn't know."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_checkpoint, "_FILE", lambda original: re.compile(".*"), patch)


@caught("C-9", "test_nothing_of_what_is_refused_is_left")
class HalfLoaded(Mutant):
    """Leaves what was loaded before something was refused."""

    def alter(self, patch: MonkeyPatch) -> None:
        calls: list[int] = []

        def make(original: Any) -> Any:
            def load(*given: Any) -> None:
                calls.append(1)
                if len(calls) == 1:  # the second time is to put things back
                    original(*given)

            return load

        change(_snapshots, "_load_states", make, patch)


@caught("C-21", "test_a_hostile_checkpoint_is_refused")
class StreamsUntried(Mutant):
    """Takes anything for the state of random streams."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_resumed, "check_streams", nothing, patch)


@caught("C-9", "test_another_kind_of_optimizer_or_scheduler_is_refused")
class KindsMixed(Mutant):
    """Takes the state of any optimizer or scheduler for any other."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_backend, "check_entries", nothing, patch)


@caught("C-9", "test_all_differences_are_told_at_once", "test_weights_that_do_not_fit_are_listed")
class OneDifferenceTold(Mutant):
    """Tells the first difference alone."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_snapshots, "describe_differences", lambda original: lambda *given: original(*given)[:1], patch)


@caught("C-21", "test_a_hostile_checkpoint_is_refused")
class KeysTwice(Mutant):
    """Takes the last of two values under one key."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_files, "parse_json", lambda original: json.loads, patch)

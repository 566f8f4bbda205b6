"""Mutants of the configuration, and of what is told at once of what can't be had."""

from __future__ import annotations

import dataclasses
import difflib
from typing import TYPE_CHECKING, Any

from dowdyboy_conformance._inside import inside
from dowdyboy_core import ConfigError, TrainerConfig

from .mutant import Mutant, caught, change, nothing

if TYPE_CHECKING:
    from pytest import MonkeyPatch

_config = inside("_config")
_run = inside("_run.run")
_overruled = inside("_run.overruled")


@caught("F-1", "test_the_fields_have_these_defaults")
class OtherDefault(Mutant):
    """Saves every fifth epoch, unless it is told otherwise."""

    def alter(self, patch: MonkeyPatch) -> None:
        [field] = [field for field in dataclasses.fields(TrainerConfig) if field.name == "save_interval"]
        change(field, "default", lambda original: 5, patch)


@caught("F-2", "test_a_configuration_is_keyword_only_and_frozen")
class ConfigurationThaws(Mutant):
    """Lets a configuration be changed after its values were checked."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(TrainerConfig, "__setattr__", lambda original: object.__setattr__, patch)


@caught("F-3", "test_a_field_that_there_is_not_is_refused")
class NoNearestField(Mutant):
    """Doesn't say which field may have been meant."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(difflib, "get_close_matches", lambda original: lambda *_: [], patch)


@caught("F-3", "test_a_bad_value_is_refused_at_once")
class BoolForInt(Mutant):
    """Takes True for the number 1."""

    def alter(self, patch: MonkeyPatch) -> None:
        check = _config._CHECKS["epoch"]
        patch.setitem(_config._CHECKS, "epoch", lambda name, value: value is True or check(name, value))


@caught("F-4", "test_out_dir_is_made_with_its_parents")
class ParentsWanted(Mutant):
    """Makes the folder of a run only where the one above it is there."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_run, "make_folder", lambda original: lambda folder: folder.mkdir(exist_ok=True), patch)


@caught("F-4", "test_out_dir_that_cannot_be_made_is_refused")
class SystemsOwnError(Mutant):
    """Leaves it to the system's own error to say that a folder can't be made."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            def writable(out_dir: Any) -> Any:
                out_dir.mkdir(parents=True, exist_ok=True)
                return original(out_dir)

            return writable

        change(_run, "_writable", make, patch)


@caught("F-5", "test_an_unknown_viewer_is_refused")
@caught("F-7", "test_windows_need_auto_optimize")
class EachFieldAlone(Mutant):
    """Checks each field by itself, and neither with another one nor with what the backend has."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_run, "_check_config", nothing, patch)


@caught("F-6", "test_a_device_has_these_forms")
class NoCuda(Mutant):
    """Knows a GPU as 'gpu', and not as 'cuda'."""

    def alter(self, patch: MonkeyPatch) -> None:
        _change_request(patch, lambda config, ask: _refuse(config) if "cuda" in str(config.device) else ask())


@caught("F-6", "test_another_device_is_refused")
class NumberedCpu(Mutant):
    """Takes 'cpu:1' for the CPU."""

    def alter(self, patch: MonkeyPatch) -> None:
        cpu = _config.DeviceRequest("cpu")
        _change_request(patch, lambda config, ask: cpu if str(config.device).startswith("cpu:") else ask())


@caught("F-6", "test_devices_that_contradict_are_refused")
class CpuWins(Mutant):
    """Has cpu=True win over a GPU that is asked for as well."""

    def alter(self, patch: MonkeyPatch) -> None:
        cpu = _config.DeviceRequest("cpu")
        _change_request(patch, lambda config, ask: cpu if config.cpu else ask())


def _change_request(patch: MonkeyPatch, request: Any) -> None:
    """Has ``request(config, ask)`` say what device a configuration asks for; ``ask()`` gives the right answer."""

    def make(original: Any) -> Any:
        return property(lambda config: request(config, lambda: original.fget(config)))

    change(TrainerConfig, "device_request", make, patch)


def _refuse(config: TrainerConfig) -> Any:
    raise ConfigError(f"device={config.device!r} is not understood.")


@caught("F-8", "test_a_name_that_is_no_file_name_is_refused")
class AnyName(Mutant):
    """Takes any text for a name."""

    def alter(self, patch: MonkeyPatch) -> None:
        patch.setitem(_config._CHECKS, "name", _config._text)


@caught("F-9", "test_the_cpu_can_be_asked_for")
class DeviceRenamed(Mutant):
    """Gives the device a name of its own."""

    def spoil(self, trainer: Any) -> None:
        change(trainer, "device", lambda original: lambda: "processor 0")


@caught("P-2", "test_the_precision_in_force_is_told")
class PrecisionUntold(Mutant):
    """Says nothing where the precision that was asked for can't be had."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            return lambda asked, backend, warn: original(asked, backend, lambda text: None)

        change(_run, "_enable_precision", make, patch)


@caught(
    "C-31",
    "test_what_the_checkpoint_overrules_is_told_once",
    "test_the_length_of_a_schedule_and_the_precision_are_told",
)
class OverrulesInSilence(Mutant):
    """Says nothing of the numbers that a checkpoint overrules."""

    def spoil(self, trainer: Any) -> None:
        change(trainer._run.script, "compare", lambda original: lambda trees: [])


@caught("C-31", "test_what_the_checkpoint_overrules_is_told_once")
class MovedIsChanged(Mutant):
    """Compares the script with what a schedule has made of its numbers."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def compare(trees: Any) -> Any:
                began = {name: _overruled._flat(trees.get(name)) for name in trees["script"]}
                return original({**trees, "script": began})

            return compare

        change(trainer._run.script, "compare", make)


@caught("C-31", "test_what_the_checkpoint_overrules_is_told_once")
class BeginsAnew(Mutant):
    """Forgets at a resume what the run began with."""

    def spoil(self, trainer: Any) -> None:
        script = trainer._run.script
        change(script, "take_up", lambda original: lambda stored: original(None))


@caught("C-31", "test_what_the_checkpoint_overrules_is_told_once")
class SeedUntold(Mutant):
    """Says nothing of a seed that is another."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_overruled, "of_settings", lambda original: lambda *_: [], patch)


@caught("C-31", "test_weights_alone_overrule_nothing")
class WeightsOverrule(Mutant):
    """Tells of other settings where the weights alone are taken."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def put(folder: Any, snapshot: Any, weights_only: bool, tells: bool = True, **names: Any) -> None:
                original(folder, snapshot, weights_only, tells, **names)
                rows = _overruled.of_settings(snapshot.index, trainer.config.seed, trainer._run.precision)
                if weights_only and rows:
                    trainer._run.warn(_overruled.described(str(folder), rows))

            return put

        change(trainer._saver.resumed, "put_in_place", make)

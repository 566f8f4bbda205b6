"""Mutants of what a distribution gives: names, exceptions, the trainer's interface, and the utilities."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dowdyboy_conformance import reference
from dowdyboy_conformance.reference import _distributed, args, assist, dataset_util, log
from dowdyboy_conformance.reference import rand as own_rand
from dowdyboy_core import DowdyboyError, TrainerConfig, rand
from dowdyboy_core.args import parse_json_args, parse_yaml_args

from .mutant import Mutant, caught, change

if TYPE_CHECKING:
    from pytest import MonkeyPatch


@caught("A-1", "test_a_distribution_exports_these_names")
class BackendExported(Mutant):
    """Exports its backend, too."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(reference, "__all__", lambda names: [*names, "NumpyBackend"], patch)


@caught("A-2", "test_a_public_module_has_these_names")
class HelperLeftOut(Mutant):
    """Hands on the helpers of assist but for one."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(assist, "__all__", lambda names: names[1:], patch)


@caught("A-3", "test_the_trainer_has_these_methods")
class ParameterRenamed(Mutant):
    """Calls a parameter by another name than the other backends."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            def print(self: Any, text: object) -> None:
                original(self, text)

            return print

        change(reference.Trainer, "print", make, patch)


@caught("A-4", "test_what_the_trainer_tells_cannot_be_set")
class EpochSettable(Mutant):
    """Lets the epoch be set, which changes nothing."""

    def alter(self, patch: MonkeyPatch) -> None:
        def setter(self: Any, value: int) -> None:
            """Takes it, and forgets it."""

        change(reference.Trainer, "epoch", lambda original: original.setter(setter), patch)


@caught("A-5", "test_a_trainer_takes_a_trainer_config_only")
class DictTaken(Mutant):
    """Takes a dict for a configuration."""

    def make_trainer(self, config: Any) -> Any:
        if not isinstance(config, dict):
            return super().make_trainer(config)
        with tempfile.TemporaryDirectory() as folder:
            return super().make_trainer(TrainerConfig(cpu=True, out_dir=folder, **config))


@caught("A-6", "test_one_is_a_list_of_one")
class OwnListGiven(Mutant):
    """Hands out its own list of models, which a script may then change."""

    def spoil(self, trainer: Any) -> None:
        change(trainer, "get_models", lambda original: lambda: trainer._parts.models)


@caught("A-6", "test_missing_schedulers_are_none")
class NoPlaceForNone(Mutant):
    """Leaves an optimizer without a scheduler out of the list of schedulers."""

    def spoil(self, trainer: Any) -> None:
        def make(original: Any) -> Any:
            def get_optimizers() -> Any:
                optimizers, schedulers = original()
                return optimizers, [item for item in schedulers if item is not None]

            return get_optimizers

        change(trainer, "get_optimizers", make)


@caught("A-8", "test_one_process_is_the_main_process")
class CountedFromOne(Mutant):
    """Counts the processes of a machine from 1."""

    def spoil(self, trainer: Any) -> None:
        trainer._backend.local_rank += 1


@caught("A-8", "test_half_of_a_launcher_is_refused")
class AloneInstead(Mutant):
    """Trains alone where a launcher has not said everything."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(_distributed, "from_environment", lambda original: lambda: (0, 0, 1), patch)


@caught("X-1", "test_the_exceptions_are_what_python_calls_them")
class NoValueError(Mutant):
    """Has a ConfigError that is no ValueError."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(reference, "ConfigError", lambda original: type("ConfigError", (DowdyboyError,), {}), patch)


# ---- utilities


@caught("U-1", "test_typed_options_win_over_the_file_and_that_over_defaults")
class FileWins(Mutant):
    """Has the file of options win over what was typed."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            def parse(parser: Any, argv: Any = None) -> Any:
                typed = original(parser, argv)
                read = parse_json_args if Path(typed.config).suffix == ".json" else parse_yaml_args
                return read(typed, typed.config)

            return parse

        change(args, "parse_args", make, patch)


@caught("U-2", "test_output_sizes_of_convolutions")
class SizesRoundedUp(Mutant):
    """Rounds the size that a convolution gives up."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            def size(in_size: Any, k: Any, s: Any = 1, p: Any = 0) -> Any:
                return original(in_size, k, s, p) if isinstance(in_size, tuple) else original(in_size + s - 1, k, s, p)

            return size

        change(assist, "get_conv_out_size", make, patch)


@caught("U-3", "test_set_seed_seeds_all_streams")
class FrameworkUnseeded(Mutant):
    """Seeds Python's and NumPy's streams, and not the framework's."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(own_rand, "set_seed", lambda original: rand.set_seed, patch)


@caught("U-3", "test_the_wheel")
class WheelEvenlyDivided(Mutant):
    """Gives each weight an equal chance, also that of zero."""

    def alter(self, patch: MonkeyPatch) -> None:
        def draw(weights: Any, rng: Any = random) -> int:
            return int(rng.randrange(len(weights)))

        change(own_rand, "wheel_rand_index", lambda original: draw, patch)


@caught("S-6", "test_derived_seeds_are_the_same_everywhere")
class SeedsOfThisProcess(Mutant):
    """Derives seeds by Python's own hash, which is another one in each process."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(own_rand, "derive_seed", lambda original: lambda *keys: hash(keys) >> 1, patch)


@caught("U-4", "test_the_log_goes_to_a_file_too")
class WarningsUnmarked(Mutant):
    """Writes warnings as if they were information."""

    def alter(self, patch: MonkeyPatch) -> None:
        change(log, "warn", lambda original: log.log, patch)


@caught("U-5", "test_a_split_loses_no_file")
class SplitByChance(Mutant):
    """Chooses other files each time, whatever the seed."""

    def alter(self, patch: MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            return lambda *folders, seed=0, **named: original(*folders, seed=random.randrange(2**32), **named)

        change(dataset_util, "split_val_dataset_image_folder", make, patch)


@caught("U-6", "test_numbers_in_files_mean_what_they_look_like")
class NumbersOfYaml11(Mutant):
    """Takes numbers in YAML for what YAML 1.1 takes them for."""

    def alter(self, patch: MonkeyPatch) -> None:
        import yaml

        def parse(namespace: Any, path: Any, encoding: str = "utf-8") -> Any:
            return type(namespace)(**{**vars(namespace), **yaml.safe_load(Path(path).read_text(encoding))})

        change(args, "parse_yaml_args", lambda original: parse, patch)

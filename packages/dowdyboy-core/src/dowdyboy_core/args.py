"""Options of a script: from the command line, from a JSON or YAML file, and from the parser's defaults."""

from __future__ import annotations

import argparse
import copy
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from dowdyboy_core._utilities import args as _args
from dowdyboy_core._utilities import options as _options

from ._errors import ConfigError

__all__ = ["parse_args", "parse_json_args", "parse_yaml_args"]

_FilePath: TypeAlias = "str | os.PathLike[str]"


def parse_json_args(args: argparse.Namespace, path: _FilePath, encoding: str = "utf-8") -> argparse.Namespace:
    """A new Namespace: that of ``args``, its values replaced and extended by those of a JSON file.

    ``-`` in a key becomes ``_``, in nested mappings too. Nothing is checked against a parser, as
    ``parse_args`` does. ``args`` stays as it was; its values are copied, except those that can't be, such as
    an open file.

    Args:
        args: The parsed options to start from.
        path: A file that holds one JSON object.
        encoding: The file's text encoding.

    Raises:
        ConfigError: The file can't be read, is not a JSON object, names a key twice (``a-b`` and ``a_b`` count
            as one), or holds a number that is too large for a float.
    """
    return _merged(args, _options.read(path, encoding, _options.parse_json).values)


def parse_yaml_args(args: argparse.Namespace, path: _FilePath, encoding: str = "utf-8") -> argparse.Namespace:
    """A new Namespace: that of ``args``, its values replaced and extended by those of a YAML file.

    As ``parse_json_args``. Only plain YAML is read, never tags that build Python objects. An empty file has
    no keys. ``1e-3`` and ``0o17`` are numbers, as in YAML 1.2; PyYAML alone would make them texts. ``yes``,
    ``no``, ``on`` and ``off`` are true and false, and ``2024-01-02`` is a date, as in YAML 1.1: put texts of
    this kind in quotes.

    Args:
        args: The parsed options to start from.
        path: A file that holds one YAML mapping.
        encoding: The file's text encoding.

    Raises:
        ConfigError: As for ``parse_json_args``; also for a tag that would build a Python object, and for a
            number that is read as another one than it looks, as ``010`` (8) and ``12:30`` (750).
    """
    return _merged(args, _options.read(path, encoding, _options.parse_yaml).values)


def parse_args(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a script, where what is typed wins over ``--config FILE``, and that over the defaults.

    ``--config`` is added to the parser, and to its subparsers, unless it is there. FILE ends in .json, .yaml
    or .yml. Its keys name an option by its dest or by an option string, with ``-`` or ``_``: for
    ``--no-cuda`` with dest ``cuda`` both ``cuda: false`` and ``no-cuda: true`` do. Its values are converted
    and checked by the parser as typed ones are. Lists serve nargs and append (if the option is typed, the
    file's list goes), true and false serve flags, null is taken where the default is None, and a required
    option may stand in the file. With subcommands the file may hold the options of all of them; those of the
    typed one are used.

    What is wrong in the file ends the program through ``parser.error``, as a wrong typed value does; with
    exit_on_error=False it raises argparse.ArgumentError. The parser can be used again afterwards. With a file
    it runs twice, so type converters should have no side effects.

    Args:
        parser: A parser that knows the script's options.
        argv: What was typed; without it ``sys.argv[1:]``.

    Raises:
        ConfigError: The parser can't have a ``--config``: another option has its dest, or its own takes
            something else than one path.
    """
    parsers = list(_args.all_parsers(parser))
    options = [_args.config_option(each, None if each is parser else argparse.SUPPRESS) for each in parsers]
    tokens = list(sys.argv[1:] if argv is None else argv)
    typed = _args.typed_so_far(parsers, tokens)
    path = next((typed[option] for option in reversed(options) if option in typed), None)
    path = parser.get_default(options[0].dest) if path is None else path
    if path is None or path is argparse.SUPPRESS:
        return parser.parse_args(tokens)
    if not isinstance(path, (str, os.PathLike)):
        raise ConfigError(f"--config gave {path!r}, not a path. Let the parser's own --config take one path.")
    try:
        settings = _file_settings(path, parsers, _args.active(parser, typed), set(options))
    except ConfigError as err:
        _args.fail(parser, options[0], str(err))
    return _args.parse_with(parsers, tokens, settings)


def _file_settings(
    path: _FilePath,
    parsers: Sequence[argparse.ArgumentParser],
    chosen: Sequence[argparse.ArgumentParser],
    skipped: set[argparse.Action],
) -> _args.Settings:
    kinds = {".json": _options.parse_json, ".yaml": _options.parse_yaml, ".yml": _options.parse_yaml}
    parse = kinds.get(Path(path).suffix.lower())
    if parse is None:
        raise ConfigError(f"{os.fspath(path)} does not end in .json, .yaml or .yml. Give a file that does.")
    found = _options.read(path, "utf-8", parse)
    try:
        return _args.settings(found, parsers, chosen, skipped)
    except ConfigError as err:
        raise ConfigError(f"{os.fspath(path)}: {err}") from err


def _merged(args: argparse.Namespace, values: Mapping[str, Any]) -> argparse.Namespace:
    if not isinstance(args, argparse.Namespace):
        raise ConfigError(f"args={args!r} is not an argparse.Namespace. Give what parser.parse_args() gave.")
    kept = {name: _copied(value) for name, value in vars(args).items() if name not in values}
    # Built in the order of args, so that a printed Namespace keeps its order.
    return argparse.Namespace(**{**{name: kept.get(name) for name in vars(args)}, **values})


def _copied(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except (TypeError, copy.Error):  # an open file, a lock, a module
        return value

"""How ``args.parse_args`` works on an argparse parser: what was typed, and what a file of options would set.

It leans on ``_get_values``, ``_get_value``, ``_check_value`` and ``_match_argument`` of ArgumentParser, which
have kept their meaning since Python 3.2: with them a value from a file goes through the checks of a typed
one.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

from dowdyboy_core._errors import ConfigError

from .options import Options

__all__ = [
    "Settings",
    "active",
    "all_parsers",
    "config_option",
    "fail",
    "parse_with",
    "settings",
    "typed_so_far",
]

_Parser: TypeAlias = argparse.ArgumentParser
_Typed: TypeAlias = dict[argparse.Action, Any]
Settings: TypeAlias = dict[argparse.Action, dict[str, Any]]
# What a key of a file may mean: an action, and the option string it names, or None where it names the dest.
_Names: TypeAlias = dict[str, list[tuple[argparse.Action, "str | None"]]]


def all_parsers(parser: _Parser) -> Iterator[_Parser]:
    """The parser and every subparser below it, each once although aliases name it again."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in dict.fromkeys(action.choices.values()):
                yield from all_parsers(child)


def active(parser: _Parser, typed: _Typed) -> list[_Parser]:
    """The parser and the subparsers that were chosen, the innermost first."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and action in typed:
            return [*active(action.choices[typed[action][0]], typed), parser]
    return [parser]


def config_option(parser: _Parser, default: Any) -> argparse.Action:
    """The parser's ``--config``, which is added if it is not there."""
    flag = "--config" if "-" in parser.prefix_chars else parser.prefix_chars[0] * 2 + "config"
    for action in parser._actions:
        if flag in action.option_strings:
            return action
    for action in parser._actions:
        if action.dest == "config":
            name = "/".join(action.option_strings) or "a positional argument"
            raise ConfigError(f"{name} stores into 'config', which {flag} FILE needs. Give it another dest.")
    text = "JSON or YAML file of option values; what is typed wins over it"
    return parser.add_argument(flag, dest="config", metavar="FILE", default=default, help=text)


def fail(parser: _Parser, option: argparse.Action, message: str) -> NoReturn:
    """End as argparse ends for a wrong typed value."""
    error = argparse.ArgumentError(option, message)
    if parser.exit_on_error:
        parser.error(str(error))
    raise error


# ------------------------------------------------------------------------------------------- the command line


class _StopError(Exception):
    """Raised in place of parser.error while the command line is only being looked at."""


@contextlib.contextmanager
def _replaced(owner: object, **attributes: Any) -> Iterator[None]:
    """Give one object other attributes while the block runs."""
    own = vars(owner)
    before = {name: own[name] for name in attributes if name in own}
    own.update(attributes)
    try:
        yield
    finally:
        for name in attributes:
            del own[name]
        own.update(before)


@contextlib.contextmanager
def _watched(parsers: Iterable[_Parser]) -> Iterator[_Typed]:
    """Note each action that the command line itself gives while the block parses, and its value.

    Comparing with the default would not do: a value may be typed that equals it.
    """
    typed: _Typed = {}

    def noting(parser: _Parser) -> Callable[[argparse.Action, list[str]], Any]:
        convert = parser._get_values

        def get_values(action: argparse.Action, strings: list[str]) -> Any:
            # A positional that may be left out is converted too, from no strings.
            given = bool(action.option_strings) or any(each != "--" for each in strings)
            value = convert(action, strings)
            if given:
                typed[action] = value
            return value

        return get_values

    with contextlib.ExitStack() as stack:
        for parser in parsers:
            stack.enter_context(_replaced(parser, _get_values=noting(parser)))
        yield typed


def typed_so_far(parsers: Sequence[_Parser], tokens: list[str]) -> _Typed:
    """What is typed, up to the first error: a required option may yet come from the file."""

    def stop(message: str) -> NoReturn:
        raise _StopError(message)

    with contextlib.ExitStack() as stack:
        typed = stack.enter_context(_watched(parsers))
        for parser in parsers:
            stack.enter_context(_replaced(parser, error=stop))
        # Whatever is wrong comes up again, and is reported, in the parse that counts.
        stack.enter_context(contextlib.suppress(_StopError, argparse.ArgumentError))
        parsers[0].parse_args(tokens)
    return typed


def parse_with(parsers: Sequence[_Parser], tokens: list[str], found: Settings) -> argparse.Namespace:
    """Parse, then set what the file gives and nobody typed; what the file gives is no longer required."""
    dests = {dest for setting in found.values() for dest in setting}
    groups = [group for parser in parsers for group in parser._mutually_exclusive_groups]
    with contextlib.ExitStack() as stack:
        for action in (action for parser in parsers for action in parser._actions if action.dest in dests):
            stack.enter_context(_replaced(action, required=False))
        for group in groups:
            if any(action in found for action in group._group_actions):
                stack.enter_context(_replaced(group, required=False))
        typed = stack.enter_context(_watched(parsers))
        args = parsers[0].parse_args(tokens)
    taken = {action.dest for action in typed}
    for group in groups:  # what is typed also wins over what it excludes
        if any(action in typed for action in group._group_actions):
            taken.update(action.dest for action in group._group_actions)
    for action, setting in found.items():
        if action.dest not in taken:
            for name, value in setting.items():
                setattr(args, name, value)
    return args


# --------------------------------------------------------------------------------------- the keys of the file


def settings(
    file: Options,
    parsers: Sequence[_Parser],
    chosen: Sequence[_Parser],
    skipped: set[argparse.Action],
) -> Settings:
    """What the file would set, by action; a ConfigError for a key or a value that the parser refuses."""
    known = {parser: _names(parser, skipped) for parser in parsers}
    _refuse_unknown(file.values, known.values())
    found: Settings = {}
    keys: dict[str, str] = {}
    for key, value in file.values.items():
        for parser in chosen:
            if key not in known[parser]:
                continue
            action, setting = _first_accepting(parser, known[parser][key], key, value, file.written.get(key))
            found[action] = setting
            for dest in setting:
                if keys.setdefault(dest, key) != key:
                    raise ConfigError(f"the keys {keys[dest]!r} and {key!r} both set {dest!r}. Keep one.")
    _refuse_excluded(chosen, found)
    return found


def _names(parser: _Parser, skipped: set[argparse.Action]) -> _Names:
    names: _Names = {}
    not_values = (argparse._HelpAction, argparse._VersionAction, argparse._SubParsersAction)
    actions = [each for each in parser._actions if each not in skipped and not isinstance(each, not_values)]
    for action in actions:
        names.setdefault(action.dest.replace("-", "_"), []).append((action, None))
    dests = set(names)
    for action in actions:
        for option in action.option_strings:
            # Both `lr` and `--lr`, as the reader has renamed it.
            for name in (option.lstrip(parser.prefix_chars).replace("-", "_"), option.replace("-", "_")):
                if name not in dests:
                    names.setdefault(name, []).append((action, option))
    return names


def _refuse_unknown(values: Mapping[str, Any], known: Iterable[_Names]) -> None:
    import difflib

    names = sorted({name for each in known for name in each if not name.startswith("_")})
    hints = []
    for key in values:
        if not any(key in each for each in known):
            near = difflib.get_close_matches(key.strip("_"), names, n=1)
            hints.append(f"{key!r} (did you mean {near[0]!r}?)" if near else repr(key))
    if hints:
        raise ConfigError(f"no option is called {', '.join(hints)}. The options: {', '.join(names) or 'none'}.")


def _refuse_excluded(parsers: Iterable[_Parser], found: Settings) -> None:
    for parser in parsers:
        for group in parser._mutually_exclusive_groups:
            # `a: true` and `b: false` is no conflict: what equals the default says nothing.
            given = [
                each.dest
                for each in group._group_actions
                if any(value != parser.get_default(dest) for dest, value in found.get(each, {}).items())
            ]
            if len(given) > 1:
                raise ConfigError(f"{given[0]!r} and {given[1]!r} exclude each other. Keep one.")


# ------------------------------------------------------------------------------------- the values of the file


def _first_accepting(
    parser: _Parser,
    candidates: Sequence[tuple[argparse.Action, str | None]],
    key: str,
    value: Any,
    written: str | None,
) -> tuple[argparse.Action, dict[str, Any]]:
    """The first action that takes the value: several may share a dest, as ``--fast`` and ``--slow`` do."""
    reason = ""
    for action, option in candidates:
        try:
            return action, _setting(parser, action, option, value)
        except argparse.ArgumentError as err:
            reason = err.message
    accepted = " or ".join(dict.fromkeys(_accepted(action, option) for action, option in candidates))
    why = f" ({reason})" if reason else ""
    quotes = f" Write '{written}' in quotes for a text." if written and "text" in accepted else ""
    raise ConfigError(f"{key}={value!r} is not accepted{why}. {key} takes {accepted}.{quotes}")


def _setting(parser: _Parser, action: argparse.Action, option: str | None, value: Any) -> dict[str, Any]:
    """What the namespace would get if the value were typed; an ArgumentError where it is not acceptable."""
    if value is None:
        return {action.dest: None} if action.default is None else _refuse()
    if action.nargs == 0:
        return _flag(parser, action, option, value)
    grows = isinstance(action, argparse._AppendAction)
    # The list of an append option is what was typed in turn; that of an nargs option was typed at once.
    in_turn = grows and not isinstance(action, argparse._ExtendAction) and isinstance(value, list)
    if in_turn and not value:
        return {action.dest: []}
    scratch = argparse.Namespace(**{action.dest: None if grows else copy.copy(action.default)})
    name = option or next(iter(action.option_strings), None)
    for item in value if in_turn else [value]:
        action(parser, scratch, _converted(parser, action, item), name)
    return vars(scratch)


def _flag(parser: _Parser, action: argparse.Action, option: str | None, value: Any) -> dict[str, Any]:
    """The setting of an option that takes no value."""
    if isinstance(action, argparse._CountAction):
        return {action.dest: value} if type(value) is int and value >= 0 else _refuse()
    switch = isinstance(action, (argparse._StoreTrueAction, argparse._StoreFalseAction))
    if isinstance(action, argparse._StoreConstAction) and option is None and not switch:
        same = type(value) is type(action.const) and value == action.const
        return {action.dest: value} if same else _refuse()
    if not isinstance(value, bool):
        _refuse()
    if isinstance(action, argparse.BooleanOptionalAction):
        return {action.dest: value != (option or "").startswith("--no-")}
    if switch:
        # By its dest `cuda: false` is meant as it stands; by its option `no-cuda: true` turns the switch.
        return {action.dest: value if option is None else value == action.const}
    scratch = argparse.Namespace(**{action.dest: None})
    if value:
        action(parser, scratch, [], option or next(iter(action.option_strings), None))
    return vars(scratch) if value else {}


def _converted(parser: _Parser, action: argparse.Action, value: Any) -> Any:
    if action.nargs == "?" and value is True and action.type is not bool and action.const is not None:
        return action.const  # as the option typed without a value
    many = action.nargs not in (None, "?")
    items = value if many and isinstance(value, list) else [value]
    if parser._match_argument(action, "A" * len(items)) != len(items):
        _refuse()
    converted = [_one(parser, action, item) for item in items]
    return converted if many else converted[0]


def _one(parser: _Parser, action: argparse.Action, item: Any) -> Any:
    kind = action.type
    if kind is None or kind is str or kind is bool:
        # bool("False") is True, and 007 as a text is not what 7 gives: only the type itself will do.
        if not isinstance(item, bool if kind is bool else str):
            _refuse()
    elif not isinstance(item, str) and type(item) is not kind:
        if item is None or isinstance(item, (list, dict)):
            _refuse()
        item = str(item)  # a number, as it would be typed
    value = parser._get_value(action, item)
    parser._check_value(action, value)
    return value


def _refuse() -> NoReturn:
    raise argparse.ArgumentError(None, "")


def _accepted(action: argparse.Action, option: str | None) -> str:
    if isinstance(action, argparse._CountAction):
        return "an integer of at least 0"
    if action.nargs == 0:
        by_const = type(action) is argparse._StoreConstAction and option is None
        return repr(action.const) if by_const else "true or false"
    kind = action.type
    one = "a text" if kind is None or kind is str else str(getattr(kind, "__name__", kind))
    if kind is bool:
        one = "true or false"
    if action.choices is not None:
        one = "one of " + ", ".join(map(repr, action.choices))
    if action.nargs in (None, "?"):
        return f"{one}, or a list of such" if isinstance(action, argparse._AppendAction) else one
    return f"a list of {action.nargs if isinstance(action.nargs, int) else 'values'}, each {one}"

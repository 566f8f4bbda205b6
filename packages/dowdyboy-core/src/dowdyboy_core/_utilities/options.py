"""Files of options: JSON and YAML, read so that no number means another one than it looks."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dowdyboy_core._errors import ConfigError


@dataclass(frozen=True)
class Options:
    """What a file of options holds.

    Attributes:
        values: the values by key, with ``_`` for ``-`` in the keys.
        written: how a value stands in the file, for keys whose value is no text but could be meant as one.
    """

    values: dict[str, Any]
    written: dict[str, str] = field(default_factory=dict)


def read(path: str | os.PathLike[str], encoding: str, parse: Callable[[str], tuple[Any, dict[str, str]]]) -> Options:
    """Reads a file that holds one mapping.

    Raises:
        ConfigError: it can't be read, or holds something else; the message names the file.
    """
    try:
        text = Path(path).read_text(encoding=encoding).removeprefix("\ufeff")
    except (OSError, UnicodeError, LookupError, TypeError) as err:
        raise ConfigError(f"{path} can't be read as {encoding} text: {err}.") from err
    try:
        values, written = parse(text)
    except Exception as err:  # malformed values make PyYAML raise nearly anything
        raise ConfigError(f"{path}: {err}") from err
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}, not a mapping of keys to values.")
    for key in values:
        if not isinstance(key, str):
            raise ConfigError(f"{path}: the key {key!r} is not a text. Put it in quotes.")
    return Options(values, written)


def parse_json(text: str) -> tuple[Any, dict[str, str]]:
    """What a JSON text holds."""

    def checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return dict(zip(_renamed(key for key, _ in pairs), (value for _, value in pairs), strict=True))

    try:
        return json.loads(text, object_pairs_hook=checked, parse_float=_finite), {}
    except json.JSONDecodeError as err:
        raise ConfigError(f"not a JSON file: {err}.") from err


def parse_yaml(text: str) -> tuple[Any, dict[str, str]]:
    """What a YAML text holds, and how what is no text in it is written."""
    import yaml

    text_tag = "tag:yaml.org,2002:str"
    seen: set[int] = set()

    class Loader(yaml.SafeLoader):
        """Plain YAML: safe types only, keys renamed and checked before merges (``<<``) are resolved."""

        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            if id(node) not in seen:  # a merged mapping comes here more than once
                seen.add(id(node))
                texts = [index for index, (key, _) in enumerate(node.value) if key.tag == text_tag]
                for index, name in zip(texts, _renamed(node.value[i][0].value for i in texts), strict=True):
                    key, value = node.value[index]
                    # A new node, since an alias may share the old one with a value.
                    node.value[index] = (yaml.ScalarNode(text_tag, name, key.start_mark, key.end_mark), value)
            super().flatten_mapping(node)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            pairs = super().construct_mapping(node, deep=deep)
            # Of what is no text, two may be equal that are written differently: 1 and 1.0 and on.
            own = {key.value for key, _ in node.value if key.tag != text_tag and isinstance(key, yaml.ScalarNode)}
            if len(own) > len([key for key in pairs if not isinstance(key, str)]):
                raise ConfigError(f"two of the keys {', '.join(sorted(own))} are one and the same. Put them in quotes.")
            return pairs

        def construct_number(self, node: yaml.ScalarNode) -> int | float:
            try:
                found: int | float = constructors[node.tag](self, node)
            except (ValueError, IndexError):
                found = math.nan
            try:
                return _as_it_looks(node.value, found)
            except ConfigError as err:
                raise ConfigError(f"line {node.start_mark.line + 1}: {err}") from err

    constructors: dict[str, Callable[[Any, yaml.ScalarNode], int | float]] = {
        "tag:yaml.org,2002:int": Loader.construct_yaml_int,
        "tag:yaml.org,2002:float": Loader.construct_yaml_float,
    }
    for tag, pattern in _NUMBERS:
        Loader.add_implicit_resolver(tag, pattern, list("-+.0123456789"))
    for tag in constructors:
        Loader.add_constructor(tag, Loader.construct_number)
    loader = Loader(text)
    try:
        root = loader.get_single_node()
        values = None if root is None else loader.construct_document(root)
    except yaml.YAMLError as err:
        raise ConfigError(f"not plain YAML (tags that build Python objects are not read): {err}") from err
    finally:
        loader.dispose()
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    scalars = ((key.value, value) for key, value in pairs if isinstance(value, yaml.ScalarNode))
    return {} if values is None else values, {key: value.value for key, value in scalars if value.tag != text_tag}


# Numbers in YAML 1.2 and to the eye, which PyYAML takes for texts. 08 is among them so that it is refused like 010.
_NUMBERS = [
    ("tag:yaml.org,2002:float", re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$")),
    ("tag:yaml.org,2002:int", re.compile(r"[-+]?0o[0-7]+$")),
    ("tag:yaml.org,2002:int", re.compile(r"[-+]?0[0-9_]*[89][0-9_]*$")),
]


def _as_it_looks(text: str, found: int | float) -> int | float:
    """The number that a text is in YAML, if it is the one that the text looks like.

    Raises:
        ConfigError: it isn't.
    """
    plain = text.replace("_", "").lower()
    if re.fullmatch(r"[-+]?0o[0-7]+", plain):
        return int(plain, 8)
    quoted = f"'{text}' in quotes for a text"
    if re.fullmatch(r"[-+]?0[0-9]+", plain) and int(plain) != found:
        read_as = "as no number" if math.isnan(found) else f"as {found} (a leading 0 means base 8)"
        octal = "" if math.isnan(found) else f"{found} or {plain.replace('0', '0o', 1)} for that number, "
        raise ConfigError(
            f"{text} is read {read_as} in YAML 1.1, and as {int(plain)} in YAML 1.2. Write {int(plain)}, "
            f"{octal}or {quoted}."
        )
    if ":" in plain:
        raise ConfigError(
            f"{text} is read as the number {found} (base 60) in YAML 1.1. Write {found} for that number, or {quoted}."
        )
    if math.isnan(found) and ".nan" not in plain:
        raise ConfigError(f"{text} is no number. Write {quoted}.")
    return _finite(text) if isinstance(found, float) and math.isinf(found) and "inf" not in plain else found


def _finite(text: str) -> float:
    value = float(text.replace("_", ""))
    if math.isinf(value):
        raise ConfigError(f"the number {text} is too large for a float. Write a smaller one, or '{text}' in quotes.")
    return value


def _renamed(keys: Iterable[str]) -> list[str]:
    """The keys with ``-`` as ``_``; an error where two become one."""
    seen: dict[str, str] = {}
    for key in keys:
        name = key.replace("-", "_")
        if name in seen:
            raise ConfigError(f"the keys {seen[name]!r} and {key!r} both mean {name!r}. Keep one.")
        seen[name] = key
    return list(seen)

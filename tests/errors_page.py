"""Writes docs/errors.md and docs/errors.zh-CN.md: every message of the library, with its cause and its cure.

The messages are read from the code, causes and cures from docs/errors.toml, which names each message by how it begins.
``python tests/errors_page.py`` writes both pages anew. With ``--adopt`` it first gives each new message to the family
that has most messages of its module, to be looked at, and takes out beginnings that no message has any more.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "errors.toml"
PAGES = {"en": ROOT / "docs" / "errors.md", "zh": ROOT / "docs" / "errors.zh-CN.md"}

WITHIN = ("ValueError", "OSError")
"""What is met within another message; a text of a few words is passed over there."""
ERRORS = ("ConfigError", "SetupError", "CheckpointError", "UnsupportedError", "ImportError", *WITHIN)
WARNINGS = ("warn", "_warn")
WORDS = 4
"""A text of fewer words is a part of a message, or none."""


PASSED_ON: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {
    ("dowdyboy_core/_run/crossing.py", "CheckpointError"): {"dowdyboy_core/_exchange/optimizers.py": ("check_kinds",)},
    ("dowdyboy_core/_run/assembly.py", "SetupError"): {"dowdyboy_core/backend/pool.py": ("_gone_text",)},
    ("dowdyboy_core/backend/pool.py", "SetupError"): {"dowdyboy_core/backend/pool.py": ("_awaited_text", "_where")},
    ("dowdyboy_core/_run/rescue.py", "SetupError"): {"dowdyboy_core/_run/following.py": ("problem",)},
    ("dowdyboy_core/_run/run.py", "SetupError"): {"dowdyboy_core/_disk/lock.py": ("_in_use",)},
    ("dowdyboy_core/_run/saver.py", "warning"): {
        "dowdyboy_core/_run/settings.py": ("follows_another", "position_means_another")
    },
    ("dowdyboy_core/_run/metrics.py", "warning"): {"dowdyboy_core/_disk/lines.py": ("flush",)},
    ("dowdyboy_core/_run/stepping.py", "SetupError"): {
        "dowdyboy_torch/_backend.py": ("loss_problem",),
        "dowdyboy_paddle/_backend.py": ("loss_problem",),
    },
}
"""Where a text is made elsewhere than where it is raised: functions whose texts are messages, or parts of these."""

WRAPS = {
    ("dowdyboy_core/_run/refused.py", "f'{named} is no scheduler. {advice}'"),
    ("dowdyboy_core/_utilities/keep.py", "f'{str(folder)!r}, optimizer_{number}: {error}'"),
    ("dowdyboy_core/_utilities/options.py", "f'{path}: {err}'"),
    ("dowdyboy_core/_utilities/options.py", "f'line {node.start_mark.line + 1}: {err}'"),
    ("dowdyboy_core/args.py", "f'{os.fspath(path)}: {err}'"),
}
"""What only puts a place before another message, or is made of a few words."""


class Message(NamedTuple):
    """A message as it stands in the code.

    Attributes:
        kind: of the exception, or ``"warning"``.
        text: with ``{name}`` for what is filled in.
        place: the module that it is in.
    """

    kind: str
    text: str
    place: str


# ---- read from the code


def read_messages() -> list[Message]:
    """All messages, in the order of the modules."""
    trees = {
        path.relative_to(ROOT).as_posix().partition("/src/")[2]: ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(ROOT.glob("packages/*/src/**/*.py"))
    }
    makers: dict[str, list[str]] = {}
    for tree in trees.values():
        for function in functions_of(tree):
            makers.setdefault(function.name, []).extend(texts_of_returns(function))
    found: dict[Message, None] = {}
    for place, tree in trees.items():
        for call, within in calls_of(tree):
            name = name_of(call.func)
            if name not in (*ERRORS, *WARNINGS) or not call.args:
                continue
            kind = "warning" if name in WARNINGS else name
            texts = texts_of(call.args[0], within, makers)
            if (
                not texts
                and kind not in WITHIN
                and (place, kind) not in PASSED_ON
                and (place, ast.unparse(call.args[0])) not in WRAPS
            ):
                raise ValueError(f"{place}, line {call.lineno}: say in PASSED_ON where the text of this {kind} is made")
            found.update(dict.fromkeys(Message(kind, text, place) for text in texts))
    for (_, passed), made in PASSED_ON.items():
        for place, names in made.items():
            makers_there = [maker for maker in functions_of(trees[place]) if maker.name in names]
            found.update(
                dict.fromkeys(Message(passed, text, place) for it in makers_there for text in texts_within(it))
            )
    return list(found)


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions_of(tree: ast.AST) -> Iterator[Function]:
    """All functions and methods."""
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def calls_of(tree: ast.AST, within: Function | None = None) -> Iterator[tuple[ast.Call, Function | None]]:
    """All calls, each with the function that it stands in."""
    for child in ast.iter_child_nodes(tree):
        inner = child if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) else within
        if isinstance(child, ast.Call):
            yield child, within
        yield from calls_of(child, inner)


def name_of(node: ast.AST) -> str:
    """The last name of what is called or read."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def texts_of(node: ast.expr | None, function: Function | None, makers: dict[str, list[str]]) -> list[str]:
    """The texts that an argument may be: its own, those of its variable, those that the called function returns."""
    if node is None:
        return []
    own = text_of(node)
    if is_message(own):
        return [filled_in(own, function)]
    if isinstance(node, ast.Name) and function is not None:
        given = [texts_of(value, function, makers) for name, value in assigned(function) if name == node.id]
        return [text for texts in given for text in texts]
    if isinstance(node, ast.Call):
        return makers.get(name_of(node.func), [])
    if isinstance(node, ast.IfExp):
        return texts_of(node.body, function, makers) + texts_of(node.orelse, function, makers)
    return []


def filled_in(text: str, function: Function | None) -> str:
    """A text with what the function says once for several of its messages, a piece of advice say."""
    said: dict[str, list[str]] = {}
    for name, value in [] if function is None else assigned(function):
        said.setdefault(name, []).append(text_of(value))
    for name, values in said.items():
        if len(values) == 1 and is_message(values[0]):
            text = text.replace(f"{{{name}}}", values[0])
    return text


def assigned(function: Function) -> Iterator[tuple[str, ast.expr]]:
    """What a function assigns to its variables."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value


def texts_of_returns(function: Function) -> list[str]:
    """The messages that a function returns."""
    values = [node.value for node in ast.walk(function) if isinstance(node, ast.Return) and node.value is not None]
    texts = [text for value in values for text in texts_of(value, function, {})]
    return [text for text in texts if is_message(text)]


def texts_within(function: Function) -> list[str]:
    """All texts of a function that say something, but its docstring."""
    documented = ast.get_docstring(function, clean=False)
    found: list[str] = []

    def look(node: ast.AST) -> None:
        text = text_of(node)
        if is_message(text) and text != documented:
            found.append(text)
            return
        for child in ast.iter_child_nodes(node):
            look(child)

    for statement in function.body:
        if not isinstance(statement, ast.Raise):
            look(statement)
    return found


def is_message(text: str) -> bool:
    """Whether a text says something by itself."""
    return len([word for word in text.split() if word[0] not in "{-"]) >= WORDS


def text_of(node: ast.AST) -> str:
    """A text with ``{name}`` for what is filled in."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return f"{{{placeholder(node.value)}}}"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    return ""


def placeholder(node: ast.expr) -> str:
    """A short word for what is filled in."""
    if isinstance(node, ast.Call) and node.args:
        return placeholder(node.args[0])
    name = name_of(node)
    return "class" if name in ("__name__", "__qualname__") else name.lstrip("_") or "…"


# ---- joined with causes and cures


class Family(NamedTuple):
    """Messages of one kind.

    Attributes:
        title: by language, as are the next two.
        cause: why one meets them.
        cure: what to do.
        messages: how each of them begins.
    """

    title: dict[str, str]
    cause: dict[str, str]
    cure: dict[str, str]
    messages: list[str]


def read_families() -> list[Family]:
    """What docs/errors.toml says."""
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return [Family(*(item[name] for name in Family._fields)) for item in table["family"]]


def sort_messages(messages: list[Message], families: list[Family]) -> tuple[dict[int, list[Message]], list[str]]:
    """The messages of each family, and what doesn't go together.

    A message belongs to the family that names the longest beginning of it.
    """
    beginnings = [(text, number) for number, family in enumerate(families) for text in family.messages]
    sorted_in: dict[int, list[Message]] = {number: [] for number in range(len(families))}
    used, problems = set(), []
    for message in messages:
        fitting = [item for item in beginnings if message.text.startswith(item[0])]
        if not fitting:
            problems.append(f"{message.place}: {message.text!r} is in no family of {TABLE.name}")
            continue
        best = max(fitting, key=lambda item: len(item[0]))
        used.add(best)
        sorted_in[best[1]].append(message)
    problems += [
        f"no message begins with {text!r}, of {families[n].title['en']!r}"
        for text, n in beginnings
        if (text, n) not in used
    ]
    problems += [
        f"{text!r} is named twice"
        for text in {text for text, _ in beginnings}
        if sum(text == other for other, _ in beginnings) > 1
    ]
    return sorted_in, problems


HEADS = {
    "en": (
        "# Errors and warnings\n\n"
        "Every message of the library, with its cause and its cure; `{name}` stands for what is filled in. Search\n"
        "this page for the words of the message that stay the same. What the classes mean stands in the\n"
        "[README](../README.md#errors); each but Python's own is a `DowdyboyError`. A `ValueError` or `OSError`\n"
        "that is listed here is met as the `{error}` in another message.\n"
    ),
    "zh": (
        "# 错误与警告\n\n"
        "库里的每一条消息，以及原因和解决办法；`{name}` 处会填入实际的内容。用消息里不变的文字在本页搜索即可。"
        "各类错误见 "
        "[README](../README.zh-CN.md#异常)，除 Python 自带的以外都是 `DowdyboyError`。"
        "这里列出的 `ValueError` 和 `OSError` 会出现在别的消息的 `{error}` 处。\n"
    ),
}
LABELS = {"en": ("Cause.", "Cure.", "warning"), "zh": ("原因。", "解决。", "警告")}


def write_page(language: str) -> str:
    """The page in a language.

    Raises:
        ValueError: a message has no family, or a family names no message.
    """
    families = read_families()
    sorted_in, problems = sort_messages(read_messages(), families)
    if problems:
        raise ValueError("\n".join(problems))
    cause, cure, warning = LABELS[language]
    parts = [HEADS[language]]
    for number, family in enumerate(families):
        parts.append(f"\n## {family.title[language]}\n\n")
        parts.append(f"**{cause}** {family.cause[language]}\n\n**{cure}** {family.cure[language]}\n\n")
        kinds = {
            message: warning if message.kind == "warning" else f"`{message.kind}`" for message in sorted_in[number]
        }
        parts += sorted({f"- {kind}: {quoted(message.text)}\n" for message, kind in kinds.items()})
    return "".join(parts)


def quoted(text: str) -> str:
    """A text as code, on one line."""
    line = " ".join(text.split())
    return f"`` {line} ``" if "`" in line else f"`{line}`"


# ---- new messages


def adopt() -> None:
    """Puts new messages into families of messages of the same module, and takes out beginnings of none."""
    families, messages = read_families(), read_messages()
    homes: dict[str, Counter[int]] = {}
    sorted_in, _ = sort_messages(messages, families)
    for number, members in sorted_in.items():
        for message in members:
            homes.setdefault(message.place, Counter())[number] += 1
    known = {message for members in sorted_in.values() for message in members}
    chosen: dict[int, set[str]] = {number: set() for number in range(len(families))}
    for number, family in enumerate(families):
        chosen[number] = {text for text in family.messages if any(m.text.startswith(text) for m in messages)}
    for message in messages:
        if message not in known:
            number = homes.get(message.place, Counter({len(families) - 1: 1})).most_common(1)[0][0]
            chosen[number].add(message.text)
            print(f"{families[number].title['en']}: {message.place}: {message.text}")
    head, *blocks = re.split(r"(?<=^messages = \[\n)(?:  .*\n)*", TABLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    listed = [
        "".join(f"  {json.dumps(text, ensure_ascii=False)},\n" for text in sorted(chosen[n])) for n in sorted(chosen)
    ]
    TABLE.write_text(head + "".join(a + b for a, b in zip(listed, blocks, strict=True)), encoding="utf-8")


if __name__ == "__main__":
    if "--adopt" in sys.argv:
        adopt()
    for chosen_language, page in PAGES.items():
        page.write_text(write_page(chosen_language), encoding="utf-8")

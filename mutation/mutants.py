"""Makes the mutants of a module with mutmut's operators, and puts one of them in place in a running process.

mutmut's own runner swaps a function for a "trampoline", which it can't do for decorated functions, and it looks for the
tests of a function in its own process only. Here a mutant is the code object of its function: every function that has
the original one is given the other, whatever decorates it.
"""

from __future__ import annotations

import ast
import difflib
import gc
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import libcst as cst
from libcst.metadata import MetadataWrapper, ParentNodeProvider, PositionProvider
from mutmut.mutation.file_mutation import Mutation, MutationVisitor
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

PACKAGE = Path(__file__).resolve().parents[1] / "packages/dowdyboy-core/src/dowdyboy_core"

TRANSPARENT = re.compile(r"^( *)@((functools\.)?(cached_property|property|cache)|(contextlib\.)?contextmanager)$", re.M)
"""mutmut leaves decorated functions alone, since it replaces them; a code object can be replaced under these."""

TELLING = {"warn", "warning", "error", "info", "debug", "exception", "print", "tell", "fail"}
"""What is called with a text for people."""


@dataclass(frozen=True)
class Mutant:
    """One changed place of a function."""

    module: str
    function: str
    before: str
    """The lines that were changed, joined and without indentation."""
    after: str
    copy: int
    """Which it is of those with the same four fields above."""
    lines: tuple[int, int]
    """The first and the last line of what was changed."""
    body: tuple[int, int]
    """The first and the last line of the function."""
    is_text: bool
    """Whether only the text of an error, a warning or a log line differs."""
    source: str

    @property
    def key(self) -> str:
        """What tells it from all others and stays when lines move."""
        return " | ".join([self.module, self.function, self.before, self.after, str(self.copy)])


class _Finder(MutationVisitor):
    """mutmut's visitor, which also notes where a mutation is."""

    METADATA_DEPENDENCIES = (*MutationVisitor.METADATA_DEPENDENCIES, ParentNodeProvider)

    def __init__(self) -> None:
        super().__init__(mutation_operators, IgnoredCode(set(), set(), set()))
        self.lines: dict[int, tuple[int, int]] = {}
        self.texts: set[int] = set()
        self.names: dict[int, str] = {}
        self.wholes: dict[int, cst.CSTNode] = {}
        self.bodies: dict[int, tuple[int, int]] = {}

    def _create_mutations(self, node: cst.CSTNode) -> None:
        before = len(self.mutations)
        super()._create_mutations(node)
        for mutation in self.mutations[before:]:
            self.lines[id(mutation)] = self.span(self._placed(node))
            function = mutation.contained_by_top_level_function
            if isinstance(node, cst.SimpleString) and self._is_told(node):
                self.texts.add(id(mutation))
            if isinstance(function, cst.FunctionDef):
                self.names[id(mutation)] = self._name(function)
                *_, whole, _ = [function, *self._parents(function)]
                self.wholes[id(mutation)] = whole
                self.bodies[id(mutation)] = self.span(function)

    def span(self, node: cst.CSTNode) -> tuple[int, int]:
        """The first and the last line of a node."""
        place = self.get_metadata(PositionProvider, node)
        return place.start.line, place.end.line

    def _parents(self, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
        parent = self.get_metadata(ParentNodeProvider, node, None)
        while isinstance(parent, cst.CSTNode):
            yield parent
            parent = self.get_metadata(ParentNodeProvider, parent, None)

    def _placed(self, node: cst.CSTNode) -> cst.CSTNode:
        """The node, or what it is in: some, such as operators, have no position."""
        for candidate in [node, *self._parents(node)]:
            if self.get_metadata(PositionProvider, candidate, None) is not None:
                return candidate
        raise AssertionError(node)

    def _name(self, function: cst.FunctionDef) -> str:
        owners = [parent.name.value for parent in self._parents(function) if isinstance(parent, cst.ClassDef)]
        return ".".join([*reversed(owners), function.name.value])

    def _is_told(self, node: cst.CSTNode) -> bool:
        """Whether a text is part of what is raised, warned of, logged or printed."""
        for parent in self._parents(node):
            if isinstance(parent, cst.Raise):
                return True
            if isinstance(parent, cst.Call) and isinstance(parent.func, cst.Name | cst.Attribute):
                called = parent.func.value if isinstance(parent.func, cst.Name) else parent.func.attr.value
                if called.lstrip("_") in TELLING:
                    return True
            if isinstance(parent, cst.BaseSmallStatement):
                return False
        return False


def path_of(module: str) -> Path:
    """The file of a module of the core, which goes by its place in the package: ``_run.saver``."""
    return PACKAGE / f"{module.replace('.', '/')}.py"


def module_of(path: Path) -> str:
    """The module of the core that a file holds."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def mutants_of(module: str) -> list[Mutant]:
    """All mutants of the functions of one module of the core."""
    source = path_of(module).read_text(encoding="utf-8")
    plain = TRANSPARENT.sub(r"\1# @\2", source)
    finder = _Finder()
    tree = MetadataWrapper(cst.parse_module(plain))
    tree.visit(finder)
    seen: Counter[tuple[str, ...]] = Counter()
    return [
        _mutant(module, plain, tree.module, mutation, finder, seen)
        for mutation in finder.mutations
        if id(mutation) in finder.names
    ]


def _mutant(
    module: str, plain: str, tree: cst.Module, mutation: Mutation, finder: _Finder, seen: Counter[tuple[str, ...]]
) -> Mutant:
    function = mutation.contained_by_top_level_function
    assert function is not None
    # The whole class of a method: only what stands at the top is written out with the indentation that it has.
    whole = finder.wholes[id(mutation)]
    old = tree.code_for_node(whole)
    changed: Any = whole.deep_replace(mutation.original_node, mutation.mutated_node)
    new = tree.code_for_node(changed)
    body = finder.bodies[id(mutation)]
    position = _nth(plain, old, body[0])
    before, after = _changed_lines(old, new)
    name = finder.names[id(mutation)]
    seen[name, before, after] += 1
    return Mutant(
        module,
        name,
        before,
        after,
        seen[name, before, after],
        finder.lines[id(mutation)],
        body,
        id(mutation) in finder.texts,
        plain[:position] + new + plain[position + len(old) :],
    )


def _nth(source: str, text: str, line: int) -> int:
    """Where the text that spans a line begins."""
    begin = -1
    while (begin := source.find(text, begin + 1)) >= 0:
        first = source.count("\n", 0, begin) + 1
        if first <= line < first + text.count("\n") + 1:
            return begin
    raise AssertionError(text)


def _changed_lines(old: str, new: str) -> tuple[str, str]:
    """The lines in which two texts differ, each side as one line."""
    olds, news = old.splitlines(), new.splitlines()
    codes = difflib.SequenceMatcher(None, olds, news, autojunk=False).get_opcodes()
    changes = [code for code in codes if code[0] != "equal"]
    first, last = changes[0], changes[-1]
    return _joined(olds[first[1] : last[2]]), _joined(news[first[3] : last[4]])


def _joined(lines: list[str]) -> str:
    return " ".join(line.strip() for line in lines)


# Putting one in place


def live_functions() -> dict[tuple[str, str, int], list[FunctionType]]:
    """The functions of the package in this process, by file, name and first line."""
    found: dict[tuple[str, str, int], list[FunctionType]] = {}
    for thing in gc.get_objects():
        if isinstance(thing, FunctionType) and thing.__code__.co_filename.startswith(str(PACKAGE)):
            code = thing.__code__
            found.setdefault((code.co_filename, code.co_name, code.co_firstlineno), []).append(thing)
    return found


def put_in_place(mutant: Mutant, functions: dict[tuple[str, str, int], list[FunctionType]]) -> str | None:
    """Gives every function that has the original's code the mutant's; returns what stands against it, if anything."""
    path = path_of(mutant.module)
    originals = _codes(compile(path.read_text(encoding="utf-8"), str(path), "exec", dont_inherit=True))
    try:
        tree = ast.parse(mutant.source)
        changed = _codes(compile(tree, str(path), "exec", dont_inherit=True))
    except SyntaxError:
        return "no Python"
    name = _index_of(mutant, tree)
    original, code = originals[name], changed[name]
    if code.co_freevars != original.co_freevars:
        code = _codes(compile(_keeping_the_class(tree), str(path), "exec", dont_inherit=True))[name]
    held = functions.get((str(path), original.co_name, original.co_firstlineno))
    if not held:
        return "no live function"
    for function in held:
        function.__code__ = code
        _put_defaults(function, mutant, tree)
    return None


def _codes(module: CodeType) -> dict[tuple[str, int], CodeType]:
    """The code objects of all functions, by qualified name and which it is of that name."""
    found: dict[tuple[str, int], CodeType] = {}

    def visit(code: CodeType, prefix: str) -> None:
        for inner in code.co_consts:
            if isinstance(inner, CodeType):
                name = prefix + inner.co_name
                found[name, sum(known == name for known, _ in found)] = inner
                visit(inner, name + ".")

    visit(module, "")
    return found


def _functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node, prefix + node.name + ".")
        elif not isinstance(node, ast.expr):
            yield from _functions(node, prefix)


def _index_of(mutant: Mutant, tree: ast.AST) -> tuple[str, int]:
    """Which function of its name the mutant's is: overloads and setters share one."""
    same = [node for name, node in _functions(tree) if name == mutant.function]
    lines = [node.lineno for node in same]
    # Mutating moves nothing that is above, so the first line is the original's.
    return mutant.function, max(index for index, line in enumerate(lines) if line <= mutant.body[1])


def _keeping_the_class(tree: ast.Module) -> ast.Module:
    """Has every method mention its class: a code object needs the same cells as the one that it replaces."""
    for name, node in _functions(tree):
        if "." in name and any(isinstance(part, ast.Name) and part.id == "super" for part in ast.walk(node)):
            continue
        if "." in name:
            node.body.append(ast.parse("if False: __class__").body[0])
    return ast.fix_missing_locations(tree)


def _put_defaults(function: FunctionType, mutant: Mutant, tree: ast.AST) -> None:
    """Has the defaults be those of the mutant, where they are mutated."""
    path = path_of(mutant.module)
    index = _index_of(mutant, tree)[1]
    sides = []
    for source in (path.read_text(encoding="utf-8"), mutant.source):
        nodes = [node for name, node in _functions(ast.parse(source)) if name == mutant.function]
        sides.append(nodes[index].args)
    old, new = sides
    values = list(function.__defaults__ or ())
    for place, (was, now) in enumerate(zip(old.defaults, new.defaults, strict=True)):
        if ast.dump(was) != ast.dump(now):
            values[place] = eval(compile(ast.Expression(now), "", "eval"), function.__globals__)
    function.__defaults__ = tuple(values) or None
    for argument, was_key, now_key in zip(old.kwonlyargs, old.kw_defaults, new.kw_defaults, strict=True):
        if was_key is not None and now_key is not None and ast.dump(was_key) != ast.dump(now_key):
            value = eval(compile(ast.Expression(now_key), "", "eval"), function.__globals__)
            function.__kwdefaults__ = {**(function.__kwdefaults__ or {}), argument.arg: value}

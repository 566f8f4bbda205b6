"""Counting multiply-accumulates: what is counted, by which formula, and what could not be.

Formulas read nothing of a tensor but its shape, so that one serves every framework. What counts as a
multiply-accumulate is decided here and told in count_flops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

from .summaries import first_places, walk

Rule = Callable[[Any, tuple[Any, ...], Any], "int | None"]
"""``rule(module, inputs, output)`` gives the multiply-accumulates of one call; None if it can't tell."""


class Uncounted(NamedTuple):
    """A module whose operations are not, or not all, in a count.

    Attributes:
        path: where it stands in the model; ``''`` is the model itself.
        type: the name of its class.
        why: what kept it from being counted.
    """

    path: str
    type: str
    why: str


@dataclass(frozen=True)
class FlopCount:
    """What one forward pass costs.

    Attributes:
        macs: multiply-accumulates, ``a * b + c``, of the whole input with all its samples.
        flops: floating point operations, ``2 * macs``: the multiplication and the addition each count.
        params: parameters of the model, shared ones once.
        uncounted: the modules whose operations ``macs`` doesn't hold; empty if it holds all.
    """

    macs: int
    flops: int = field(init=False)
    params: int
    uncounted: tuple[Uncounted, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "flops", 2 * self.macs)


class Tally:
    """Adds up the multiply-accumulates of a forward pass, from hooks before and after each module's forward.

    A module with a rule is counted by it, with all that stands in it. For the others it asks the framework how many
    matrix products and convolutions it has done: those between ``enter`` and ``leave`` that no module called from
    there did are the module's own, which nobody counts.

    Args:
        model: the model that will run.
        rules: the rule of each class. It holds for a subclass too, unless that has a forward of its own.
        has_own: whether a module holds parameters itself.
        work: any number that grows with each matrix product and each convolution that the framework does.
    """

    def __init__(
        self,
        model: Any,
        rules: Mapping[type, Rule],
        has_own: Callable[[Any], bool],
        work: Callable[[], int],
    ) -> None:
        self._modules = first_places(walk(model))
        self._rules, self._has_own, self._work = rules, has_own, work
        self._stack: list[_Call] = []
        self._macs = 0
        self._why: dict[int, str] = {}
        self._called: set[int] = set()
        self._covered: set[int] = set()

    def enter(self, module: Any, *_: Any) -> None:
        """Takes note that a module's forward begins; a hook before it."""
        below = bool(self._stack) and (self._stack[-1].below or self._stack[-1].rule is not None)
        self._stack.append(_Call(module, None if below else self._rule(module), below, self._work()))

    def leave(self, module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Takes note that it is over, and counts it; a hook after it."""
        if all(call.module is not module for call in self._stack):
            return  # hooked twice
        call = self._stack.pop()
        while call.module is not module:  # it called one that failed, and went on
            call = self._stack.pop()
        done = self._work() - call.before
        if self._stack:
            self._stack[-1].inside += done
        self._called.add(id(module))
        if call.rule is not None:
            self._count(module, call.rule, inputs, output)
        elif not call.below and done > call.inside:
            self._why[id(module)] = "computes in its own forward"

    def _count(self, module: Any, rule: Rule, inputs: tuple[Any, ...], output: Any) -> None:
        macs = rule(module, inputs, output) if inputs else None  # hooks don't see inputs given by keyword
        self._covered |= {id(item) for _, item in walk(module)}
        if macs is None:
            self._why[id(module)] = "its rule can't count this use"
        else:
            self._macs += macs

    def _rule(self, module: Any) -> Rule | None:
        kind: Any = next((kind for kind in type(module).__mro__ if kind in self._rules), None)
        if kind is None or type(module).forward is not kind.forward:
            return None
        # A counter or a compiler may have put the forward of the class into the module itself.
        own = vars(module).get("forward")
        same = own is None or (getattr(own, "__func__", None) is kind.forward and own.__self__ is module)
        return self._rules[kind] if same else None

    def result(self, params: int) -> FlopCount:
        """The count so far, for a model with that many parameters."""
        for module in self._modules.values():
            if id(module) not in self._covered and self._has_own(module):
                called = id(module) in self._called
                self._why[id(module)] = "no rule for its parameters" if called else "its forward is not called"
        uncounted = (
            Uncounted(path, type(module).__name__, self._why[id(module)])
            for path, module in self._modules.items()
            if id(module) in self._why
        )
        return FlopCount(macs=self._macs, params=params, uncounted=tuple(uncounted))


@dataclass
class _Call:
    """A module whose forward is running."""

    module: Any
    rule: Rule | None
    below: bool  # whether a module around it is counted with all that stands in it
    before: int  # the work that was done when it began
    inside: int = 0  # the work that modules called from it did


def free(module: Any, inputs: tuple[Any, ...], output: Any) -> int:
    """The rule of what multiplies nothing and adds nothing up, such as a look-up."""
    return 0


def linear(module: Any, inputs: tuple[Any, ...], output: Any) -> int:
    """The rule of linear layers: each weight once at each position of the input."""
    return int(prod(inputs[0].shape[:-1]) * prod(module.weight.shape))


def recurrent(module: Any, inputs: tuple[Any, ...], output: Any) -> int:
    """The rule of recurrent layers and cells: each matrix in them once at each time step of each sample."""
    given = inputs[0] if hasattr(inputs[0], "shape") else inputs[0].data  # a packed sequence holds its steps in data
    return int(prod(given.shape[:-1]) * sum(prod(item.shape) for item in module.parameters() if len(item.shape) == 2))


def convolution(module: Any, inputs: tuple[Any, ...], output: Any) -> int:
    """The rule of convolutions, with a weight of shape (out, in / groups, *kernel): one kernel for each output."""
    return int(prod(output.shape) * prod(module.weight.shape[1:]))


def transposed_convolution(module: Any, inputs: tuple[Any, ...], output: Any) -> int:
    """The rule of transposed convolutions, weight (in, out / groups, *kernel): one kernel for each input."""
    return int(prod(inputs[0].shape) * prod(module.weight.shape[1:]))


def normalization(module: Any, inputs: tuple[Any, ...], output: Any) -> int:
    """The rule of normalizations: one scaling and shift for each element; statistics are not counted."""
    return int(prod(inputs[0].shape))


def attention(module: Any, query: Any, key: Any, value: Any, length_axis: int) -> int:
    """Multi-head attention: the four projections, the scores and the weighted sums."""
    width = module.embed_dim
    queries, keys, values = (prod(item.shape[:-1]) for item in (query, key, value))
    projections = 2 * queries * width * width + keys * module.kdim * width + values * module.vdim * width
    return int(projections + 2 * queries * key.shape[length_axis] * width)

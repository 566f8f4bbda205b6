"""The clauses of docs/spec.md, by number, and those that no check can reach."""

from __future__ import annotations

_COUNTS = {
    "A": 9,
    "F": 9,
    "H": 7,
    "L": 11,
    "R": 7,
    "D": 9,
    "S": 6,
    "P": 4,
    "C": 22,
    "B": 10,
    "G": 10,
    "O": 8,
    "U": 5,
    "X": 3,
    "N": 4,
    "W": 20,
}

CLAUSES = frozenset(f"{topic}-{number + 1}" for topic, count in _COUNTS.items() for number in range(count))

UNCHECKED: dict[str, str] = {}
"""Clauses without a check, each with the reason."""

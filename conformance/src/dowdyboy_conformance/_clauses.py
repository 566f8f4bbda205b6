"""The clauses of docs/spec.md, by number, and those that no check can reach."""

from __future__ import annotations

TOPICS = {
    "A": ("API", 9),
    "F": ("fields", 9),
    "H": ("hooks", 11),
    "L": ("loop order", 20),
    "R": ("records", 9),
    "D": ("data", 23),
    "S": ("randomness", 6),
    "P": ("precision", 5),
    "C": ("checkpoints", 43),
    "B": ("best and last", 14),
    "G": ("logs", 13),
    "O": ("optimizing", 18),
    "U": ("utilities", 6),
    "X": ("errors", 4),
    "W": ("several processes", 29),
    "N": ("numbers across frameworks", 5),
}
"""For each topic its name and the number of its clauses."""

CLAUSES = {f"{topic}-{number + 1}": topic for topic, (_, count) in TOPICS.items() for number in range(count)}
"""The topic of each clause, in the order of the spec."""

UNCHECKED: dict[str, str] = {
    "C-32": "the reference compiles nothing; each package has tests of its framework's way",
    "C-34": "the reference's models never change their shapes; each package has tests of what its framework's do",
    "O-10": "the reference has no sparse gradients; each package has tests of its framework's",
}
"""Clauses without a check, each with the reason."""

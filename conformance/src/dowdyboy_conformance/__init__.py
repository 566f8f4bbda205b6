"""Checks that a backend keeps the training contract of dowdyboy, clause by clause."""

from dowdyboy_conformance.harnesses.harness import Harness, Optimizing

__all__ = ["Harness", "Optimizing"]

"""The exceptions of dowdyboy.

DowdyboyError
├── ConfigError (ValueError)             a value that was given is not acceptable
├── SetupError (RuntimeError)            something is missing, or was done in the wrong order
├── CheckpointError (RuntimeError)       a checkpoint can't be written, read or applied
└── UnsupportedError (NotImplementedError)   this backend or this device can't do what was asked
"""

from __future__ import annotations

__all__ = ["CheckpointError", "ConfigError", "DowdyboyError", "SetupError", "UnsupportedError"]


class DowdyboyError(Exception):
    """Base of every error that dowdyboy raises itself."""


class ConfigError(DowdyboyError, ValueError):
    """A value that was given is not acceptable."""


class SetupError(DowdyboyError, RuntimeError):
    """Something the call needs is missing, or was done in the wrong order."""


class CheckpointError(DowdyboyError, RuntimeError):
    """A checkpoint can't be written, read or applied."""


class UnsupportedError(DowdyboyError, NotImplementedError):
    """This backend, or this device, can't do what was asked."""


def list_paths(paths: list[str]) -> str:
    """Some parameters by their paths, as the subject of a sentence; only the first of many."""
    shown = ", ".join(repr(path) for path in paths[:5])
    return (
        f"The parameter {shown}"
        if len(paths) == 1
        else f"Each of the {len(paths)} parameters {shown}{', …' if len(paths) > 5 else ''}"
    )


def unused_parameters(paths: list[str] | None, process: str = "this process") -> SetupError:
    """The error for parameters that one of several processes left without a gradient; None if nobody knows which."""
    which = "Some parameters" if paths is None else f"The parameters {paths}"
    return SetupError(
        f"{which} got no gradient in a training step of {process}. Set find_unused_parameters=True, or use them in "
        "every step."
    )

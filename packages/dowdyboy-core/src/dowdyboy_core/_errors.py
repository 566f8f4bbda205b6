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

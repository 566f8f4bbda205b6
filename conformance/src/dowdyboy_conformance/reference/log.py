"""Text logs; see :mod:`dowdyboy_core.log`."""

from dowdyboy_core.log import log, logging_conf, warn

__all__ = ["log", "logging_conf", "warn"]

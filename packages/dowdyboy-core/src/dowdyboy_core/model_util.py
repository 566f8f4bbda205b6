"""What ``model_util`` of each backend is made of: the part of it that knows no framework.

``summaries`` walks over models and lays out tables, ``copies`` copies a model to try it out, ``flops`` has the rules by
which multiply-accumulates are counted, and ``keep`` the checkpoints of loops that are written by hand. They are for
backends; a script imports ``model_util`` of the backend that it trains with.
"""

from ._utilities import copies, flops, keep, summaries
from ._utilities.flops import FlopCount, Uncounted

__all__ = ["FlopCount", "Uncounted", "copies", "flops", "keep", "summaries"]

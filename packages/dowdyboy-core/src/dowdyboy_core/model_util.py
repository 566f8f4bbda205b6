"""What ``model_util`` of each backend is made of: the part of it that knows no framework.

``summaries`` walks over models and lays out tables, ``copies`` copies a model to try it out, ``flops`` has the rules by
which multiply-accumulates are counted, ``keep`` the checkpoints of loops that are written by hand, and ``weight_files``
the weights of one model. They are for backends; a script imports ``model_util`` of the backend that it trains with.
"""

from ._utilities import copies, flops, keep, summaries, weight_files
from ._utilities.flops import FlopCount, Uncounted

__all__ = ["FlopCount", "Uncounted", "copies", "flops", "keep", "summaries", "weight_files"]

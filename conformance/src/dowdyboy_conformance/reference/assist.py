"""Output sizes of convolutions, and timing; see :mod:`dowdyboy_core.assist`."""

from dowdyboy_core.assist import (
    calc_time_used,
    get_conv_out_size,
    get_dilated_conv_out_size,
    get_trans_conv_out_size,
)

__all__ = ["calc_time_used", "get_conv_out_size", "get_dilated_conv_out_size", "get_trans_conv_out_size"]

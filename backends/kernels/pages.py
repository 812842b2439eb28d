"""Large weights in huge pages (Linux): decoding reads every weight once a token, and a processor's reading ahead ends where a
page does.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable

from torch import Tensor

_HUGE = 2 << 20  # bytes of a huge page on x86-64 and most of ARM; elsewhere the kernel refuses and nothing is lost
_MADV_COLLAPSE = 25  # Linux 6.1: make huge pages of what is already there, now


def collapse(tensors: Iterable[Tensor]) -> int:
    """Asks the kernel to put what these CPU tensors hold into huge pages -> the bytes for which it did.

    Values and addresses stay. Where the system has no such call or no such pages, nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return 0
    advise = ctypes.CDLL(None).madvise
    advise.argtypes, advise.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
    done = 0
    for tensor in tensors:
        if tensor.device.type != "cpu":
            continue
        start = -(-tensor.data_ptr() // _HUGE) * _HUGE
        size = (tensor.data_ptr() + tensor.numel() * tensor.element_size() - start) // _HUGE * _HUGE
        if size > 0 and advise(start, size, _MADV_COLLAPSE) == 0:
            done += size
    return done

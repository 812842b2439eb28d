"""Large tensors in huge pages (Linux). Weights: decoding reads every weight once a token, and a processor's reading ahead ends
where a page does. Fresh outputs: the kernel clears and maps memory page by page when it is first written to, and for 4,096
bytes at a time that costs more than the loop that writes them.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable, Iterable

from torch import Tensor

_HUGE = 2 << 20  # bytes of a huge page on x86-64 and most of ARM; elsewhere the kernel refuses and nothing is lost
_MADV_HUGEPAGE = 14  # Linux 2.6.38: what is not there yet is to come in huge pages
_MADV_COLLAPSE = 25  # Linux 6.1: make huge pages of what is already there, now


@functools.cache
def _advise() -> Callable[[int, int, int], int] | None:
    """madvise(address, bytes, advice) -> 0 where the kernel did it; None where there is no such call."""
    if not sys.platform.startswith("linux"):
        return None
    found = ctypes.CDLL(None).madvise
    found.argtypes, found.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
    return found


def _advised(tensor: Tensor, advice: int) -> int:
    """Gives advice on the huge pages that lie wholly within a CPU tensor -> the bytes for which the kernel took it."""
    advise = _advise()
    if advise is None or tensor.device.type != "cpu":
        return 0
    start = -(-tensor.data_ptr() // _HUGE) * _HUGE
    size = (tensor.data_ptr() + tensor.numel() * tensor.element_size() - start) // _HUGE * _HUGE
    return size if size > 0 and advise(start, size, advice) == 0 else 0


def prefer(tensor: Tensor) -> int:
    """Asks the kernel to fill a new, contiguous CPU tensor with huge pages -> the bytes for which it will if it has them.

    Values and addresses stay. Where the system has no such call or no such pages, nothing happens.
    """
    return _advised(tensor, _MADV_HUGEPAGE)


def collapse(tensors: Iterable[Tensor]) -> int:
    """Asks the kernel to put what these CPU tensors hold into huge pages -> the bytes for which it did.

    Values and addresses stay. Where the system has no such call or no such pages, nothing happens.
    """
    return sum(_advised(tensor, _MADV_COLLAPSE) for tensor in tensors)

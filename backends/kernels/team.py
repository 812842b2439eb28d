"""Threads for the C++ loops: those that torch's operators run on.

torch keeps a pool of OpenMP threads, which wait for the next operator by spinning. A thread started beside them shares a
processor with one that spins, and a loop on two threads then takes as long as on one. So the loops borrow the pool, and
start threads of their own only where there is none: where torch was built without GNU OpenMP, and after a fork, which no
pool survives.
"""

from __future__ import annotations

import ctypes
import functools
import os


@functools.cache
def _pool() -> int | None:
    """The address of GOMP_parallel in the OpenMP library that torch loaded for all; None where there is none."""
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value
    except (AttributeError, OSError, TypeError):  # TypeError: Windows has no library of all names
        return None


SIGNATURE = {"neuro_lend_team": ((ctypes.c_void_p,), None)}  # of every library that `common.hpp` is part of


def lent(library: ctypes.CDLL | None) -> ctypes.CDLL | None:
    """The library, on torch's threads from now on where there are any. torch has to be imported by now."""
    if library is not None and (pool := _pool()) is not None:
        library.neuro_lend_team(pool)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=functools.partial(library.neuro_lend_team, None))
    return library

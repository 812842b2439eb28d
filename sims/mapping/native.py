"""The refinement in C++ (`refine.cpp`), loaded with ctypes. Optional: `library` is None where it was not built."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

from backends.kernels import shared_library

_VERSION = 2  # kVersion of refine.cpp: a library that an older checkout left behind has another interface
_POINTER, _INDEX = ctypes.c_void_p, ctypes.c_int64
NUMBERS = (
    *("vertices", "nets", "cores", "most_neurons", "most_in", "most_out", "most_bits"),
    *("longest_row", "budget", "rounds", "seed"),
)
ARRAYS = ("pins_at", "pins", "source", "weight", "table", "rows", "fixed", "size", "frozen", "apart", "part")


class Run(ctypes.Structure):
    """`Run` of refine.cpp."""

    _fields_ = (*((name, _INDEX) for name in NUMBERS), *((name, _POINTER) for name in ARRAYS))


def _load(folder: Path) -> tuple[ctypes.CDLL | None, str]:
    argument = (ctypes.POINTER(Run),)
    functions = {"neuro_mapping_refine": (argument, _INDEX), "neuro_mapping_order": (argument, None)}
    return shared_library.load(folder, "mapping", _VERSION, functions)


@functools.cache
def library() -> ctypes.CDLL | None:
    """The built library, or None."""
    return _load(Path(__file__).parent)[0]


def status() -> tuple[bool, str]:
    """(built and loaded, the file or why not)."""
    return library() is not None, _load(Path(__file__).parent)[1]

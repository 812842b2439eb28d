"""The refinement in C++ (`refine.cpp`), loaded with ctypes. Optional: `library` is None where it was not built."""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
from pathlib import Path

_VERSION = 1  # kVersion of refine.cpp: a library that an older checkout left behind has another interface
_POINTER, _INDEX = ctypes.c_void_p, ctypes.c_int64
NUMBERS = (
    *("vertices", "nets", "cores", "most_neurons", "most_in", "most_out", "most_bits"),
    *("longest_row", "budget", "rounds", "seed"),
)
ARRAYS = ("pins_at", "pins", "source", "weight", "table", "rows", "fixed", "size", "frozen", "part")


class Run(ctypes.Structure):
    """`Run` of refine.cpp."""

    _fields_ = (*((name, _INDEX) for name in NUMBERS), *((name, _POINTER) for name in ARRAYS))


@functools.cache
def library() -> ctypes.CDLL | None:
    """The built library, or None."""
    return _load(Path(__file__).parent)[0]


def status() -> tuple[bool, str]:
    """(built and loaded, the file or why not)."""
    return library() is not None, _load(Path(__file__).parent)[1]


def _load(folder: Path) -> tuple[ctypes.CDLL | None, str]:
    paths = [folder / f"_mapping{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return None, "it was not built when neuro-hybrid was installed"
    try:
        found = ctypes.CDLL(str(path))
        found.neuro_mapping_version.restype = _INDEX
        version = found.neuro_mapping_version()
        if version != _VERSION:
            return None, f"{path.name} has interface {version}, expected {_VERSION}"
        found.neuro_mapping_refine.argtypes, found.neuro_mapping_refine.restype = (ctypes.POINTER(Run),), _INDEX
        found.neuro_mapping_order.argtypes, found.neuro_mapping_order.restype = (ctypes.POINTER(Run),), None
    except (OSError, AttributeError) as error:  # another machine's library, or something else of that name
        return None, f"{path.name} does not load ({error})"
    return found, path.name

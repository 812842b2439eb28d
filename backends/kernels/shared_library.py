"""Loads a C++ library with ctypes, without torch: what is missing, foreign or of another interface is named and left alone."""

from __future__ import annotations

import ctypes
import importlib.machinery
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def load(
    folder: Path, stem: str, version: int, functions: Mapping[str, tuple[tuple[Any, ...], Any]]
) -> tuple[ctypes.CDLL | None, str]:
    """The library ``_stem`` of a folder and its file's name, or None and why not.

    Args:
        version: what ``neuro_stem_version()`` must say: a library that an older checkout left behind has another interface.
        functions: the types of each function's arguments, and of its result.
    """
    paths = [folder / f"_{stem}{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return None, "it was not built when neuro-hybrid was installed"
    try:
        found = ctypes.CDLL(str(path))
        has = getattr(found, f"neuro_{stem}_version")()
        if has != version:
            return None, f"{path.name} has interface {has}, expected {version}"
        for name, (arguments, result) in functions.items():
            function = getattr(found, name)
            function.argtypes, function.restype = arguments, result
    except (OSError, AttributeError) as error:  # another machine's library, or something else of that name
        return None, f"{path.name} does not load ({error})"
    return found, path.name

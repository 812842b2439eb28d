"""Devices and operators. Decides once, at construction, what runs where; knows no brain.

``select("auto")`` takes the first of cuda, xpu, mps and the CPU that is here; DirectML is used when asked for by name.

Importing this package does not import torch; what is taken from it does, so that `backends.kernels.shared_library` serves
what runs without.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backends import devices, directml, native, portable
    from backends.contract import Backend, LifRule, Ops
    from backends.errors import BackendError, ForbiddenOperatorError
    from backends.selection import NAMES, Availability, available, parse, select
    from backends.surrogate import Surrogate

__all__ = [
    "NAMES",
    "Availability",
    "Backend",
    "BackendError",
    "ForbiddenOperatorError",
    "LifRule",
    "Ops",
    "Surrogate",
    "available",
    "devices",
    "directml",
    "native",
    "parse",
    "portable",
    "select",
]

_LAZY = dict.fromkeys(("NAMES", "Availability", "available", "parse", "select"), "backends.selection")
_LAZY |= dict.fromkeys(("Backend", "LifRule", "Ops"), "backends.contract")
_LAZY |= dict.fromkeys(("BackendError", "ForbiddenOperatorError"), "backends.errors") | {
    "Surrogate": "backends.surrogate"
}

_MODULES = ("devices", "directml", "native", "portable")  # as in ``backends.portable.OPS``


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"backends.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module 'backends' has no attribute '{name}'")
    return getattr(importlib.import_module(_LAZY[name]), name)

"""Energy: sourced constants with intervals, priced on counted events, and predictions from published runs."""

from __future__ import annotations

from typing import Any

_LAZY = {"predict": "sims.energy.prediction", "predict_draws": "sims.energy.prediction"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'sims.energy' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)

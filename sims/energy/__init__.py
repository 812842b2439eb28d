"""Energy: sourced constants with intervals, priced on counted events, and predictions from published runs.

`count` is the operator counter of `sims.counting`, which alone here needs torch; `predict` and `predict_draws` are those of
`sims.energy.prediction`. Each is imported when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {
    "count": "sims.counting",
    "predict": "sims.energy.prediction",
    "predict_draws": "sims.energy.prediction",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'sims.energy' has no attribute '{name}'")
    return getattr(importlib.import_module(_LAZY[name]), name)

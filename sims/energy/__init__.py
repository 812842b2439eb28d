"""Energy: sourced constants with intervals, priced on counted events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuro.workload import Workload


def count(module: Any, inputs: Any, **options: Any) -> Workload:
    """What a torch module does on ``inputs``, counted: `sims.counting.count`, which alone here needs torch."""
    from sims.counting import count

    return count(module, inputs, **options)

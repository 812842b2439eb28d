"""The circuits by name, what is published of each and what ours measured (`reference.toml` beside each)."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sims.circuits import amygdala_fear, ca3_recall, lif_curve, ripple_replay, sleep_wake, theta_gamma
from sims.circuits.outcome import Outcome

STUDIES: dict[str, Callable[[int, bool], Outcome]] = {
    "lif-curve": lif_curve.run,
    "ca3-recall": ca3_recall.run,
    "theta-gamma": theta_gamma.run,
    "amygdala-fear": amygdala_fear.run,
    "sleep-wake": sleep_wake.run,
    "ripple-replay": ripple_replay.run,
}


def reference(name: str) -> Path:
    """The file of what is published of a circuit, beside its module."""
    return Path(__file__).parent / name.replace("-", "_") / "reference.toml"


def record(name: str) -> dict[str, Any]:
    """Of a circuit: phenomenon, source and DOI, lesion and the statistic it abolishes, how parameters were fitted, seeds, and
    of each statistic its unit, role, published value and spread, ours (mean and standard deviation over the seeds, None where
    undefined) and the lesioned.

    A statistic's role is "fitted" (parameters were chosen by it) or "reported" (they were not). What is published is a number,
    a range of two, "direction only" or "none found"; its spread says of what.
    """
    found: dict[str, Any] = tomllib.loads(reference(name).read_text(encoding="utf-8"))
    for row in found["statistics"].values():
        row |= {key: None for key, value in row.items() if isinstance(value, float) and math.isnan(value)}
    return found

"""The circuits by name, what is published of each and what ours measured (`record.json`)."""

from __future__ import annotations

import json
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
RECORD = Path(__file__).with_name("record.json")


def record(name: str) -> dict[str, Any]:
    """Of a circuit: phenomenon, source and DOI, lesion, seeds, and of each statistic its unit, role, published value and
    spread, ours (mean and standard deviation over the seeds) and the lesioned.

    A statistic's role is "fitted" (parameters were chosen by it) or "reported" (they were not).
    """
    found: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))[name]
    return found

"""Predicted against measured, each run predicted without itself, its network or its platform, and two plain rivals beside.

A 90 % interval is scored as Gneiting and Raftery (JASA 102, 2007, section 6.2) do, here on log10 joules: its width, and 20
times what it misses by. Lower is better.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from sims.energy import calibrate
from sims.energy.prediction import predict_draws
from sims.energy.streams import Interval, interval
from sims.energy.technologies import Run, Technology, technologies

HELD_OUT = ("run", "network", "platform")
QUANTITIES = ("dynamic", "total", "time")
_ALPHA = 0.1
_Z = 1.645


@dataclasses.dataclass(frozen=True)
class Case:
    """One published run, predicted without what was held out."""

    run: str
    platform: str
    calibrated: bool  # whether runs of this platform were left
    measured: float  # joules, or seconds, per inference
    predicted: Interval
    per_operation: Interval | None  # joules per operation of the runs left, and their spread
    mean: Interval | None  # of the runs left, and their spread: the platform's, or the others' where it has none left

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted.median / self.measured - 1

    @property
    def half_width(self) -> float:
        """The factor between the median and either end."""
        return math.sqrt(self.predicted.hi / self.predicted.lo)

    @property
    def covered(self) -> bool:
        return self.predicted.lo <= self.measured <= self.predicted.hi


def cases(held_out: str = "run", quantity: str = "dynamic") -> list[Case]:
    """Every run that its platform is fitted to, predicted without it, its network (on every platform), or its platform."""
    tables = {name: table for name, table in technologies().items() if table.model in calibrate.FORMS}
    found = []
    for table in tables.values():
        for run in calibrate.usable(table, "dynamic"):
            measured = _measured(run, quantity)
            if measured is None or (quantity == "time" and table.model == "spikes"):
                continue
            out = {"run": {run.id}, "platform": {table.platform}, "network": _of_network(tables, run.network)}[held_out]
            rest = _left(table, out)
            if not rest and table.model != "calls":
                continue  # nothing else says anything about such a platform
            draws = predict_draws(table.platform, **inputs(run), leave_out=out)
            told = [(table, r) for r in rest] or [
                (other, r) for other in tables.values() if other.model == table.model for r in _left(other, out)
            ]
            joules = {"dynamic": draws.dynamic, "total": draws.total, "time": draws.time_s}[quantity]
            found.append(
                Case(
                    run.id,
                    table.platform,
                    bool(rest),
                    measured,
                    interval(joules),
                    _plain([(_measured(r, quantity), operations(t, r)) for t, r in told], operations(table, run)),
                    _plain([(_measured(r, quantity), 1.0) for _, r in told], 1.0),
                )
            )
    return found


def inputs(run: Run) -> dict[str, Any]:
    """What `predict` is told of a run."""
    given: dict[str, Any] = {"macs": run.macs, "layers": run.layers, "synops": run.synops, "spikes": run.spikes}
    return {name: value for name, value in given.items() if value is not None} | {
        "batch": run.batch,
        "steps": run.steps,
    }


def operations(table: Technology, run: Run) -> float:
    """Operations of one inference, as a constant energy per operation counts them."""
    return run.spikes or run.synops or (run.macs or 0.0) * (run.steps if table.model == "steps" else 1)


def score(predicted: Interval, measured: float) -> float:
    """The interval score on log10."""
    lo, hi, y = math.log10(predicted.lo), math.log10(predicted.hi), math.log10(measured)
    return hi - lo + 2 / _ALPHA * (max(0.0, lo - y) + max(0.0, y - hi))


def summary(found: Sequence[Case]) -> dict[str, float]:
    """Coverage, median half-width and error, and mean scores over the cases that both rivals can predict."""
    both = [(case, case.per_operation, case.mean) for case in found if case.per_operation and case.mean]
    result = {
        "cases": float(len(found)),
        "covered": float(np.mean([case.covered for case in found])),
        "chance": chance(sum(case.covered for case in found), len(found)),
        "half_width": float(np.median([case.half_width for case in found])),
        "error": float(np.median([abs(case.error) for case in found])),
        "compared": float(len(both)),
    }
    if both:
        result["score"] = float(np.mean([score(case.predicted, case.measured) for case, _, _ in both]))
        result["score_per_operation"] = float(np.mean([score(rival, case.measured) for case, rival, _ in both]))
        result["score_mean"] = float(np.mean([score(rival, case.measured) for case, _, rival in both]))
    return result


def chance(covered: int, found: int, level: float = 1 - _ALPHA) -> float:
    """How likely so few or so many inside are where the intervals are right: an exact binomial, twice the smaller tail.

    Cases of one platform stray together, so this is too small rather than too large.
    """
    weights = [math.comb(found, k) * level**k * (1 - level) ** (found - k) for k in range(found + 1)]
    return min(1.0, 2 * min(sum(weights[: covered + 1]), sum(weights[covered:])))


def _left(table: Technology, out: Collection[str]) -> list[Run]:
    return calibrate.usable(table, "dynamic", out)


def _measured(run: Run, quantity: str) -> float | None:
    return {"dynamic": run.dynamic_j, "total": run.total_j, "time": run.time_s}[quantity]


def _of_network(tables: dict[str, Technology], network: str) -> set[str]:
    return {run.id for table in tables.values() for run in table.runs if run.network == network}


def _plain(others: Sequence[tuple[float | None, float]], operations: float) -> Interval | None:
    logs = [math.log(value / count) for value, count in others if value is not None]
    if len(logs) < 2:
        return None
    mean, spread = float(np.mean(logs)), _Z * float(np.std(logs, ddof=1))
    lo, median, hi = (operations * math.exp(mean + side * spread) for side in (-1, 0, 1))
    return Interval(median, lo, hi)

"""Named streams of standard normal draws: the same name and seed give the same draws, wherever they are used.

2,000 draws, a Latin hypercube (McKay et al., Technometrics 21, 1979): each stream takes every 2,000th of the distribution once,
in random order. Two prices that share a constant share its draws, so their ratio has an interval of its own.
"""

from __future__ import annotations

import dataclasses
import statistics
import zlib
from collections.abc import Mapping

import numpy as np

DRAWS = 2000
_GRID = np.array([statistics.NormalDist().inv_cdf((i + 0.5) / DRAWS) for i in range(DRAWS)])


@dataclasses.dataclass(frozen=True)
class Interval:
    """Median, 5 and 95 % points."""

    median: float
    lo: float
    hi: float


def normal(name: str, seed: int) -> np.ndarray:
    """The stream of this name, `[DRAWS]`. A stream added anywhere moves no other."""
    order = np.random.default_rng([seed, zlib.crc32(name.encode())]).permutation(DRAWS)
    return _GRID[order]


def interval(draws: np.ndarray) -> Interval:
    """Median, 5 and 95 % points of draws."""
    lo, median, hi = np.quantile(draws, [0.05, 0.5, 0.95])
    return Interval(float(median), float(lo), float(hi))


def shares(terms: Mapping[str, np.ndarray]) -> dict[str, float]:
    """What each term takes of the variance of their sum: its covariance with it. They add up to 1; none if nothing varies."""
    total = sum(terms.values(), np.zeros(DRAWS))
    away = total - total.mean()
    variance = float(away @ away)
    return {name: float((draws - draws.mean()) @ away) / variance for name, draws in terms.items()} if variance else {}

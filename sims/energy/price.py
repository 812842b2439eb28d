"""Counts times constants, with intervals: E = sum n_k e_k, e_k log-normal, one common factor per platform.

    e_k = value_k exp(sigma_k z_k) exp(sigma_setup z),   sigma_k = ln(hi / lo) / 3.29

The same draws serve every region, so parts and wholes agree. Medians and 5 and 95 % points of 2,000 seeded draws, a Latin
hypercube (McKay et al., Technometrics 21, 1979): each constant takes every 2,000th of its distribution once, in random order.
"""

from __future__ import annotations

import dataclasses
import statistics
import zlib
from collections.abc import Sequence

import numpy as np

from sims.energy.technologies import Technology

DRAWS = 2000
JOULES_PER_PJ = 1e-12
_GRID = np.array([statistics.NormalDist().inv_cdf((i + 0.5) / DRAWS) for i in range(DRAWS)])


@dataclasses.dataclass(frozen=True)
class Term:
    """How often one kind of event happened in one part of one region."""

    region: str
    part: str
    kind: str
    count: int


@dataclasses.dataclass(frozen=True)
class Interval:
    """Joules: median, 5 and 95 % points."""

    median: float
    lo: float
    hi: float


@dataclasses.dataclass(frozen=True)
class Priced:
    """The terms of one platform in joules."""

    total: Interval
    by_kind: dict[str, Interval]
    by_region: dict[str, Interval]
    variance_share: dict[str, float]  # of each kind, first order, plus the common "setup" factor


def price(terms: Sequence[Term], technology: Technology, seed: int) -> Priced:
    """Price terms; a kind of event that never happened costs exactly 0."""
    setup = np.exp(technology.setup.sigma * _normal(f"{technology.platform}.setup", seed))
    energy = {
        c.kind: c.value * JOULES_PER_PJ * np.exp(c.sigma * _normal(c.id, seed)) * setup for c in technology.constants
    }
    zero = np.zeros(DRAWS)
    kinds = dict.fromkeys(energy, zero)
    regions: dict[str, np.ndarray] = {}
    for term in terms:
        joules = float(term.count) * energy[term.kind]
        kinds[term.kind] = kinds[term.kind] + joules
        regions[term.region] = regions.get(term.region, zero) + joules
    return Priced(
        _interval(sum(kinds.values(), zero)),
        {kind: _interval(draws) for kind, draws in kinds.items()},
        {region: _interval(draws) for region, draws in regions.items()},
        _variance(terms, technology),
    )


def _normal(name: str, seed: int) -> np.ndarray:
    # One stream per name: a constant added to a table moves no other draw, and platforms share none.
    order = np.random.default_rng([seed, zlib.crc32(name.encode())]).permutation(DRAWS)
    return _GRID[order]


def _interval(draws: np.ndarray) -> Interval:
    lo, median, hi = np.quantile(draws, [0.05, 0.5, 0.95])
    return Interval(float(median), float(lo), float(hi))


def _variance(terms: Sequence[Term], technology: Technology) -> dict[str, float]:
    nominal = {c.kind: sum(t.count for t in terms if t.kind == c.kind) * c.value for c in technology.constants}
    total = sum(nominal.values())
    if total == 0:
        return {}
    parts = {c.kind: (c.sigma * nominal[c.kind] / total) ** 2 for c in technology.constants}
    parts["setup"] = technology.setup.sigma**2
    whole = sum(parts.values())
    return {kind: part / whole for kind, part in parts.items()} if whole else {}

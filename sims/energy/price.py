"""Counts times constants, with intervals: E = sum n_k e_k, e_k log-normal, one common factor per platform.

    e_k = value_k exp(sigma_k z_k) exp(sigma_setup z),   sigma_k = ln(hi / lo) / 3.29

The same draws serve every region, so parts and wholes agree. Medians and 5 and 95 % points of 2,000 seeded draws.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from sims.energy.technologies import Technology

DRAWS = 2000


@dataclasses.dataclass(frozen=True)
class Term:
    """How often one kind of event happened in one region."""

    region: str
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


def price(terms: list[Term], technology: Technology, seed: int) -> Priced:
    """Price terms; a kind of event that never happened costs exactly 0."""
    random = np.random.default_rng(seed)
    setup = np.exp(technology.setup_sigma * random.standard_normal(DRAWS))
    energy = {c.kind: c.value * 1e-12 * np.exp(c.sigma * random.standard_normal(DRAWS)) for c in technology.constants}
    zero = np.zeros(DRAWS)
    kinds = {kind: zero.copy() for kind in energy}
    regions: dict[str, np.ndarray] = {}
    for term in terms:
        joules = term.count * energy[term.kind] * setup
        kinds[term.kind] = kinds[term.kind] + joules
        regions[term.region] = regions.get(term.region, zero) + joules
    total = sum(kinds.values(), zero)
    return Priced(
        _interval(total),
        {kind: _interval(draws) for kind, draws in kinds.items()},
        {region: _interval(draws) for region, draws in regions.items()},
        _variance(terms, technology),
    )


def _interval(draws: np.ndarray) -> Interval:
    lo, median, hi = np.quantile(draws, [0.05, 0.5, 0.95])
    return Interval(float(median), float(lo), float(hi))


def _variance(terms: list[Term], technology: Technology) -> dict[str, float]:
    nominal = {c.kind: sum(t.count for t in terms if t.kind == c.kind) * c.value for c in technology.constants}
    total = sum(nominal.values())
    if total == 0:
        return {}
    parts = {c.kind: (c.sigma * nominal[c.kind] / total) ** 2 for c in technology.constants}
    parts["setup"] = technology.setup_sigma**2
    return {kind: part / sum(parts.values()) for kind, part in parts.items()}

"""Counts times constants, with intervals: E = sum n_k e_k, e_k log-normal, and factors that a platform's constants share.

    e_k = value_k exp(sigma_k z_k) exp(sigma_common z) exp(sigma_setup z'),   sigma_k = ln(hi / lo) / 3.29

The common factor is the error of a fit that all event energies come from; the setup factor is another board or software
version, one for events and one for static power. A kind of basis Static is counted in seconds.
The same draws serve every region and every price of the platform, so parts, wholes and ratios agree (`sims.energy.streams`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from neuro.errors import UsageError, nearest
from sims.energy.streams import DRAWS as DRAWS
from sims.energy.streams import Interval as Interval
from sims.energy.streams import interval, normal
from sims.energy.technologies import UNITS, Constant, Technology


@dataclasses.dataclass(frozen=True)
class Term:
    """How often one kind of event happened in one part of one region; seconds of a static power."""

    region: str
    part: str
    kind: str
    count: float


@dataclasses.dataclass(frozen=True, eq=False)
class Draws:
    """Joules drawn, `[DRAWS]` each."""

    total: np.ndarray
    by_kind: dict[str, np.ndarray]
    by_region: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Priced:
    """The terms of one platform in joules."""

    total: Interval
    by_kind: dict[str, Interval]
    by_region: dict[str, Interval]
    variance_share: dict[str, float]  # of each kind, first order, plus the factors "common", "setup" and "setup_static"
    platform: str = ""
    boundary: str = "dynamic"  # "total" where static power is inside
    scope: str = "device"
    unpriced: tuple[str, ...] = ()  # kinds or costs that exist and are not in the total: it is a lower bound
    draws: Draws | None = dataclasses.field(default=None, compare=False, repr=False)


def price(terms: Sequence[Term], technology: Technology, seed: int) -> Priced:
    """Price terms; a kind of event that never happened costs exactly 0.

    Raises:
        UsageError: a negative count, a kind the platform has no energy for, an event beside an all-in constant, static
            power beside one that has it inside, or a kind that is part of another one counted too.
    """
    constants = {c.kind: c for c in technology.constants if c.priced}
    check(terms, technology)
    energy = {kind: drawn(c, technology, seed) for kind, c in constants.items() if any(t.kind == kind for t in terms)}
    zero = np.zeros(DRAWS)
    kinds = dict.fromkeys(energy, zero)
    regions: dict[str, np.ndarray] = {}
    for term in terms:
        joules = float(term.count) * energy[term.kind]
        kinds[term.kind] = kinds[term.kind] + joules
        regions[term.region] = regions.get(term.region, zero) + joules
    total = sum(kinds.values(), zero)
    return Priced(
        interval(total),
        {kind: interval(draws) for kind, draws in kinds.items()},
        {region: interval(draws) for region, draws in regions.items()},
        _variance(terms, technology),
        technology.platform,
        "total" if any(_holds_static(constants[kind]) for kind in kinds) else "dynamic",
        technology.scope,
        unpriced(kinds, technology),
        Draws(total, kinds, regions),
    )


def drawn(constant: Constant, technology: Technology, seed: int, setup: bool = True) -> np.ndarray:
    """Draws of one constant in SI units; without the factor of another setup where the same setup is asked about."""
    logarithm = constant.sigma * normal(constant.id, seed)
    if constant.basis == "Static":
        factors = {"setup_static": technology.setup.static_sigma} if setup else {}
    elif constant.priced:
        factors = {"common": technology.common_sigma} | ({"setup": technology.setup.sigma} if setup else {})
    else:
        factors = {}
    for name, sigma in factors.items():
        if sigma:
            logarithm = logarithm + sigma * normal(f"{technology.platform}.{name}", seed)
    return constant.value * UNITS[constant.unit] * np.exp(logarithm)


def check(terms: Sequence[Term], technology: Technology) -> None:
    """The rules of what may be added."""
    constants = {c.kind: c for c in technology.constants if c.priced}
    for term in terms:
        if not term.count >= 0:
            raise UsageError(
                f"{term.region}, {term.kind}: got {term.count}, expected a count of at least 0.", "Count again."
            )
        if term.kind not in constants:
            raise UsageError(
                f"{technology.platform}: got '{term.kind}' to price, expected one of {', '.join(constants) or 'none'}.",
                nearest(term.kind, list(constants)) if constants else "Take another platform.",
            )
    counted = {term.kind for term in terms if term.count}
    for kind in sorted(counted):
        c = constants[kind]
        others = counted - {kind}
        if c.basis == "AllIn":
            others -= {o for o in others if constants[o].basis == "Static" and "static" not in c.includes}
            if others:
                raise UsageError(
                    f"{c.id}: got {', '.join(sorted(others))} beside it, expected it alone: it is all-in.",
                    "Leave the others out; they are inside.",
                )
        elif inside := sorted(others & set(c.includes)):
            raise UsageError(
                f"{c.id}: got {', '.join(inside)} counted too, which it includes.",
                "Count either the whole or its parts.",
            )


def unpriced(counted: Sequence[str] | dict[str, np.ndarray], technology: Technology) -> tuple[str, ...]:
    """What a total over these kinds lacks: costs without a price, and per-term kinds that were not counted.

    Of kinds of which one stands for the other (number formats, memory levels) one is enough.
    """
    rows = [row for row in technology.unpriced if not set(row.until) & set(counted)]
    named = {kind for row in technology.unpriced for kind in row.until}
    inside = {part for c in technology.constants if c.kind in counted for part in c.includes} & set(technology.kinds)
    stands_for = {kind: group for group in technology.alternatives for kind in group}
    done = {*counted, *inside}.union(*(stands_for.get(kind, ()) for kind in {*counted, *inside}))
    wholes = {c.kind for c in technology.constants if set(c.includes) & done}
    per_term = [c.kind for c in technology.constants if c.priced and c.basis in ("PerTerm", "Incremental", "Step")]
    missing = [kind for kind in per_term if kind not in {*done, *named, *wholes}]
    named_once = dict.fromkeys(" or ".join(stands_for.get(kind, (kind,))) for kind in missing)
    return tuple(row.id for row in rows) + tuple(named_once)


def _holds_static(constant: Constant) -> bool:
    return constant.basis == "Static" or (constant.basis == "AllIn" and "static" in constant.includes)


def _variance(terms: Sequence[Term], technology: Technology) -> dict[str, float]:
    constants = {c.kind: c for c in technology.constants if c.priced}
    nominal: dict[str, float] = {}
    for term in terms:
        nominal[term.kind] = nominal.get(term.kind, 0.0) + term.count * constants[term.kind].si
    total = sum(nominal.values())
    if total == 0:
        return {}
    static = sum(joules for kind, joules in nominal.items() if constants[kind].basis == "Static") / total
    parts = {kind: (constants[kind].sigma * joules / total) ** 2 for kind, joules in nominal.items()}
    parts["common"] = (technology.common_sigma * (1 - static)) ** 2
    parts["setup"] = (technology.setup.sigma * (1 - static)) ** 2
    parts["setup_static"] = (technology.setup.static_sigma * static) ** 2
    whole = sum(parts.values())
    needed = {kind: part / whole for kind, part in parts.items() if part or kind in nominal} if whole else {}
    return needed

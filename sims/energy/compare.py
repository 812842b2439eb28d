"""Ratios of two energies, draw by draw: constants that both sides share cancel, and the ratio has an interval of its own."""

from __future__ import annotations

import numpy as np

from neuro.errors import UsageError
from sims.energy.prediction import Prediction
from sims.energy.price import Priced
from sims.energy.streams import Interval, interval

LOWER, UNDECIDED, HIGHER = "lower with at least 95 %", "undecided", "higher with at least 95 %"
BOUNDARIES = ("total", "dynamic")


def ratio(a: Priced | Prediction, b: Priced | Prediction, boundary: str = "total") -> tuple[Interval, str]:
    """(a / b, verdict on a): how many times b's energy a takes.

    Args:
        boundary: "total" with static and idle power on both sides, or "dynamic" without on both.

    Raises:
        UsageError: an unknown boundary, a side that has not this boundary, sides of which one is a chip and the other
            a board or arithmetic alone, or a side without energy.
    """
    if boundary not in BOUNDARIES:
        raise UsageError(
            f"ratio: got boundary '{boundary}', expected one of {', '.join(BOUNDARIES)}.", "Name one of them."
        )
    if a.scope != b.scope:
        raise UsageError(
            f"ratio: got {a.platform} of scope '{a.scope}' and {b.platform} of scope '{b.scope}', expected one scope.",
            "Compare device with device, or arithmetic with arithmetic.",
        )
    above, below = _side(a, boundary), _side(b, boundary)
    draws = above / below
    return interval(draws), verdict(draws)


def verdict(ratios: np.ndarray) -> str:
    """In words, whether ratios lie below 1."""
    if np.mean(ratios < 1) >= 0.95:
        return LOWER
    return HIGHER if np.mean(ratios > 1) >= 0.95 else UNDECIDED


def _side(side: Priced | Prediction, boundary: str) -> np.ndarray:
    if isinstance(side, Prediction):
        draws = side.total if boundary == "total" else side.dynamic
        has = not np.isnan(draws).any() and (boundary == "dynamic" or _timed(side))
    else:
        assert side.draws is not None, "a price without draws"
        draws, has = side.draws.total, side.boundary == boundary
    if not has:
        raise UsageError(
            f"ratio: got {side.platform} without a {boundary} energy, expected both sides {boundary}.",
            "Count static power on both sides, or on neither.",
        )
    if not (draws > 0).all():
        raise UsageError(f"ratio: got {side.platform} without any energy, expected more than 0 J.", "Count its events.")
    return draws


def _timed(side: Prediction) -> bool:
    """Whether idle power is inside: on its own line, or in an all-in constant."""
    return "static" in side.terms or bool(np.isnan(side.dynamic).any())

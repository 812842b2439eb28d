"""Intervals: a bootstrap over units (articles, places of a text), with moving blocks inside the units where asked for.

What is measured is a ratio of sums (nats over words), so a unit is a table with one column for each thing that is summed:
words, the nats of one arm, the nats of another. A draw takes the same units and the same blocks for every column;
whatever is computed from two columns of a draw is therefore paired.

Percentile bootstrap: Efron and Tibshirani 1993. Moving blocks: Künsch 1989, Annals of Statistics 17(3). Tokens in a row
are alike, so resampling them one by one would promise too much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

DRAWS = 1000

Interval = tuple[float, float]


def resampled_sums(
    units: Sequence[np.ndarray], block: int | None = None, draws: int = DRAWS, seed: int = 0
) -> np.ndarray:
    """Sums of every column over resampled units -> [C, draws].

    Args:
        units: a table [rows, C] of each unit, its rows in the order of the text.
        block: rows of a block; then the rows of each drawn unit are as many blocks of it, begun anywhere, as it holds.
            None keeps a unit as it is.
    """
    random = np.random.default_rng(seed)
    picks = random.integers(0, len(units), (draws, len(units)))
    if block is None:
        totals = np.stack([unit.sum(0) for unit in units], 1)
        return np.stack([column[picks].sum(1) for column in totals])
    sums = np.zeros((draws, units[0].shape[1]))
    for number, unit in enumerate(units):
        rows = len(unit)
        size = min(block, rows)
        before = np.concatenate([np.zeros((1, unit.shape[1])), unit.cumsum(0)])
        of_block = before[size:] - before[:-size]  # [rows - size + 1, C]
        draw = np.nonzero(picks == number)[0]
        starts = random.integers(0, len(of_block), (len(draw), round(rows / size)))
        np.add.at(sums, draw, of_block[starts].sum(1))
    return sums.T


def nested_sums(groups: Sequence[np.ndarray], draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Sums of every column over units resampled in two levels: first the groups (seeds), then the units of each -> [C, draws].

    Args:
        groups: a table [units, C] of each group, a row for each unit (an episode, a block); one group is resampled as it is.
    """
    random = np.random.default_rng(seed)
    sums = np.zeros((groups[0].shape[1], draws))
    picks = random.integers(0, len(groups), (draws, len(groups)))
    for column in range(len(groups)):
        for number, group in enumerate(groups):
            drawn = np.nonzero(picks[:, column] == number)[0]
            units = random.integers(0, len(group), (len(drawn), len(group)))
            sums[:, drawn] += group[units].sum(1).T
    return sums


def exponential(exponents: np.ndarray) -> tuple[float | None, Interval | None]:
    """exp of a value [0] and the 95 % interval over its draws [1:]; None, each, where a float cannot hold it.

    A perplexity is told per word, and in a script without spaces a word is a line: hundreds of nats.
    """
    with np.errstate(over="ignore"):
        values = np.exp(exponents)
    value, draws = float(values[0]), values[1:]
    told = interval(draws) if len(draws) and np.isfinite(draws).all() else None
    return (value, told) if math.isfinite(value) else (None, None)


def interval(values: np.ndarray) -> Interval:
    """The middle 95 % of the draws [draws]."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)

"""The bootstrap: what it promises is true of made-up data, and what is compared is paired."""

from __future__ import annotations

import numpy as np
import pytest

from neuro.evaluate import statistics


def covered(units: list[np.ndarray], block: int | None, truth: float = 0.0) -> bool:
    """Whether the interval of the mean (second column: counts) holds the truth."""
    total, count = statistics.resampled_sums(units, block, draws=200)
    low, high = statistics.interval(total / count)
    return low <= truth <= high


def table(values: np.ndarray) -> np.ndarray:
    return np.stack([values, np.ones_like(values)], 1)


def autoregressive(sets: int, length: int, memory: float, random: np.random.Generator) -> np.ndarray:
    """Stationary series [sets, length] of mean 0 and variance 1: tokens in a row are alike."""
    noise = random.standard_normal((sets, length)) * np.sqrt(1 - memory**2)
    noise[:, 0] /= np.sqrt(1 - memory**2)
    for t in range(1, length):
        noise[:, t] += memory * noise[:, t - 1]
    return noise


def test_whole_units_are_drawn_as_the_published_intervals_were():
    random = np.random.default_rng(5)
    nats, words = random.gamma(9.0, 40.0, 30), random.integers(20, 90, 30)
    rows = np.random.default_rng(0).integers(0, 30, (1000, 30))
    expected = np.quantile(np.exp(nats[rows].sum(1) / words[rows].sum(1)), [0.025, 0.975])
    drawn_nats, drawn_words = statistics.resampled_sums(list(np.stack([nats, words], 1)[:, None]))
    assert statistics.interval(np.exp(drawn_nats / drawn_words)) == tuple(expected)


def test_an_interval_over_units_holds_the_truth_as_often_as_it_says():
    random = np.random.default_rng(1)
    data = random.standard_normal((300, 30))
    share = np.mean([covered([table(row[None, i]) for i in range(30)], None) for row in data])
    assert 0.90 <= share <= 0.985


def test_blocks_hold_the_truth_where_single_tokens_promise_too_much():
    series = autoregressive(100, 1000, 0.9, np.random.default_rng(2))
    blocks, single = (np.mean([covered([table(row)], block) for row in series]) for block in (100, 1))
    assert blocks >= 0.82
    assert single <= 0.60


def test_units_and_blocks_together_hold_the_truth():
    """Places that differ, each with tokens that are alike in a row."""
    random = np.random.default_rng(3)
    places = random.standard_normal((100, 8, 1)) * 0.5
    data = places + autoregressive(800, 300, 0.8, random).reshape(100, 8, 300)
    share = np.mean([covered([table(unit) for unit in units], 50) for units in data])
    assert share >= 0.90


@pytest.mark.parametrize("block", [None, 20])
def test_arms_are_paired(block):
    """Two arms a constant apart: each is uncertain, their difference is not."""
    random = np.random.default_rng(4)
    units = [random.gamma(2.0, 2.0, (200, 1)) * random.gamma(2.0, 1.0) for _ in range(9)]
    units = [np.concatenate([unit, unit - 0.25, np.ones_like(unit)], 1) for unit in units]
    one, other, count = statistics.resampled_sums(units, block)
    low, high = statistics.interval(one / count)
    assert high - low > 0.5
    assert np.allclose((one - other) / count, 0.25, atol=1e-9)


def test_the_seed_decides_the_draws():
    units = [table(np.arange(40.0) + number) for number in range(4)]
    first, again, other = (statistics.resampled_sums(units, 8, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_a_unit_no_longer_than_a_block_is_kept_whole_and_others_keep_their_length():
    short, long = table(np.arange(5.0)), table(np.arange(50.0))
    assert np.allclose(statistics.resampled_sums([short], 8).T, short.sum(0))
    assert set(statistics.resampled_sums([long], 10)[1]) == {50.0}

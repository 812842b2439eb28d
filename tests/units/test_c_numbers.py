"""The arithmetic that numpy and C share: close to the exact functions, in one order, within its integers."""

from __future__ import annotations

import numpy as np
import pytest

from export.c import numbers
from export.c.numbers import F


@pytest.mark.parametrize(
    ("ours", "exact", "low", "high"),
    [
        (numbers.exp, np.exp, -86.9, 87.9),
        (numbers.tanh, np.tanh, -12.0, 12.0),
        (numbers.sigmoid, lambda x: 1 / (1 + np.exp(-x)), -30.0, 30.0),
    ],
    ids=["exp", "tanh", "sigmoid"],
)
def test_functions_are_exact_to_float32(ours, exact, low, high):
    x = np.linspace(low, high, 50_001).astype(F)
    wide = exact(x.astype(np.float64))
    assert (np.abs(ours(x) - wide) <= 3e-7 * np.maximum(np.abs(wide), 1 if ours is not numbers.exp else 0)).all()


def test_log_is_exact_to_float32_over_all_normal_numbers():
    x = np.exp(np.linspace(-87.0, 88.0, 50_001)).astype(F)
    wide = np.log(x.astype(np.float64))
    assert (np.abs(numbers.log(x) - wide) <= 2e-7 * np.maximum(1.0, np.abs(wide))).all()


def test_exp_ends_where_float32_does():
    assert numbers.exp(F(-1e4)) == 0.0
    assert np.isfinite(numbers.exp(F(1e9)))
    assert numbers.exp(F(0.0)) == 1.0


def test_a_sum_goes_from_left_to_right():
    x = np.array([1e8, 1.0, -1e8, 1.0], F)
    assert numbers.total(x) == 1.0  # the first 1 is lost in 1e8; summed in pairs it would be 0
    assert numbers.total(np.stack([x, x[::-1]])).tolist() == [1.0, 0.0]


def test_quantizing_keeps_the_largest_and_rounds_to_the_nearest():
    x = np.array([0.0, -3.0, 1.5, 0.011, -0.013], F)
    whole, scale = numbers.quantize(x)
    assert whole.tolist() == [0, -127, 64, 0, -1]  # 63.5 goes away from zero
    assert np.abs(whole * scale - x).max() <= scale / 2 * 1.0001
    nothing, scale = numbers.quantize(np.zeros(3, F))
    assert scale == 0.0 and not nothing.any()

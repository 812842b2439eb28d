"""The arithmetic that numpy and C99 share to the bit: float32 in one fixed order, int8 products summed in int32.

IEEE 754 fixes +, -, *, / and the square root of float32, so equal order gives equal bits where nothing is fused
(``-ffp-contract=off``) and subnormals are kept. Exponential and logarithm are polynomials of our own (Cody and Waite's
reduction; coefficients of Cephes' ``expf`` and ``logf``, Moshier 1989), because no two C libraries round alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np

F = np.float32
LEVELS = 127  # an activation is a whole number of -127..127 times the scale of its vector
MIX_LEVELS = 32767  # a weight of a weighted mean; lower where many rows could overflow int32
KEY_LEVELS = 16384  # of a component of a key of length 1
_LOG2E, _LN2_HIGH, _LN2_LOW = F(1.44269504088896341), F(0.693359375), F(-2.12194440e-4)
_EXP = tuple(map(F, (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)))
_LOG = tuple(
    map(
        F,
        (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
         2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1),
    )
)  # fmt: skip
_SQRT_HALF = F(0.707106781186547524)


def exp(x: Any) -> Any:
    """e^x, relative error below 2e-7; 0 below -87 and e^88 above 88."""
    x = np.asarray(x, F)
    clipped = np.minimum(np.maximum(x, F(-87.0)), F(88.0))
    n = np.floor(clipped * _LOG2E + F(0.5))
    r = clipped - n * _LN2_HIGH
    r = r - n * _LN2_LOW
    p = np.full_like(r, _EXP[0])
    for c in _EXP[1:]:
        p = p * r + c
    p = p * (r * r) + r + F(1.0)
    scale = ((n.astype(np.int32) + 127) << 23).view(F)
    return np.where(x < F(-87.0), F(0.0), p * scale)


def log(x: Any) -> Any:
    """ln x of positive normal numbers."""
    bits = np.asarray(x, F).view(np.int32)
    e = ((bits >> 23) - 126).astype(np.int32)
    m = ((bits & 0x007FFFFF) | 0x3F000000).view(F)  # in [1/2, 1)
    small = m < _SQRT_HALF
    e = np.where(small, e - 1, e).astype(F)
    m = np.where(small, m + m, m) - F(1.0)
    z = m * m
    y = np.full_like(m, _LOG[0])
    for c in _LOG[1:]:
        y = y * m + c
    y = y * m * z
    y = y + e * _LN2_LOW
    y = y - F(0.5) * z
    return m + y + e * _LN2_HIGH


def sigmoid(x: Any) -> Any:
    return F(1.0) / (F(1.0) + exp(-np.asarray(x, F)))


def tanh(x: Any) -> Any:
    """Absolute error below 2e-7."""
    x = np.asarray(x, F)
    t = exp(F(2.0) * np.minimum(np.maximum(x, F(-9.0)), F(9.0)))
    return (t - F(1.0)) / (t + F(1.0))


def gelu(x: Any) -> Any:
    """The tanh form."""
    return F(0.5) * x * (F(1.0) + tanh(F(0.79788456) * (x + F(0.044715) * x * x * x)))


def total(x: Any) -> Any:
    """The sum over the last axis, from left to right."""
    return np.add.accumulate(np.asarray(x, F), axis=-1, dtype=F)[..., -1]


def rescale(x: Any) -> Any:
    """1 / sqrt(x)."""
    return F(1.0) / np.sqrt(np.asarray(x, F))


def normed(x: np.ndarray, weight: np.ndarray, eps: np.float32) -> np.ndarray:
    """x / rms(x) * weight."""
    n = F(1.0) / F(len(x))
    return x * rescale(total(x * x) * n + eps) * weight


def unit(x: np.ndarray) -> np.ndarray:
    """x at length 1; zero stays zero."""
    return x * rescale(np.maximum(total(x * x), F(1e-12)))


def whole(x: np.ndarray) -> np.ndarray:
    """To the nearest whole number, halves away from zero."""
    return np.trunc(x + np.copysign(F(0.5), x)).astype(np.int32)


def quantize(x: np.ndarray, levels: int = LEVELS) -> tuple[np.ndarray, np.float32]:
    """x [n] -> (whole numbers of -levels..levels, the scale they are multiples of); zeros have scale 0."""
    most = np.abs(x).max()
    if most == 0:
        return np.zeros(len(x), np.int32), F(0.0)
    return whole(x * (F(levels) / most)), most * (F(1.0) / F(levels))

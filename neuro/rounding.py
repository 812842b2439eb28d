"""Where quantized exports put weights: the grids alone, for the exporters, for training that is to end on them, for files.

    int4   w = scale_b (q - zero_b),  q in 0..15,       b = one of ceil(K / 32) blocks of an output's K inputs
    int8   w = scale_n q,             q in -127..127,   n = one of N outputs

Scale and zero point of a block are the best, by squared error, of `_SHRINKS` ranges: a clipped outlier is often cheaper than 31
coarse weights. A scale has 16 significant bits, so that every product with a level is exact in float32 and the range of what
lies on a grid gives that grid again. A matrix is [N,K], N outputs (or tokens of the vocabulary), K inputs.
"""

from __future__ import annotations

import numpy as np

RECIPES = ("int8", "int4")
THIN = 16  # a matrix thinner than this is a gate or a hormone's effect: nothing to save, much to disturb
BLOCK = 32
LEVELS = 15  # steps between the least and the largest value of a block
MOST = 127  # the largest level of an output in eight bits
_SHRINKS = np.linspace(1.0, 0.7, 13, dtype=np.float32)
_LEAST = np.float32(1e-12)  # scale
_AGAIN = 8  # roundings at most until a matrix stays

Blocks = tuple[np.ndarray, np.ndarray, np.ndarray]


def rounded(matrix: np.ndarray) -> Blocks:
    """[N,K] -> levels [N,C,32] and zeros [N,C] in 0..15, scales [N,C] in float32; C blocks, the last filled up with zeros."""
    blocks = np.pad(matrix.astype(np.float32), ((0, 0), (0, -matrix.shape[1] % BLOCK))).reshape(len(matrix), -1, BLOCK)
    low, high = np.minimum(blocks.min(-1), 0.0), np.maximum(blocks.max(-1), 0.0)
    levels = np.zeros(blocks.shape, np.uint8)
    scales, zeros = np.ones(low.shape, np.float32), np.zeros(low.shape, np.uint8)
    least = np.full(low.shape, np.inf, np.float32)
    for shrink in _SHRINKS:
        scale = _scale((high - low) * (shrink / LEVELS))
        zero = np.clip(np.rint(-low * shrink / scale), 0, LEVELS)
        level = np.clip(np.rint(blocks / scale[..., None]) + zero[..., None], 0, LEVELS)
        error = np.square((level - zero[..., None]) * scale[..., None] - blocks).sum(-1)
        better = error < least
        least = np.where(better, error, least)
        scales, zeros = np.where(better, scale, scales), np.where(better, zero, zeros).astype(np.uint8)
        levels = np.where(better[..., None], level, levels).astype(np.uint8)
    return levels, scales, zeros


def read(parts: Blocks, inputs: int) -> np.ndarray:
    """Levels, scales and zeros -> [N,inputs] in float32."""
    levels, scales, zeros = parts
    steps = levels.astype(np.float32) - zeros[..., None]
    return np.asarray((steps * scales[..., None]).reshape(len(levels), -1)[:, :inputs])


def channels(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[N,K] -> levels [N,K] in -127..127 and scales [N], both in float32."""
    scales = _scale(np.abs(matrix).max(1).astype(np.float32) / np.float32(MOST))
    return np.clip(np.rint(matrix / scales[:, None]), -MOST, MOST), scales


def once(matrix: np.ndarray, recipe: str) -> np.ndarray:
    """[N,K] in float32 -> as an export by ``recipe``, int4 or int8, rounds it."""
    if recipe == "int4":
        return read(rounded(matrix), matrix.shape[1])
    levels, scales = channels(matrix)
    return np.asarray(levels * scales[:, None])


def on_grid(matrix: np.ndarray, recipe: str) -> np.ndarray:
    """[N,K] in float32 -> rounded until an export by ``recipe`` leaves it as it is.

    Once is not enough where both ends of a block are half way between two levels and go inwards: it has 15 of the 16 levels
    then, and its range is that of another grid.
    """
    found = once(matrix, recipe)
    moving = np.arange(len(found))
    for _ in range(_AGAIN):
        again = once(found[moving], recipe)
        moved = (again != found[moving]).any(1)
        if not moved.any():
            break
        moving = moving[moved]
        found[moving] = again[moved]
    return found


def recipe_of(matrix: np.ndarray) -> str | None:
    """Which recipe leaves ``matrix`` [N,K] exactly as it is; None: neither."""
    if not np.isfinite(matrix).all():
        return None
    few = matrix[:8]
    for recipe in RECIPES:
        if np.array_equal(once(few, recipe), few) and np.array_equal(once(matrix, recipe), matrix):
            return recipe
    return None


def _scale(step: np.ndarray) -> np.ndarray:
    """Steps between levels in 16 significant bits: with eight of a level they fit float32's 24."""
    mantissa, exponent = np.frexp(np.maximum(step, _LEAST))
    return np.ldexp(np.rint(mantissa * 2.0**16), exponent - 16).astype(np.float32)

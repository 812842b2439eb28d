"""Rounding that knows its inputs: what rounding one weight costs a product is made good by the weights not yet rounded.

Plain rounding takes each weight to the nearest level. A product only shows the sum over its inputs x, so what counts of an
output's K weights w and their levels' values q is

    E (w x - q x)^2 = (w - q) H (w - q)^T,      H = E x x^T [K,K] over the tokens of a calibration text.

Weights are rounded in the order of falling H_kk; the error of weight k is moved onto the later ones by row k of U, where
inv(H) = U^T U. Frantar et al. 2023, "GPTQ", arXiv:2210.17323. differs: every block's scale and zero point are those of plain
rounding, found beforehand; an output whose plain levels are better on H itself (U is of H with 1 % of its mean diagonal added)
keeps them, so none is worse on the calibration text. N outputs, K inputs, C blocks.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx

from export.quantize.calibrated import Feed, activations

TOKENS = 4096  # of calibration: four for each input of the widest product
DAMPING = 0.01  # of the mean of H's diagonal: inputs that the text never moves still have an inverse
_AT_ONCE = 64  # tokens summed by one product, weights whose errors are moved by one product


def moments(model: onnx.ModelProto, names: list[str], calibration: Iterable[Feed]) -> tuple[dict[str, np.ndarray], int]:
    """H [K,K] of each activation in ``names`` -> by name, and over how many tokens; none without calibration."""
    sums: dict[str, np.ndarray] = {}
    waiting: dict[str, list[np.ndarray]] = {name: [] for name in names}
    tokens = 0

    def add() -> None:
        for name, parts in waiting.items():
            if parts:
                rows = np.concatenate(parts)
                sums[name] = sums.get(name, 0.0) + (rows.T @ rows).astype(np.float64)
                parts.clear()

    for values in activations(model, names, calibration):
        tokens += 1
        for name, value in zip(names, values, strict=True):
            waiting[name].append(value.reshape(-1, value.shape[-1]))
        if tokens % _AT_ONCE == 0:
            add()
    add()
    return {name: total / tokens for name, total in sums.items()}, tokens


def loss(apart: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """What rounding costs each output on the calibration text: rows d of ``apart`` [N,K] -> d H d^T [N]."""
    wide = apart.astype(np.float64)
    return np.asarray(np.einsum("nk,nk->n", wide @ moment, wide))


def error_of(restored: np.ndarray, matrix: np.ndarray, moment: np.ndarray) -> float:
    """How far the products of ``restored`` [N,K] are from those of ``matrix`` on the calibration text, over their own size."""
    return float(np.sqrt(loss(restored - matrix, moment).sum() / max(loss(matrix, moment).sum(), 1e-30)))


def compensated(
    matrix: np.ndarray, plain: tuple[np.ndarray, np.ndarray, np.ndarray], moment: np.ndarray, most: int
) -> np.ndarray:
    """The levels [N,C,B] of ``matrix`` [N,K] that cost its product least -> in place of those of ``plain``.

    Args:
        plain: levels [N,C,B], scales and zeros [N,C] of plain rounding; the last block is filled up.
        moment: H [K,K] of the inputs.
        most: the highest level.
    """
    levels, scales, zeros = plain
    outputs, inputs = matrix.shape
    block = levels.shape[2]
    scale, zero = (np.repeat(part.astype(np.float32), block, 1)[:, :inputs].T for part in (scales, zeros))
    order = np.argsort(-np.diag(moment), kind="stable")
    damped = moment + max(DAMPING * np.trace(moment) / inputs, 1e-12) * np.eye(inputs)
    onto = np.linalg.cholesky(np.linalg.inv(damped[np.ix_(order, order)])).T.astype(np.float32)
    left = np.ascontiguousarray(matrix.astype(np.float32).T[order])  # [K,N], what is still to be said by the levels
    found, scale, zero = np.empty_like(left), scale[order], zero[order]
    for start in range(0, inputs, _AT_ONCE):
        end = min(inputs, start + _AT_ONCE)
        moved = np.empty((end - start, outputs), np.float32)
        for k in range(start, end):
            found[k] = np.clip(np.rint(left[k] / scale[k]) + zero[k], 0, most)
            moved[k - start] = (left[k] - (found[k] - zero[k]) * scale[k]) / onto[k, k]
            left[k + 1 : end] -= np.outer(onto[k, k + 1 : end], moved[k - start])
        left[end:] -= onto[start:end, end:].T @ moved
    flat = levels.reshape(outputs, -1).copy()
    flat[:, order] = found.T.astype(levels.dtype)
    scale, zero = (np.repeat(part.astype(np.float32), block, 1)[:, :inputs] for part in (scales, zeros))
    before, after = (
        loss((rows.reshape(outputs, -1)[:, :inputs] - zero) * scale - matrix, moment) for rows in (levels, flat)
    )
    flat[before <= after] = levels.reshape(outputs, -1)[before <= after]
    return flat.reshape(levels.shape)

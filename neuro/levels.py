"""Matrices that lie on the grid of a quantized export, as the tensors a file holds of them: levels, scales and zero points.

    NAME.int8    int8 [N,K]         NAME.scales [N]
    NAME.int4    uint8 [N,K/2]      NAME.scales [N,C], NAME.zeros uint8 [N,C];   the first of two levels in the lower four bits

Exact: a matrix that either grid would move is left to the caller. N outputs, K inputs, C blocks of `neuro.rounding.BLOCK`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neuro import rounding
from neuro.errors import FormatError

_SCALES, _ZEROS = ".scales", ".zeros"


def packed(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tensors by name -> those of the matrices that lie on a grid, and all the others as they are."""
    levels: dict[str, Tensor] = {}
    others = dict(tensors)
    for name, tensor in tensors.items():
        if tensor.dim() != 2 or min(tensor.shape) < rounding.THIN or tensor.shape[1] % 2:
            continue
        matrix = tensor.detach().cpu().float().numpy()
        recipe = rounding.recipe_of(matrix)
        if recipe is not None:
            del others[name]
            levels |= {f"{name}{part}": torch.from_numpy(x) for part, x in _parts(matrix, recipe).items()}
    return levels, others


def _parts(matrix: np.ndarray, recipe: str) -> dict[str, np.ndarray]:
    if recipe == "int8":
        numbers, scale = rounding.channels(matrix)
        return {".int8": numbers.astype(np.int8), _SCALES: scale}
    blocks, scales, zeros = rounding.rounded(matrix)
    rows = blocks.reshape(len(matrix), -1)[:, : matrix.shape[1]]
    return {".int4": rows[:, ::2] | rows[:, 1::2] << 4, _SCALES: scales, _ZEROS: zeros}


def unpacked(tensors: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """Tensors of a file -> the matrices in float32 under their own names, and all the others as they are.

    Raises:
        FormatError: scales or zero points are missing or are those of another matrix.
    """
    found = dict(tensors)
    for key in tensors:
        name, _, recipe = key.rpartition(".")
        if recipe not in rounding.RECIPES:
            continue
        wanted = [_SCALES] if recipe == "int8" else [_SCALES, _ZEROS]
        try:
            parts = [found.pop(key), *(found.pop(f"{name}{part}") for part in wanted)]
            found[name] = torch.from_numpy(_matrix([part.numpy() for part in parts], recipe))
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise FormatError(
                f"{where}: '{key}' has not the scales that it was written with ({error}).",
                "Use another copy of the model.",
            ) from error
    return found


def _matrix(parts: list[np.ndarray], recipe: str) -> np.ndarray:
    numbers, scales = parts[0], parts[1]
    if recipe == "int8":
        return np.asarray(numbers.astype(np.float32) * scales.reshape(len(numbers), 1))
    inputs = 2 * numbers.shape[1]
    rows = np.stack([numbers & 15, numbers >> 4], -1).reshape(len(numbers), inputs)
    blocks = np.pad(rows, ((0, 0), (0, -inputs % rounding.BLOCK))).reshape(*scales.shape, rounding.BLOCK)
    return rounding.read((blocks, scales, parts[2]), inputs)

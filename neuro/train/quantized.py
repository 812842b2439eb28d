"""Quantization-aware training: what the brain computes with are its weights as an export rounds them.

    y = f(x, round(w)),   dL/dw = dL/d round(w)

The straight-through estimator (Bengio et al. 2013, arXiv:1308.3432; Jacob et al. 2018, arXiv:1712.05877): steps are taken by
the weights in float, which are put back once the gradient is there. Rounded are the matrices that the exporters round, by
`neuro.rounding`. differs: activations stay float; the vocabulary matrix has one grid for look-ups and readout, so that what
the exporters keep of its first rows beyond that grid is zero.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from neuro import rounding

_MATRICES = ("embedding", "weight", "sense", "up", "down")  # last parts of the names of what multiplies activations


class Quantized:
    """The matrices of a module that an export would round; recipe "none" has none."""

    def __init__(self, module: nn.Module, recipe: str) -> None:
        self.recipe = recipe
        self.weights = {} if recipe == "none" else matrices(module)

    def settle(self) -> None:
        """Put the module's weights on the grid, where an export leaves them as they are."""
        self._round(rounding.on_grid)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Inside, the module has its weights as an export rounds them; gradients are those of the weights outside."""
        learned = {name: p.detach().clone() for name, p in self.weights.items()}
        try:
            self._round(rounding.once)
            yield
        finally:
            with torch.no_grad():
                for name, p in self.weights.items():
                    p.copy_(learned[name])

    @torch.no_grad()
    def _round(self, how: Callable[[np.ndarray, str], np.ndarray]) -> None:
        for p in self.weights.values():
            p.copy_(torch.from_numpy(how(p.detach().float().cpu().numpy(), self.recipe)))


def matrices(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters [N,K] by name that an exported step multiplies activations with, none thinner than `rounding.THIN`."""
    return {
        name: p
        for name, p in module.named_parameters()
        if p.dim() == 2 and min(p.shape) >= rounding.THIN and name.rsplit(".", 1)[-1] in _MATRICES
    }

"""Dentate gyrus: pattern separation. Inputs that are nearly alike get codes that share few cells.

    z = W (x - mean),  W sparse and random, each granule cell reading few inputs;  code = unit of the k highest of z, else 0

Constructed, not learned, but for what it may be fitted to: `fitted` whitens the variation among inputs that ought to be the
same (other drawings of one character, other moments of one place), so that cells are spent on what tells things apart. Sparse
expansion: Marr 1971, doi:10.1098/rstb.1971.0078; Treves and Rolls 1994, doi:10.1002/hipo.450040319; by k of many random
sums: Dasgupta, Stevens and Navlakha 2017, doi:10.1126/science.aam9868.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuro.errors import UsageError
from neuro.layers.norm import normalize, wide
from neuro.memory.place_cells import kth_largest


class DentateGyrus(nn.Module):
    """[...,I] -> codes [...,N] of length 1, at most ``active`` cells of which are not 0.

    Args:
        inputs: I.
        cells: N, granule cells; more than inputs for an expansion.
        active: k.
        fan_in: inputs that a cell reads.
        seed: of the connections.

    Raises:
        UsageError: more active cells than there are, or a fan-in above the inputs.
    """

    def __init__(self, inputs: int, cells: int, active: int, fan_in: int, seed: int = 0) -> None:
        super().__init__()
        if not 1 <= active <= cells:
            raise UsageError(f"active: got {active}, expected 1 to {cells}.", "Activate some of the cells.")
        if not 1 <= fan_in <= inputs:
            raise UsageError(f"fan_in: got {fan_in}, expected 1 to {inputs}.", "Connect a cell to some of the inputs.")
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(cells, inputs, generator=generator)
        reads = torch.rand(cells, inputs, generator=generator)
        weight = drawn * (reads >= kth_largest(reads, fan_in)) / fan_in**0.5
        self.active = active
        self.register_buffer("weight", weight)
        self.register_buffer("mean", torch.zeros(inputs))
        self.weight: Tensor
        self.mean: Tensor

    def forward(self, x: Tensor) -> Tensor:
        z = (wide(x) - self.mean) @ self.weight.T
        return normalize(z.clamp_min(0.0) * (z >= kth_largest(z, self.active)).to(z.dtype))

    @torch.no_grad()
    def fit(self, x: Tensor, same: Tensor, shrink: float = 0.1) -> None:
        """Centre the inputs [S,I], and whiten what varies among those of one number in ``same`` [S].

        ``shrink``: share of the mean variance that is added to every direction, so that few samples are enough.

        Raises:
            UsageError: no number occurs twice.
        """
        x = wide(x)
        numbers, index, count = torch.unique(same, return_inverse=True, return_counts=True)
        if int(count.max()) < 2:
            raise UsageError("fit: got no two inputs that ought to be the same.", "Give each number twice or more.")
        means = torch.zeros(len(numbers), x.shape[1], dtype=x.dtype).index_add_(0, index, x) / count.unsqueeze(1)
        apart = x - means[index]
        spread = apart.T @ apart / (len(x) - len(numbers))
        spread = spread + shrink * spread.diagonal().mean() * torch.eye(len(spread), dtype=x.dtype)
        values, vectors = torch.linalg.eigh(spread)
        self.mean.copy_(x.mean(0))
        self.weight.copy_(self.weight @ (vectors * values.rsqrt()) @ vectors.T)


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Cosine [...] of vectors [...,N]: what two codes share."""
    return (normalize(a) * normalize(b)).sum(-1)

"""Place cells: a sparse population code of content.

    z = W x + b,  a = sigmoid(z) where z is among the k highest of its token, else 0

The k-th value is a threshold and the rest a mask: no scatter. Ties at the threshold are all kept.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backends import Ops
from neuro.layers.linear import Linear
from neuro.layers.norm import wide


class PlaceCells(nn.Module):
    """[B,T,D] -> activity [B,T,N] in [0, 1], about ``sparsity`` of it nonzero."""

    def __init__(self, width: int, cells: int, sparsity: float, ops: Ops) -> None:
        super().__init__()
        self.active = max(1, round(cells * sparsity))
        self.project = Linear(width, cells, ops, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        z = wide(self.project(x))
        return torch.sigmoid(z) * (z >= kth_largest(z, self.active)).to(z.dtype)


def kth_largest(scores: Tensor, k: int) -> Tensor:
    """[..., N] -> [..., 1]: the k-th largest value, cut from the graph."""
    return torch.topk(scores.detach(), k, dim=-1).values[..., -1:]

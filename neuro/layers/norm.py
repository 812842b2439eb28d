"""Normalisation, written out so that every backend and exporter has its operators, and the type it is done in."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def wide(x: Tensor) -> Tensor:
    """``x`` in float32 at least: bfloat16 and float16 are widened, float64 stays."""
    return x if x.dtype == torch.float32 else x.to(torch.promote_types(x.dtype, torch.float32))


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis, in float32 at least. Source: Zhang & Sennrich 2019, arXiv:1910.07467."""

    eps = 1e-6

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        x = wide(x)
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + self.eps) * self.weight

    def hand_back(self, x: Tensor, error: Tensor) -> Tensor:
        """``error`` at the output for ``x`` -> error at ``x``: the transposed Jacobian, cut from the graph."""
        x = wide(x.detach())
        rms = torch.rsqrt((x * x).mean(-1, keepdim=True) + self.eps)
        unit, towards = x * rms, error * self.weight.detach()
        return rms * (towards - unit * (unit * towards).mean(-1, keepdim=True))


def normalize(x: Tensor) -> Tensor:
    """Unit vectors along the last axis; zero stays zero."""
    x = wide(x)
    # A floor and not a summand: exporters drop the addition of so small a number.
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True).clamp_min(1e-12))

"""A linear layer that also says which of its synapses were eligible for fast change.

    y_t = W x_t,   z_t = A x_t,   e_t = z_t / sqrt(mean(z_t^2) + 1/1000)

W and A are parameters. e_t is the eligibility: what was active when the layer spoke, to be credited or blamed once it is
known how right the prediction was (`neuro.memory.procedural`). The fast weights F, state of each stream, add F^T e_t to the
output; the cortex does that, for it must tell the two apart. Source: the three-factor rule of Gerstner et al. 2018
(doi:10.3389/fncir.2018.00053) in the low-rank form of LoRA (arXiv:2106.09685).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from backends import Ops
from backends.kernels.spikes import PackedWeight
from neuro.layers.linear import Linear
from neuro.layers.norm import wide


class FastLinear(Linear):
    """x [B,T,I] -> (y [B,T,O], eligibility [B,T,r]); rank 0: a plain linear layer. ``spikes``: x is mostly zero."""

    def __init__(self, in_features: int, out_features: int, rank: int, ops: Ops, spikes: bool = False) -> None:
        super().__init__(in_features, out_features, ops)
        self.rank = rank
        self._packed = PackedWeight() if spikes else None
        if rank:
            self.sense = nn.Parameter(torch.randn(rank, in_features) / math.sqrt(in_features))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        y = super().forward(x) if self._packed is None else self.ops.spike_linear(x, self.weight, self._packed)
        if not self.rank:
            return y, y[..., :0]
        return y, eligible(x, self.sense)


class Trace(nn.Module):
    """The eligibility alone, of fast weights that add to what they read: x [B,T,I] -> [B,T,r]."""

    def __init__(self, in_features: int, rank: int) -> None:
        super().__init__()
        self.sense = nn.Parameter(torch.randn(rank, in_features) / math.sqrt(in_features))

    def forward(self, x: Tensor) -> Tensor:
        return eligible(x, self.sense)


def eligible(x: Tensor, sense: Tensor) -> Tensor:
    """x [B,T,I], sense [r,I] -> eligibility [B,T,r]."""
    z = wide(x @ sense.T.to(x.dtype))
    # A floor far above rounding: a token that drives nothing must not have a gradient of a million.
    return z * torch.rsqrt((z * z).mean(-1, keepdim=True) + 1e-3)

"""A linear layer whose weights have a slow part, which training sets, and a fast part, which the stream itself writes.

    y_t = W x_t + F^T e_t,   z_t = A x_t,   e_t = z_t / sqrt(mean(z_t^2) + 1/1000)

W and A are parameters; F is state, one per stream. e_t is the synapses' eligibility: what was active when the layer
spoke, to be credited or blamed once it is known how right the prediction was (`neuro.memory.procedural`). Source: the
three-factor rule of Gerstner et al. 2018 (doi:10.3389/fncir.2018.00053) in the low-rank form of LoRA (arXiv:2106.09685).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from backends import Ops
from neuro.layers.linear import Linear
from neuro.layers.norm import wide


class FastLinear(Linear):
    """(x [B,T,I], fast [B,r,O]) -> (y [B,T,O], eligibility [B,T,r]); rank 0 and fast None: a plain linear
    layer."""

    def __init__(self, in_features: int, out_features: int, rank: int, ops: Ops) -> None:
        super().__init__(in_features, out_features, ops)
        self.rank = rank
        if rank:
            self.sense = nn.Parameter(torch.randn(rank, in_features) / math.sqrt(in_features))

    def forward(self, x: Tensor, fast: Tensor | None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        y = super().forward(x)
        if fast is None:
            return y, y[..., :0]
        z = wide(x @ self.sense.T.to(x.dtype))
        # A floor far above rounding: a token that drives nothing must not have a gradient of a million.
        eligibility = z * torch.rsqrt((z * z).mean(-1, keepdim=True) + 1e-3)
        return y + eligibility @ fast, eligibility

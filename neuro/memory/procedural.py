"""Procedural memory: low-rank fast weights, written at commits by a three-factor rule.

    G = sum_t eligibility_t error_t^T                    over the tokens of the span
    step = m rate * G, each projection's no longer than max_step
    F <- F 2^(-n / half_life) + step, each projection's no longer than max_norm

error_t is minus the gradient of token t's surprise at what its prediction was read from (exact for the last projection;
the residual stream hands it to the others unchanged), eligibility_t what each projection's input was then, and m in
(0, 2) what the hormones make of it. Rates per unit, the half-life and the hormones' weights are trained by the main loss
through write and read. A reset leaves the rank as it was: the sensing matrix is a parameter, only F is state.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuro.config import HORMONES, ProceduralConfig
from neuro.layers.norm import wide


class ProceduralMemory(nn.Module):
    """The write rule of ``projections`` layers of ``width`` outputs; the fast weights themselves are state [B,R,D]."""

    def __init__(self, width: int, projections: int, config: ProceduralConfig) -> None:
        super().__init__()
        self.config, self.projections = config, projections
        self.log_rate = nn.Parameter(torch.zeros(projections, width))
        self.log_life = nn.Parameter(torch.zeros(()))
        self.modulation = nn.Linear(len(HORMONES), 1, bias=False)
        nn.init.zeros_(self.modulation.weight)

    def write(self, fast: Tensor, error: Tensor, eligibility: Tensor, modulators: Tensor, tokens: Tensor) -> Tensor:
        """fast [B,R,D], error [B,P,D], eligibility [B,P,R], modulators [B,H], tokens [B] -> fast [B,R,D]."""
        c = self.config
        batch, traces, width = fast.shape
        gradient = wide(eligibility.transpose(1, 2) @ error).reshape(batch, self.projections, -1, width)
        third = 2.0 * torch.sigmoid(wide(self.modulation(modulators - 0.5))).reshape(batch, 1, 1, 1)
        rate = c.rate * torch.exp(self.log_rate).unsqueeze(1)
        step = _shorten(gradient * rate * third, c.max_step)
        kept = torch.exp2(-tokens.to(fast.dtype) / (c.half_life_tokens * torch.exp(self.log_life)))
        after = fast.reshape(gradient.shape) * kept.reshape(batch, 1, 1, 1) + step
        return _shorten(after, c.max_norm).reshape(batch, traces, width)


def _shorten(weights: Tensor, most: float) -> Tensor:
    """[B,M,r,D] with the Frobenius norm over r and D of each projection at most ``most``."""
    square = (weights * weights).sum((2, 3), keepdim=True)
    return weights * torch.clamp(most * torch.rsqrt(square.clamp_min(1e-24)), max=1.0)

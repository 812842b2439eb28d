"""Procedural memory: low-rank fast weights, written at commits from what was eligible and how wrong it turned out to be.

    three-factor:  G = sum_t e_t d_t^T                                        over the tokens of the span
    delta:         G = sum_t k_t u_t^T,  u_t = c d_t - beta k_t^T sum_{s<t} k_s u_s,  k_t = e_t / |e_t|
                   (c = |e_t| at its root mean square, sqrt(r)), then G <- G + momentum * G of the span before
    both:          step = m rate * G, each projection's no longer than max_step   (natural: d Q in d's place)
                   F <- F 2^(-n / half_life) + step, each projection's no longer than max_norm

d_t is minus the gradient of token t's surprise at what its prediction was read from (exact for the last projection; the
residual stream hands it to the others unchanged, or with ``through_dense`` back through every dense feed-forward on the way:
`DenseFeedforward.hand_back`), e_t what each projection's input was then, and m in (0, 2) what the hormones make of it. The
delta rule takes from each token's error what the tokens before it in the span have already mended, so that what comes twice
is not learned twice. Rates per unit, the half-life, the hormones' weights (and beta and momentum) are trained by the main
loss through write and read. A reset leaves the rank as it was: the sensing matrix is a
parameter, only F is state.

With ``natural`` the errors are told in units of how they vary: Q = (C / c + floor I)^-1, C = mean d d^T over training text, c
its mean eigenvalue (`neuro.train.precision` measures it; a parameter, the identity until then). Tokens that are always a
little wrong in the same few directions then no longer outshout what is new. It is the output side of the natural gradient
in its Kronecker form: Martens & Grosse 2015, arXiv:1503.05671. differs: that of the inputs is left out, for eligibilities
have a root mean square of 1 and whitening them gained nothing.

Source of the delta rule with momentum and forgetting: Titans (arXiv:2501.00663), its form over
a span: DeltaNet (arXiv:2406.06484). differs: the regression target is the error, not a value.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from neuro.config import HORMONES, ProceduralConfig
from neuro.layers.norm import normalize, wide
from neuro.state import ProceduralState


class ProceduralMemory(nn.Module):
    """The write rule of ``projections`` layers of ``width`` outputs; what is written is state.

    ``traces``: numbers kept of a token until its error is known, eligibilities first. ``alike``: how many projections in a
    row are told the same error; None: all of them are. With ``outward_half_life_tokens`` the last one lives so long.
    """

    lives: Tensor  # [1] or [M] tokens

    def __init__(
        self, width: int, projections: int, config: ProceduralConfig, traces: int, alike: tuple[int, ...] | None = None
    ) -> None:
        super().__init__()
        self.alike = alike or (projections,)
        lives = torch.full((1,), config.half_life_tokens)
        if config.outward_half_life_tokens:
            lives = lives.repeat(projections)
            lives[-1] = config.outward_half_life_tokens
        self.register_buffer("lives", lives, persistent=False)
        self.config, self.projections, self.width, self.traces = config, projections, width, traces
        self.log_rate = nn.Parameter(torch.zeros(projections, width))
        self.log_life = nn.Parameter(torch.zeros(()))
        self.modulation = nn.Linear(len(HORMONES), 1, bias=False)
        nn.init.zeros_(self.modulation.weight)
        if config.natural:
            self.precision = nn.Parameter(torch.eye(width).repeat(len(self.alike), 1, 1))
        if config.rule == "delta":
            # beta and momentum in (0, 1); they start at 1/4 and 1/10.
            self.beta = nn.Parameter(torch.full((projections,), math.log(1 / 3)))
            self.momentum = nn.Parameter(torch.full((projections,), math.log(1 / 9)))

    def init_state(self, batch: int, device: torch.device) -> ProceduralState:
        fast = torch.zeros(batch, self.projections * self.config.rank, self.width, device=device)
        last_step = fast.clone() if self.config.rule == "delta" else ()
        return ProceduralState(fast, last_step, torch.zeros(batch, self.traces, device=device))

    def write(
        self, state: ProceduralState, error: Tensor, eligibility: Tensor, modulators: Tensor, tokens: Tensor
    ) -> ProceduralState:
        """error [B,P,D] or each projection's [B,M,P,D], eligibility [B,P,R], modulators [B,H], tokens [B] -> state."""
        c = self.config
        batch, traces, width = state.fast.shape
        apart = (batch, self.projections, -1, width)
        if c.natural:
            error = self._in_units(error)
        if isinstance(state.last_step, Tensor):
            before = state.last_step.reshape(apart)
            moved = self._delta(error, eligibility) + torch.sigmoid(self.momentum).reshape(1, -1, 1, 1) * before
            # A row that saw nothing in this span does not go on moving.
            lived = (tokens > 0).reshape(batch, 1, 1, 1)
            gradient = torch.where(lived, moved, torch.zeros_like(moved))
            state = state._replace(last_step=torch.where(lived, moved, before).reshape(batch, traces, width))
        elif error.dim() == 4:
            gradient = wide(eligibility.unflatten(2, (self.projections, -1)).permute(0, 2, 3, 1) @ error)
        else:
            gradient = wide(eligibility.transpose(1, 2) @ error).reshape(apart)
        third = 2.0 * torch.sigmoid(wide(self.modulation(modulators - 0.5))).reshape(batch, 1, 1, 1)
        rate = c.rate * torch.exp(self.log_rate).unsqueeze(1)
        step = _shorten(gradient * rate * third, c.max_step)
        kept = torch.exp2(-tokens.to(step.dtype).unsqueeze(1) / (self.lives * torch.exp(self.log_life)))
        after = state.fast.reshape(apart) * kept.reshape(batch, -1, 1, 1) + step
        return state._replace(fast=_shorten(after, c.max_norm).reshape(batch, traces, width))

    def differing(self, error: Tensor) -> Tensor:
        """Errors [B,P,D], or each projection's [B,M,P,D] -> [G,B,P,D], one for each run of projections told alike."""
        if error.dim() == 3:
            return error.unsqueeze(0)
        return torch.stack([alike[:, 0] for alike in error.split(self.alike, 1)])

    def _in_units(self, error: Tensor) -> Tensor:
        """Errors in units of how they vary: d Q, in the shape they came in."""
        differing = wide(self.differing(error)) @ self.precision.unsqueeze(1)  # [G,B,P,D]
        if error.dim() == 3:
            return differing[0]
        told = [one.unsqueeze(1).expand(-1, n, -1, -1) for one, n in zip(differing, self.alike, strict=True)]
        return torch.cat(told, 1)

    def _delta(self, error: Tensor, eligibility: Tensor) -> Tensor:
        """[B,M,r,D]: a token's share is less by what the tokens before it in the span have put in its place."""
        traces = eligibility.unflatten(2, (self.projections, -1)).transpose(1, 2)
        keys = normalize(traces)  # [B,M,P,r]; zero where nothing was eligible
        overlap = torch.sigmoid(self.beta).reshape(1, -1, 1, 1) * (keys @ keys.transpose(2, 3))
        target = math.sqrt(keys.shape[-1]) * error
        if error.dim() == 3:
            target = target.unsqueeze(1).expand(-1, self.projections, -1, -1)
        updates = target[:, :, :1]
        # A loop and not a triangular solve, which neither exporters nor DirectML have.
        for t in range(1, eligibility.shape[1]):
            mended = overlap[:, :, t : t + 1, :t] @ updates
            updates = torch.cat([updates, target[:, :, t : t + 1] - mended], 2)
        return wide(keys.transpose(2, 3) @ updates)


def _shorten(weights: Tensor, most: float) -> Tensor:
    """[B,M,r,D] with the Frobenius norm over r and D of each projection at most ``most``."""
    square = (weights * weights).sum((2, 3), keepdim=True)
    return weights * torch.clamp(most * torch.rsqrt(square.clamp_min(1e-24)), max=1.0)

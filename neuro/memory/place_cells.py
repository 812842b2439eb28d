"""Place cells: a sparse population code of content.

    z = W x + b,  a = sigmoid(z) where z is among the k highest of its token, else 0

The k-th value is a threshold and the rest a mask: no scatter. Ties at the threshold are all kept. With ``learned`` sparsity

    a = sigmoid(z) S(z - theta) where z is among the 4 k highest, S a step with a surrogate slope, theta [N] trained

so a token may take more or fewer cells than k, down to none, and `overspent` is what keeps the mean at its budget.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from backends import Ops
from backends.surrogate import Surrogate, spike
from neuro.errors import UsageError
from neuro.layers.linear import Linear
from neuro.layers.norm import normalize, wide

_MOST = 4  # times the budget: what one token may take
_SLOPE = Surrogate(slope=4.0)


class PlaceCells(nn.Module):
    """[B,T,D] -> activity [B,T,N] in [0, 1], about ``sparsity`` of it nonzero.

    ``learned``: each cell has a threshold that is trained; ``sparsity`` is then the budget of `overspent`.
    """

    def __init__(self, width: int, cells: int, sparsity: float, ops: Ops, learned: bool = False) -> None:
        super().__init__()
        self.active = max(1, round(cells * sparsity))
        self.most = min(cells, _MOST * self.active) if learned else self.active
        self.sparsity = sparsity
        self.project = Linear(width, cells, ops, bias=True)
        self.threshold = None
        if learned:
            # Rows of length 1: unit-rms inputs give z of standard deviation 1, and this share of it lies above theta.
            nn.init.normal_(self.project.weight, std=width**-0.5)
            nn.init.zeros_(self.project.bias)
            above = torch.special.ndtri(torch.tensor(1.0 - min(sparsity, 0.5), dtype=torch.float64))
            self.threshold = nn.Parameter(torch.full((cells,), float(above)))

    def forward(self, x: Tensor) -> Tensor:
        return self.code(x)[0]

    def code(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B,T,D] -> activity [B,T,N], and 1 where a cell is active, with a gradient where sparsity is learned."""
        z = wide(self.project(x))
        among = (z >= kth_largest(z, self.most)).to(z.dtype)
        if self.threshold is not None:
            over = z - self.threshold
            # Nothing but a comparison where nobody asks for its slope: what an exported graph holds.
            among = among * (spike(over, _SLOPE) if over.requires_grad else (over >= 0).to(z.dtype))
        return torch.sigmoid(z) * among, among

    def share(self, x: Tensor) -> Tensor:
        """[B,T,D] -> the share of active cells [B,T], with a gradient where sparsity is learned."""
        return self.code(x)[1].mean(-1)

    def overspent(self, x: Tensor) -> Tensor:
        """[]: how far the mean share of active cells is from the budget, squared, in units of the budget."""
        return (self.share(x).mean() / self.sparsity - 1.0) ** 2


class PlaceState(NamedTuple):
    """What `CompetitivePlaceCells` have learned."""

    weights: Tensor  # [N,I], rows of length 1, none negative
    thresholds: Tensor  # [N]
    wins: Tensor  # [N], sum of a / max(a) over what was learned


class CompetitivePlaceCells:
    """Place cells that get their fields by competition over their input, one position after the other; no gradient.

        x = unit(input - mean of the input),  z = W x - theta,  a = max(0, z) where z is among the k highest
        w_n <- unit(w_n + rate_n a_n / max(a) (max(0, x) - w_n)), its connections alone,  rate_n = rate / (1 + wins_n / settled)
        theta_n <- theta_n + tune (active_n - target_n)

    Winners move towards what they won with (competitive learning from grid to place cells: Rolls, Stringer and Elliot 2006,
    doi:10.1080/09548980601064846), the less the more they have won, so that a second environment leaves the first in place.
    A cell that is active more often than its target gets harder to excite. Targets are drawn once, log-normal around the
    budget with sd ``spread`` of the logarithm: few cells take many places, many take none (Rich, Liaw and Lee 2014,
    doi:10.1126/science.1255635). No position is stored anywhere: a field is where the input is like the weights.

    Args:
        inputs: I, of grid and boundary cells.
        cells: N.
        sparsity: budget: mean share of active cells, and with it k = 4 sparsity N at most in one place.
        connected: share of the inputs that reach a cell.
        rate, tune: of weights and thresholds, each step.
        settled: wins after which a cell learns at half its rate.
        spread: of the targets. A cell's target goes with it into every environment: the wider, the more two maps share
            (`benchmarks/place_cells.py`; 1.0 passes a population correlation of 0.3 in two of eight seeds).

    Raises:
        UsageError: a sparsity or a share of connections that is not in (0, 1].
    """

    def __init__(
        self,
        inputs: int,
        cells: int,
        sparsity: float = 0.03,
        connected: float = 0.3,
        rate: float = 0.02,
        tune: float = 0.01,
        settled: float = 20.0,
        spread: float = 0.7,
    ) -> None:
        for name, value in (("sparsity", sparsity), ("connected", connected)):
            if not 0.0 < value <= 1.0:
                raise UsageError(f"{name}: got {value}, expected above 0 and at most 1.", "Give a share of the cells.")
        self.inputs, self.cells, self.sparsity = inputs, cells, sparsity
        self.active = min(cells, max(1, round(_MOST * sparsity * cells)))
        self.connected, self.rate, self.tune, self.settled, self.spread = connected, rate, tune, settled, spread

    def init_state(self, seed: int = 0) -> PlaceState:
        """Random connections."""
        generator = torch.Generator().manual_seed(seed)
        weights = torch.rand(self.cells, self.inputs, generator=generator)
        weights = weights * (torch.rand(self.cells, self.inputs, generator=generator) < self.connected)
        return PlaceState(normalize(weights), torch.zeros(self.cells), torch.zeros(self.cells))

    def targets(self, seed: int = 0) -> Tensor:
        """[N]: the share of steps in which each cell should be active; their mean is the budget."""
        drawn = torch.exp(self.spread * torch.randn(self.cells, generator=torch.Generator().manual_seed(seed + 1)))
        return self.sparsity * drawn / drawn.mean()

    @torch.no_grad()
    def activity(self, x: Tensor, state: PlaceState) -> Tensor:
        """Inputs [...,I] -> activity [...,N], nothing below 0."""
        z = _inhibited(x) @ state.weights.T - state.thresholds
        return z.clamp_min(0.0) * (z >= kth_largest(z, self.active)).to(z.dtype)

    @torch.no_grad()
    def learn(self, x: Tensor, state: PlaceState, targets: Tensor) -> PlaceState:
        """Inputs [T,I], one after the other -> the state after the last; the one given is not changed."""
        weights, thresholds, wins = (part.clone() for part in state)
        wired = (weights > 0).to(weights.dtype)
        for row in _inhibited(x):
            z = weights @ row - thresholds
            a = z.clamp_min(0.0) * (z >= kth_largest(z, self.active)).to(z.dtype)
            win = a / a.max().clamp_min(1e-12)
            step = self.rate * win / (1.0 + wins / self.settled)
            wins += win
            weights = normalize(weights + step.unsqueeze(1) * (row.clamp_min(0.0) * wired - weights))
            thresholds += self.tune * ((a > 0).to(a.dtype) - targets)
        return PlaceState(weights, thresholds, wins)


def _inhibited(x: Tensor) -> Tensor:
    """Inputs [...,I] less their mean, at length 1: inhibition by all of them."""
    return normalize(x - x.mean(-1, keepdim=True))


def kth_largest(scores: Tensor, k: int) -> Tensor:
    """[..., N] -> [..., 1]: the k-th largest value, cut from the graph."""
    return torch.topk(scores.detach(), k, dim=-1).values[..., -1:]

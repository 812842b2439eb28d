"""Time cells: how long ago the last event boundary was, on a logarithmic scale. Constructed, not learned.

    rate_j = exp(-(ln t - ln tau_j)^2 / (2 s^2)),  tau_j = shortest r^j,  s = ln r,  r = (longest / shortest)^(1 / (N - 1))

Cell j fires around tau_j after the boundary, and the wider the later, always by the same share of tau_j: time stretched by r^n
is the same activity n cells on, so nothing but the two ends knows what unit time is in (Howard et al. 2014,
doi:10.1523/JNEUROSCI.5808-12.2014; recorded: MacDonald et al. 2011, doi:10.1016/j.neuron.2011.07.012). differs: the shape is
log-normal at once, not an inverse Laplace transform of decaying integrators; its width is set and not a by-product.

Elapsed time is a scan, t_i = (t_{i-1} + dt_i)(1 - boundary_i): a token at which an event begins is at time 0, and there no cell
fires. Tokens (dt 1) or seconds.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from backends import Ops
from neuro.errors import UsageError


class TimeState(NamedTuple):
    """Since the last boundary, in the unit of durations."""

    elapsed: Tensor  # [B]


class TimeCells(nn.Module):
    """N cells with preferred times from ``shortest`` to ``longest``.

    Raises:
        UsageError: fewer than two cells, or times that do not grow from above 0.
    """

    def __init__(self, cells: int, shortest: float, longest: float, ops: Ops) -> None:
        super().__init__()
        if cells < 2 or not 0.0 < shortest < longest:
            got = (
                f"time cells: got {cells} from {shortest:g} to {longest:g}, expected 2 or more, 0 < shortest < longest."
            )
            raise UsageError(got, "Give the range of times to be told apart.")
        self.ops = ops
        self.step = math.log(longest / shortest) / (cells - 1)
        self.register_buffer("log_tau", math.log(shortest) + self.step * torch.arange(cells), persistent=False)
        self.log_tau: Tensor

    def init_state(self, batch: int, device: torch.device | None = None) -> TimeState:
        """A boundary just before the first token."""
        return TimeState(torch.zeros(batch, device=device))

    def forward(self, elapsed: Tensor) -> Tensor:
        """Times [...] since the boundary -> rates [...,N] in [0, 1]; none at time 0."""
        away = (torch.log(elapsed.clamp_min(1e-30)).unsqueeze(-1) - self.log_tau) / self.step
        return torch.exp(-0.5 * away * away)

    def scan(self, boundary: Tensor, state: TimeState, durations: Tensor | None = None) -> tuple[Tensor, TimeState]:
        """Rates [B,T,N] of each token, and the state after the last.

        Args:
            boundary: [B,T], 1 where an event begins, else 0.
            durations: [B,T], what passes from the token before to this one; 1 by default, which counts tokens.
        """
        keep = 1.0 - boundary
        passed = keep if durations is None else keep * durations
        elapsed = self.ops.affine_scan(
            keep.T.unsqueeze(-1).contiguous(), passed.T.unsqueeze(-1).contiguous(), state.elapsed.unsqueeze(-1)
        )
        elapsed = elapsed.squeeze(-1).T
        return self(elapsed), TimeState(elapsed[:, -1])

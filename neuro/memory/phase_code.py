"""Theta-gamma phase code of position: nested oscillations of many periods. Constructed, not learned.

    theta = 2 pi position / T_p,  gamma = n theta,  A = (1 + cos theta) / 2
    code_p = (cos theta, sin theta, A cos gamma, A sin gamma) / norm

A slow cycle says where in a stretch of T_p positions, and the fast one nested in it where in a stretch of T_p / n, loudest at
the crest of the slow one (Lisman and Jensen 2013, doi:10.1016/j.neuron.2013.03.007; n = 5 as 40 Hz to 8 Hz). Periods grow by a
constant factor, as the spacings of grid modules do, so that near positions are told apart by the short ones and far ones by the
long ones, and every position has a code, however far. differs: the brain has one theta; here is a bank of them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from neuro.errors import UsageError

_PART = 1024  # positions are taken apart into this many and a rest: a float32 product of a large one has no phase left


class PhaseCode(nn.Module):
    """Positions, whole numbers [...] from 0 -> codes [...,width] of root mean square 1.

    Args:
        width: four for each theta.
        shortest, longest: periods of theta, in positions.
        gammas: n, cycles of gamma in one of theta.

    Raises:
        UsageError: a width that is no multiple of 4, or periods that do not grow from at least 2.
    """

    def __init__(self, width: int, shortest: float = 8.0, longest: float = 8192.0, gammas: int = 5) -> None:
        super().__init__()
        if width < 4 or width % 4:
            raise UsageError(f"phase code: got a width of {width}, expected a multiple of 4.", "Round it up.")
        if not 2.0 <= shortest <= longest or gammas < 1:
            got = f"phase code: got periods from {shortest:g} to {longest:g} and {gammas} gammas"
            raise UsageError(f"{got}, expected 2 <= shortest <= longest and 1 or more.", "Give longer periods.")
        self.gammas = gammas
        count = width // 4
        grow = torch.arange(count, dtype=torch.float64) / max(1, count - 1)
        turns = torch.exp(-math.log(shortest) - math.log(longest / shortest) * grow)
        self.register_buffer("turns", turns.float(), persistent=False)  # [P] a position
        self.register_buffer("turns_of_part", torch.remainder(_PART * turns, 1.0).float(), persistent=False)
        self.turns: Tensor
        self.turns_of_part: Tensor

    def forward(self, positions: Tensor) -> Tensor:
        part = torch.div(positions, _PART, rounding_mode="floor")
        rest = (positions - part * _PART).to(self.turns.dtype).unsqueeze(-1)
        turned = rest * self.turns + part.to(self.turns.dtype).unsqueeze(-1) * self.turns_of_part
        theta = torch.remainder(turned, 1.0) * (2.0 * math.pi)
        gamma, loud = self.gammas * theta, 0.5 + 0.5 * torch.cos(theta)
        code = torch.stack(
            [torch.cos(theta), torch.sin(theta), loud * torch.cos(gamma), loud * torch.sin(gamma)], -1
        ).flatten(-2)
        return code * torch.rsqrt((code * code).mean(-1, keepdim=True))

"""Event boundaries: where surprise rises above what it has been. Constructed, causal, one number a token.

    f_t = mean of surprise, half of it of the last ``fast`` tokens,   m_t, d_t = mean and deviation of f, likewise over ``slow``
    boundary_t = 1 where f_t > m_{t-1} + rise d_{t-1} and f_{t-1} was not above its own

An event ends where it is no longer expected (Zacks et al. 2007, doi:10.1037/0033-2909.133.2.273); as segments of a language
model's context: Fountas et al. 2024, arXiv:2407.09450. The output is what `neuro.memory.time_cells.TimeCells.scan` takes.
differs: only a rise is a boundary, so a hard passage is one event, and nothing is refined afterwards, for that is not causal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from backends import Ops
from neuro.errors import UsageError
from neuro.state import SegmentState

FAST, SLOW, RISE = 2.0, 64.0, 3.0  # half-lives in tokens, and deviations: chosen in `benchmarks/segments.py`


class Segments:
    """Boundaries of streams of surprise.

    Args:
        fast, slow: half-lives in tokens.
        rise: in deviations.
        ops: for the scans.

    Raises:
        UsageError: half-lives that do not grow from above 0.
    """

    def __init__(self, fast: float, slow: float, rise: float, ops: Ops) -> None:
        if not 0.0 < fast < slow:
            raise UsageError(
                f"segments: got half-lives {fast:g} and {slow:g}, expected 0 < fast < slow.",
                "Give how many tokens are now, and how many are usual.",
            )
        self.fast, self.slow, self.rise, self.ops = 2.0 ** (-1.0 / fast), 2.0 ** (-1.0 / slow), rise, ops

    def init_state(self, batch: int, device: torch.device | None = None) -> SegmentState:
        """Nothing is usual yet: no boundary before half of what ``slow`` will hold is seen."""
        return SegmentState(*(torch.zeros(batch, *more, device=device) for more in ((2,), (3,), ())))

    def scan(self, surprise: Tensor, state: SegmentState, valid: Tensor | None = None) -> tuple[Tensor, SegmentState]:
        """Surprise [B,T] in nats -> (1 where an event begins, else 0 [B,T]; the state after the last token).

        ``valid`` [B,T] is 0 where no token lies, before a row's first one or after its last: no time passes there and no
        event begins. None is all ones.
        """
        one = torch.ones_like(surprise) if valid is None else valid
        now = self._decaying(torch.stack([surprise * one, one], -1), self.fast, state.fast, one)
        mean = now[..., 0] / now[..., 1].clamp_min(1e-9)
        usual = self._decaying(torch.stack([mean * one, mean * mean * one, one], -1), self.slow, state.slow, one)
        before = torch.cat([state.slow.unsqueeze(1), usual[:, :-1]], 1)
        weight = before[..., 2].clamp_min(1e-9)
        centre = before[..., 0] / weight
        deviation = torch.sqrt((before[..., 1] / weight - centre * centre).clamp_min(1e-9))
        known = before[..., 2] * (1.0 - self.slow) >= 0.5
        risen = (known & (mean > centre + self.rise * deviation)).to(surprise.dtype)
        above = self._decaying((risen * one).unsqueeze(-1), 0.0, state.above.unsqueeze(-1), one).squeeze(-1)
        begun = above * (1.0 - torch.cat([state.above.unsqueeze(1), above[:, :-1]], 1))
        return begun, SegmentState(now[:, -1], usual[:, -1], above[:, -1])

    def _decaying(self, values: Tensor, decay: float, before: Tensor, one: Tensor) -> Tensor:
        """Values [B,T,C] -> what is left of them and all before, at each token; what is not a token lets nothing decay."""
        kept = (1.0 - (1.0 - decay) * one).unsqueeze(-1).expand_as(values).transpose(0, 1).contiguous()
        return self.ops.affine_scan(kept, values.transpose(0, 1).contiguous(), before).transpose(0, 1)

"""An event clock: time cells since the last event, as the stream of keys itself tells events apart. Constructed, not learned.

    change_t = 1 - k_t . k_{t-1},   boundary = Segments(change),   rates_t = TimeCells(tokens since the last boundary)

An event begins where the place code leaves what was usual (`neuro.memory.segments`, on change instead of surprise, for how
surprising a token was is known only after the memory has been read). Padding passes no time and is no change. No gradient: what
is learned is what the rates do to a key (`neuro.regions.hippocampus`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backends import Ops
from neuro.memory.segments import FAST, RISE, SLOW, Segments
from neuro.memory.time_cells import TimeCells, TimeState
from neuro.state import ClockState, SegmentState

SHORTEST, LONGEST = 1.0, 4096.0  # tokens, preferred by the first and the last cell


class EventClock(nn.Module):
    """``cells`` rates for each token.

    Raises:
        UsageError: fewer than two cells.
    """

    def __init__(self, cells: int, width: int, ops: Ops) -> None:
        super().__init__()
        self.width, self.segments = width, Segments(FAST, SLOW, RISE, ops)
        self.cells = TimeCells(cells, SHORTEST, LONGEST, ops)

    def init_state(self, batch: int, device: torch.device) -> ClockState:
        """An event begins with the stream."""
        segments = self.segments.init_state(batch, device)
        return ClockState(
            *segments, self.cells.init_state(batch, device).elapsed, torch.zeros(batch, self.width, device=device)
        )

    @torch.no_grad()
    def scan(self, keys: Tensor, valid: Tensor, state: ClockState) -> tuple[Tensor, ClockState]:
        """Unit keys [B,T,K], valid [B,T] 1 for a token and 0 for padding before a row's first -> rates [B,T,N], state."""
        keys = keys * valid.unsqueeze(-1)
        before = torch.cat([state.last.unsqueeze(1), keys[:, :-1]], 1)
        change = 1.0 - (keys * before).sum(-1)
        segments = SegmentState(state.fast, state.slow, state.above)
        boundary, segments = self.segments.scan(change, segments, valid)
        rates, time = self.cells.scan(boundary, TimeState(state.elapsed), valid)
        return rates, ClockState(*segments, time.elapsed, keys[:, -1])

"""Endocrine system: five hormones that relax towards a level set by what the last span was like.

    b = sigmoid(W f + c),  f = [valence, arousal, tanh(surprise / 5), novelty, spike_rate]
    x <- b + (x - b) 2^(-n / half_life)          after a span of n tokens

Bounded in (0, 1) by construction; no wall clock. The level starts from textbook signs (noradrenaline and cortisol rise
with surprise, acetylcholine and dopamine with novelty, serotonin with valence) and is trained by the main loss. That of a
hormone in ``endocrine.off`` is 1/2, where all of them start: it rests while the others move.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuro.config import HORMONES, BrainConfig
from neuro.layers.norm import wide
from neuro.regions.base import Channels, Region
from neuro.state import EndocrineState, Held, SpanBuffer

# Rows: HORMONES; columns: valence, arousal, surprise, novelty, spike rate.
_FIRST_WEIGHTS = (
    (1.0, 0.0, 0.0, 1.0, 0.0),
    (0.0, 1.0, 1.0, 0.0, 0.0),
    (0.0, 0.0, 0.0, 2.0, 0.0),
    (1.0, -1.0, 0.0, 0.0, 0.0),
    (-1.0, 1.0, 1.0, 0.0, 1.0),
)


class Endocrine(Region):
    name = "endocrine"
    reads = ("affect~", "surprise~", "novelty~", "spike_rate~")
    writes = ()  # its one output, modulators~, is held feedback

    half_lives: Tensor
    off: Tensor | None

    def __init__(self, config: BrainConfig) -> None:
        super().__init__()
        self.level = nn.Linear(5, len(HORMONES))
        with torch.no_grad():
            self.level.weight.copy_(torch.tensor(_FIRST_WEIGHTS))
            self.level.bias.copy_(-self.level.weight @ torch.tensor([0.0, 0.0, 0.7, 0.5, 0.1]))
        half_lives = torch.tensor(config.endocrine.half_lives_tokens)
        self.register_buffer("half_lives", half_lives, persistent=False)
        off = torch.tensor([name in config.endocrine.off for name in HORMONES])
        self.register_buffer("off", off if config.endocrine.off else None, persistent=False)

    def init_state(self, batch: int, device: torch.device) -> EndocrineState:
        return EndocrineState(torch.full((batch, len(HORMONES)), 0.5, device=device))

    def scan(self, inputs: Channels, state: EndocrineState) -> tuple[dict[str, Tensor], EndocrineState]:
        return {}, state

    def commit(
        self, state: EndocrineState, span: SpanBuffer, held: Held, modulators: Tensor, tokens: Tensor
    ) -> EndocrineState:
        scalars = torch.stack([torch.tanh(held.surprise / 5.0), held.novelty, held.spike_rate], -1)
        level = torch.sigmoid(wide(self.level(torch.cat([held.affect, scalars], -1))))
        if self.off is not None:
            level = level.masked_fill(self.off, 0.5)
        kept = torch.exp2(-tokens.to(level.dtype).unsqueeze(-1) / self.half_lives)
        # A row that saw only padding in this span has nothing to relax towards yet.
        lived = (span.valid.amax(1) > 0).unsqueeze(-1)
        return EndocrineState(torch.where(lived, level + (state.modulators - level) * kept, state.modulators))

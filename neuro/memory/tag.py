"""A tag: how much a pair is expected to be worth later, told when it could be stored.

    tag = w . [surprise, log(surprise + 0.05), novelty, salience, value, key] + c,   from -2.5 to 2.5

It is of what waits in the span's buffer and of nothing else: what came and in which context, how unexpected it was, how new the
context, and how strongly felt. Over training text a tag has mean 0 and deviation 1; w and c begin at 0 and are fitted to what
pairs were worth (`neuro.train.usefulness`), not trained by the main loss. The hippocampus's controller "tagged" writes first
what has the most of exp(tag / 2) times surprise: what is kept of an experience is chosen when it happens, as by the ripples of
waking rest (Yang et al. 2024, doi:10.1126/science.adk8261).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuro.state import SpanBuffer

_MOST = 2.5  # deviations
_LEAST = 0.05  # nats


class Tag(nn.Module):
    """``forward`` gives the tag of every pair of a span."""

    def __init__(self, width: int, key_width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4 + width + key_width), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(()), requires_grad=False)

    def features(self, span: SpanBuffer) -> Tensor:
        """[B,P,4 + D + K], before any weight."""
        told = torch.log(span.surprise + _LEAST)
        plain = torch.stack([span.surprise, told, span.novelty, span.salience], -1)
        return torch.cat([plain, span.values, span.keys], -1)

    def forward(self, span: SpanBuffer) -> Tensor:
        """[B,P]"""
        return ((self.features(span) * self.weight).sum(-1) + self.bias).clamp(-_MOST, _MOST)

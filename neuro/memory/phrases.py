"""Phrase code: which words led here, in their order, so that a phrase that stands again is known whatever it means here.

    code_v = sqrt(2/W) cos(2 pi (v f + g)),   phrase_t = unit(sum_j kept^j turn_j(code of token t - j)),   j = 0 .. LENGTH - 1
    match(p, m) = max(0, p . P_m - CLOSE) / (1 - CLOSE),   gain(p, m) = GAIN max(0, match - SURE) / (1 - SURE)

Every token of the vocabulary has a fixed random vector, and what lies j tokens back is turned by j places, so that order
counts; nothing is trained, and two phrases are close when their last tokens are the same ones. The key of the episodic
memory is of what the cortex makes of the last tokens, which is never twice the same: among thousands of moments the right
one is often not the closest. The last five tokens alone tell one from nearly all others. What is recalled is a direction
among what else is to be said, and grows faint when much other text has been read since: where the last six tokens or more
are those that led to a slot, its value is recalled so much louder.

Source: random vectors bound by permutation: Kanerva 2009, doi:10.1007/s12559-009-9009-8; Jones & Mewhort 2007,
doi:10.1037/0033-295X.114.1.1. differs: the vector of a token is a function of its id, so that no table is kept; older
tokens count less, by ``KEPT`` each.
"""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor, nn

from neuro.layers.norm import normalize

WIDTH = 64  # of a code
LENGTH = 8  # tokens of a phrase
KEPT = 0.75  # weight of a token over that of the one after it
CLOSE = 0.88  # cosine from which two phrases count as alike: their last four or five tokens are the same
SURE = 0.7  # match from which a value is recalled louder: about six tokens are the same
GAIN = 1.0  # of a value at match 1, times itself
_TURN = 65536  # parts of a turn in which frequencies and phases are told


class Phrases(nn.Module):
    """Codes of token sequences. B batch, T tokens, M slots, W `WIDTH`."""

    frequency: Tensor
    phase: Tensor

    def __init__(self) -> None:
        super().__init__()
        draw = random.Random(0)
        for name in ("frequency", "phase"):
            turns = torch.tensor([draw.randrange(_TURN) for _ in range(WIDTH)])  # whole numbers: no cast rounds them
            self.register_buffer(name, turns, persistent=False)

    def init_state(self, batch: int, device: torch.device) -> Tensor:
        """Codes of the last `LENGTH` tokens [B, LENGTH, W] of streams that have seen none."""
        return torch.zeros(batch, LENGTH, WIDTH, device=device)

    def code(self, tokens: Tensor) -> Tensor:
        """tokens [B,T] int64 -> [B,T,W] float32, of unit length but for some tenths."""
        turns = (tokens.unsqueeze(-1).float() * self.frequency.float() + self.phase.float()) / _TURN
        return math.sqrt(2.0 / WIDTH) * torch.cos(2.0 * math.pi * (turns - torch.floor(turns)))

    def scan(self, tokens: Tensor, valid: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """tokens [B,T], valid [B,T], the codes of the last tokens [B,LENGTH,W] -> phrases [B,T+1,W], codes of the last now.

        The first phrase is that of the token before the first.
        """
        codes = torch.cat([last, self.code(tokens).to(last.dtype) * valid.unsqueeze(-1).to(last.dtype)], 1)
        return _bound(codes, tokens.shape[1] + 1), codes[:, -LENGTH:]

    def last(self, codes: Tensor) -> Tensor:
        """Codes of the last tokens [B,LENGTH,W] -> the phrase that they are [B,W]."""
        return _bound(codes, 1)[:, 0]


def _bound(codes: Tensor, length: int) -> Tensor:
    """Codes [B,LENGTH - 1 + length,W] -> the phrase that ends at each of the last ``length`` of them."""
    summed = torch.zeros_like(codes[:, :length])
    for back in range(LENGTH):
        start = LENGTH - 1 - back
        old = codes[:, start : start + length]
        summed = summed + KEPT**back * torch.cat([old[..., back:], old[..., :back]], -1)
    return normalize(summed)


def match(phrases: Tensor, stored: Tensor) -> Tensor:
    """phrases [B,T,W], stored [B,M,W] -> how much each slot's is the same phrase [B,T,M], 0 to 1."""
    return (phrases @ stored.transpose(1, 2) - CLOSE).clamp_min(0.0) / (1.0 - CLOSE)


def gain(matches: Tensor) -> Tensor:
    """Matches [B,T,M] -> by how much, times itself, each slot's value is recalled louder [B,T,M], 0 to `GAIN`."""
    return (matches - SURE).clamp_min(0.0) * (GAIN / (1.0 - SURE))

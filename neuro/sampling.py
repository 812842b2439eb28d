"""Choosing the next token: temperature, then the nucleus. (transformers' generate, through neuro.hf, has the rest.)"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from neuro.errors import UsageError


@dataclasses.dataclass
class Sampler:
    """Logits [V] -> token id. The defaults were chosen by `benchmarks/generation.py` on WikiText-2 valid.

    Args:
        temperature: 0 takes the most likely token.
        top_p: smallest set of tokens with this joint probability (Holtzman et al. 2020, arXiv:1904.09751).
        banned: ids that are never chosen.
        seed: of the generator.
    """

    temperature: float = 0.9
    top_p: float = 0.95
    banned: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise UsageError(f"--temperature: got {self.temperature}, expected at least 0.", "0 is greedy.")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"--top-p: got {self.top_p}, expected in (0, 1].", "1 samples from all tokens.")
        self._generator = torch.Generator().manual_seed(self.seed)

    def __call__(self, logits: Tensor) -> int:
        logits = logits.detach().float().cpu().clone()
        logits[list(self.banned)] = -torch.inf
        if self.temperature == 0:
            return int(logits.argmax())
        p, ids = torch.softmax(logits / self.temperature, 0).sort(descending=True)
        outside = p.cumsum(0) - p >= self.top_p
        return int(ids[torch.multinomial(p.masked_fill(outside, 0.0), 1, generator=self._generator)])

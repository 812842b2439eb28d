"""Choosing the next token: temperature, then the nucleus. (transformers' generate, through neuro.hf, has the rest.)"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from neuro.errors import NeuroError, UsageError

# Outside, a temperature overflows or vanishes in float32; long before, it only takes the likeliest or any token.
TEMPERATURES = (1e-3, 1e3)


@dataclasses.dataclass
class Sampler:
    """Logits [V] -> token id. The defaults were chosen by `benchmarks/generation.py` on WikiText-2 valid.

    Args:
        temperature: 0 takes the most likely token; otherwise within `TEMPERATURES`.
        top_p: smallest set of tokens with this joint probability (Holtzman et al. 2020, arXiv:1904.09751).
        banned: ids that are never chosen.
        seed: of the generator.

    Raises:
        UsageError: a temperature or a share outside its range.
        NeuroError: when called: logits that are not finite.
    """

    temperature: float = 1.0
    top_p: float = 0.95
    banned: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        least, most = TEMPERATURES
        if self.temperature != 0 and not least <= self.temperature <= most:
            raise UsageError(
                f"--temperature: got {self.temperature}, expected 0 or {least:g} to {most:g}.", "0 is greedy."
            )
        if not 0 < self.top_p <= 1:
            raise UsageError(f"--top-p: got {self.top_p}, expected in (0, 1].", "1 samples from all tokens.")
        self._generator = torch.Generator().manual_seed(self.seed)

    def __call__(self, logits: Tensor, warmth: float = 1.0) -> int:
        """Draw one id; the temperature is multiplied by ``warmth``, greedy stays greedy."""
        logits = logits.detach().float().cpu().clone()
        if not bool(torch.isfinite(logits).all()):
            raise NeuroError("sampling: the logits are not finite.", "Use another model or another --backend.")
        logits[list(self.banned)] = -torch.inf
        if self.temperature == 0:
            return int(logits.argmax())
        p, ids = torch.softmax(logits / (self.temperature * warmth), 0).sort(descending=True)
        outside = p.cumsum(0) - p >= self.top_p
        return int(ids[torch.multinomial(p.masked_fill(outside, 0.0), 1, generator=self._generator)])

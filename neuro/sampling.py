"""Choosing the next token: a penalty on repeats, temperature, then the nucleus. (transformers' generate, through neuro.hf,
has the rest.)

Axes: N rows, T tokens so far, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from neuro.errors import UsageError

if TYPE_CHECKING:
    from neuro.tokenizer import Tokenizer

SEQUENCE_BREAKERS = ("\n", ":", '"', "*")
LONGEST_MATCH = 50  # tokens of a repeat that are counted: beyond it the penalty forbids anyway


@dataclasses.dataclass(frozen=True)
class Dry:
    """Don't repeat yourself: where the last n tokens occurred before, what followed them there gets less likely.

    score(token) -= multiplier * base ** (n - allowed_length)   for the longest such n, if it is at least allowed_length

    Source: P. E. Weidmann, "DRY: A modern repetition penalty" (2024, text-generation-webui pull request 5677).

    Args:
        multiplier: nats taken at the allowed length; 0 takes none.
        base: growth of the penalty with each further token.
        allowed_length: repeats shorter than this are free.
        breakers: ids over which no repeat reaches, and that are never penalised (`breaker_ids` finds them).

    Raises:
        UsageError: a number out of its range.
    """

    multiplier: float = 0.8
    base: float = 1.75
    allowed_length: int = 2
    breakers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not (self.multiplier >= 0 and self.base >= 1 and self.allowed_length >= 1):
            raise UsageError(
                f"DRY: got multiplier {self.multiplier}, base {self.base}, allowed length {self.allowed_length}, "
                "expected at least 0, 1 and 1.",
                "Start from 0.8, 1.75 and 2.",
            )

    def __call__(self, ids: Tensor, scores: Tensor, start: Tensor | None = None) -> Tensor:
        """Scores [N, V] of the token after ids [N, T], less the penalties; columns before ``start`` [N] do not count."""
        length = ids.shape[1]
        if self.multiplier == 0 or length < 2:
            return scores
        breaks = torch.isin(ids, torch.tensor(self.breakers, dtype=torch.int64, device=ids.device))
        real = torch.ones_like(breaks)
        if start is not None:
            real = torch.arange(length, device=ids.device) >= start.to(ids.device).unsqueeze(1)
        # matched[:, i]: how many tokens up to column i equal the last ones; growing[:, i]: the match may be longer still.
        matched, growing = torch.zeros_like(ids[:, 1:]), ~breaks[:, 1:]
        for back in range(min(LONGEST_MATCH, length - 1)):
            at = length - 1 - back
            same = (ids[:, :at] == ids[:, at, None]) & ~breaks[:, at, None] & real[:, :at]
            growing = growing & F.pad(same, (back, 0))
            if not bool(growing.any()):
                break
            matched = matched + growing
        penalty = self.multiplier * self.base ** (matched - self.allowed_length).to(scores.dtype)
        penalty = penalty.masked_fill(matched < self.allowed_length, 0.0)
        return scores - torch.zeros_like(scores).scatter_reduce(1, ids[:, 1:], penalty, "amax")


def breaker_ids(tokenizer: Tokenizer, strings: Sequence[str] = SEQUENCE_BREAKERS) -> tuple[int, ...]:
    """Ids of all tokens that contain one of the strings.

    Raises:
        UsageError: an empty string, which every token contains.
    """
    if "" in strings:
        raise UsageError("DRY: got an empty sequence breaker.", "Give strings of at least one character.")
    wanted = [string.encode() for string in strings]
    return tuple(i for i in range(tokenizer.vocab_size) if any(part in tokenizer.token_bytes(i) for part in wanted))


@dataclasses.dataclass
class Sampler:
    """Logits [V] -> token id, for one stream: it remembers what it chose, which the penalty on repeats looks at.

    The prompt may be repeated freely: what was read just now is what the model should recall. The defaults were chosen
    on WikiText-2 valid by `benchmarks/generation.py`.

    Args:
        temperature: 0 takes the most likely token.
        top_p: smallest set of tokens with this joint probability (Holtzman et al. 2020, arXiv:1904.09751).
        banned: ids that are never chosen.
        seed: of the generator.
        dry: the penalty on repeats of its own text; `Dry(0)` is none.
    """

    temperature: float = 0.9
    top_p: float = 0.95
    banned: tuple[int, ...] = ()
    seed: int = 0
    dry: Dry = Dry()

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise UsageError(f"--temperature: got {self.temperature}, expected at least 0.", "0 is greedy.")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"--top-p: got {self.top_p}, expected in (0, 1].", "1 samples from all tokens.")
        self._generator = torch.Generator().manual_seed(self.seed)
        self._written: list[int] = []

    def __call__(self, logits: Tensor) -> int:
        logits = logits.detach().float().cpu().clone()
        logits[list(self.banned)] = -torch.inf
        logits = self.dry(torch.tensor([self._written], dtype=torch.int64), logits.unsqueeze(0))[0]
        token = self._choose(logits)
        self._written.append(token)
        return token

    def _choose(self, logits: Tensor) -> int:
        if self.temperature == 0:
            return int(logits.argmax())
        p, ids = torch.softmax(logits / self.temperature, 0).sort(descending=True)
        outside = p.cumsum(0) - p >= self.top_p
        return int(ids[torch.multinomial(p.masked_fill(outside, 0.0), 1, generator=self._generator)])

"""Penalties on repetition that transformers does not carry, as logits processors.

    model.generate(**batch, dry_multiplier=0.8, frequency_penalty=0.2)              # or, with the objects themselves:
    model.generate(**batch, logits_processor=[DryLogitsProcessor(attention_mask=batch["attention_mask"])])

They keep nothing between calls and look at the ids alone, so that beams, reordered or not, are penalised for their own text.
`WarmthLogitsProcessor` is no penalty: what the hormones do to the temperature of ``generate(do_sample=True)``.

Axes: N rows of the search (batch times beams or samples), B rows of the prompt, S columns of the prompt, T columns so
far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LogitsProcessor

from neuro.errors import UsageError
from neuro.tokenizer import Tokenizer

SEQUENCE_BREAKERS = ("\n", ":", '"', "*")
LONGEST_MATCH = 50  # tokens of a repeat that are counted: beyond it the penalty forbids anyway


class DryLogitsProcessor(LogitsProcessor):
    """Don't repeat yourself: where the last n tokens occurred before, what followed them there gets less likely.

    score(token) -= multiplier * base ** (n - allowed_length)   for the longest such n, if it is at least allowed_length

    Padding at the left does not count; the prompt does, unless it is told not to. Source: P. E. Weidmann, "DRY: A modern
    repetition penalty" (2024, text-generation-webui pull request 5677).

    Args:
        multiplier: nats taken at the allowed length; 0 takes none.
        base: growth of the penalty with each further token.
        allowed_length: repeats shorter than this are free.
        sequence_breakers: ids over which no repeat reaches, and that are never penalised (`breaker_ids` finds them).
        attention_mask: [B, S] of the prompt, 0 at padding; None means that there is none.
        prompt_length: columns S of a prompt that may be repeated freely, padding included; 0 lets the prompt count.

    Raises:
        UsageError: a number out of its range.
    """

    def __init__(
        self,
        multiplier: float = 0.8,
        base: float = 1.75,
        allowed_length: int = 2,
        sequence_breakers: Iterable[int] = (),
        attention_mask: Tensor | None = None,
        prompt_length: int = 0,
    ) -> None:
        if not (multiplier >= 0 and base >= 1 and allowed_length >= 1):
            raise UsageError(
                f"DRY: got multiplier {multiplier}, base {base}, allowed_length {allowed_length}, "
                "expected at least 0, 1 and 1.",
                "Start from 0.8, 1.75 and 2.",
            )
        self.multiplier, self.base, self.allowed_length = multiplier, base, allowed_length
        self.breakers = torch.tensor(sorted(set(sequence_breakers)), dtype=torch.int64)
        padding = torch.zeros(1, dtype=torch.int64) if attention_mask is None else attention_mask.eq(0).sum(1)
        self.start = padding.clamp_min(prompt_length)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [N, V] of the token after ids [N, T], less the penalties."""
        rows, length = input_ids.shape
        if length < 2:
            return scores
        start = self.start.to(input_ids.device).repeat_interleave(rows // self.start.shape[0]).unsqueeze(1)
        real = torch.arange(length, device=input_ids.device) >= start
        breaks = torch.isin(input_ids, self.breakers.to(input_ids.device))
        # matched[:, i]: how many tokens up to column i equal the last ones; growing[:, i]: the match may be longer still.
        matched, growing = torch.zeros_like(input_ids[:, 1:]), ~breaks[:, 1:]
        for back in range(min(LONGEST_MATCH, length - 1)):
            at = length - 1 - back
            same = (input_ids[:, :at] == input_ids[:, at, None]) & ~breaks[:, at, None] & real[:, :at]
            growing = growing & F.pad(same, (back, 0))
            if not bool(growing.any()):
                break
            matched = matched + growing
        penalty = self.multiplier * self.base ** (matched - self.allowed_length).to(scores.dtype)
        penalty = penalty.masked_fill(matched < self.allowed_length, 0.0)
        return scores - torch.zeros_like(scores).scatter_reduce(1, input_ids[:, 1:], penalty, "amax")


class FrequencyPenaltyLogitsProcessor(LogitsProcessor):
    """score(token) -= penalty * (times the token was generated). The prompt does not count.

    Args:
        penalty: nats per occurrence; a negative one rewards.
        prompt_length: columns S that are the prompt, padding included.
    """

    def __init__(self, penalty: float, prompt_length: int) -> None:
        self.penalty, self.prompt_length = penalty, prompt_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [N, V] of the token after ids [N, T], less the penalties."""
        return scores - self.penalty * _counts(input_ids[:, self.prompt_length :], scores)


class PresencePenaltyLogitsProcessor(LogitsProcessor):
    """score(token) -= penalty, once, if the token was generated at all. The prompt does not count.

    Args:
        penalty: nats; a negative one rewards.
        prompt_length: columns S that are the prompt, padding included.
    """

    def __init__(self, penalty: float, prompt_length: int) -> None:
        self.penalty, self.prompt_length = penalty, prompt_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [N, V] of the token after ids [N, T], less the penalties."""
        return scores - self.penalty * _counts(input_ids[:, self.prompt_length :], scores).clamp_max(1)


class WarmthLogitsProcessor(LogitsProcessor):
    """Divides each row by its warmth (`neuro.brain.Brain.warmth`), before temperature and nucleus; 1 until it is told.

    The forward pass that made the logits tells it, so that rows, beams and their hormones stay together.
    """

    def __init__(self) -> None:
        self.warmth: Tensor | None = None  # [N]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores if self.warmth is None else scores / self.warmth.to(scores).unsqueeze(1)


def breaker_ids(tokenizer: Tokenizer, strings: Sequence[str] = SEQUENCE_BREAKERS) -> list[int]:
    """Ids of all tokens that contain one of the strings.

    Raises:
        UsageError: an empty string, which every token contains.
    """
    if "" in strings:
        raise UsageError("DRY: got an empty sequence breaker.", "Give strings of at least one character.")
    wanted = [string.encode() for string in strings]
    return [i for i in range(tokenizer.vocab_size) if any(part in tokenizer.token_bytes(i) for part in wanted)]


def _counts(ids: Tensor, scores: Tensor) -> Tensor:
    """How often each id occurs in its row of ids [N, T], as [N, V] of the scores' type."""
    return torch.zeros_like(scores).scatter_add(1, ids, torch.ones_like(ids, dtype=scores.dtype))

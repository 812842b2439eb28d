"""Penalties on repetition that transformers does not carry, as logits processors.

    model.generate(**batch, dry_multiplier=0.8, frequency_penalty=0.2)              # or, with the objects themselves:
    model.generate(**batch, logits_processor=[DryLogitsProcessor(attention_mask=batch["attention_mask"])])

They keep nothing between calls and look at the ids alone, so that beams, reordered or not, are penalised for their own text.

Axes: N rows of the search (batch times beams or samples), B rows of the prompt, S columns of the prompt, T columns so
far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from transformers import LogitsProcessor

from neuro.sampling import Dry


class DryLogitsProcessor(LogitsProcessor):
    """`neuro.sampling.Dry` for a batch. Padding at the left does not count; the prompt does, unless it is told not to.

    Args:
        multiplier, base, allowed_length: of the penalty.
        sequence_breakers: ids over which no repeat reaches (`neuro.sampling.breaker_ids` finds them).
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
        self.dry = Dry(multiplier, base, allowed_length, tuple(sequence_breakers))
        padding = torch.zeros(1, dtype=torch.int64) if attention_mask is None else attention_mask.eq(0).sum(1)
        self.start = padding.clamp_min(prompt_length)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [N, V] of the token after ids [N, T], less the penalties."""
        copies = input_ids.shape[0] // self.start.shape[0]
        return self.dry(input_ids, scores, self.start.repeat_interleave(copies))


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


def _counts(ids: Tensor, scores: Tensor) -> Tensor:
    """How often each id occurs in its row of ids [N, T], as [N, V] of the scores' type."""
    return torch.zeros_like(scores).scatter_add(1, ids, torch.ones_like(ids, dtype=scores.dtype))

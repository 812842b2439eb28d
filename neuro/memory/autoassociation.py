"""CA3 and CA1: a cue that is part of a stored pattern, or a noisy one, becomes the pattern; what does not fit is new.

CA3 is a modern Hopfield network (Ramsauer et al. 2020, arXiv:2008.02217), M stored patterns X, unit rows:

    p = softmax(beta X cue),   cue <- unit(X^T p), a few times

Capacity is exponential in the width, one round nearly always suffices, and beta says how sharply one pattern is chosen. CA1
compares what CA3 completed with what the cortex sent directly:

    novelty = 1 - max(0, cos(cue, completed))                   (Lisman and Grace 2005, doi:10.1016/j.neuron.2005.05.002)

Stored patterns are state, given and returned, never kept on a module.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from neuro.errors import UsageError
from neuro.layers.norm import normalize


class Patterns(NamedTuple):
    """What is stored: M pairs, and how often each counts."""

    codes: Tensor  # [M,N], unit rows
    values: Tensor  # [M,V]: what the pattern is read out as


class Recalled(NamedTuple):
    """What cues bring back."""

    value: Tensor  # [...,V]: the values by their shares
    shares: Tensor  # [...,M], summing to 1
    completed: Tensor  # [...,N], unit rows
    novelty: Tensor  # [...] in 0..1


def store(codes: Tensor, values: Tensor, before: Patterns | None = None) -> Patterns:
    """One-shot: patterns [M,N] with their values [M,V], after those that were there.

    Raises:
        UsageError: not as many values as codes, or another width than before.
    """
    if codes.dim() != 2 or values.dim() != 2 or len(codes) != len(values):
        got = f"store: got codes {list(codes.shape)} and values {list(values.shape)}, expected [M,N] and [M,V]."
        raise UsageError(got, "Give one value for each code.")
    codes = normalize(codes)
    if before is None:
        return Patterns(codes, values)
    if before.codes.shape[1] != codes.shape[1] or before.values.shape[1] != values.shape[1]:
        got = f"store: got widths {codes.shape[1]} and {values.shape[1]}"
        expected = f"{before.codes.shape[1]} and {before.values.shape[1]} as stored"
        raise UsageError(f"{got}, expected {expected}.", "Use the code that the patterns were stored with.")
    return Patterns(torch.cat([before.codes, codes]), torch.cat([before.values, values]))


def recall(cues: Tensor, patterns: Patterns, beta: float = 16.0, rounds: int = 1) -> Recalled:
    """Complete cues [...,N] and read out their values; from no patterns come zeros, and all is new.

    Raises:
        UsageError: cues of another width, no round, or a beta that is not positive.
    """
    if cues.shape[-1] != patterns.codes.shape[1]:
        got = f"recall: got cues of width {cues.shape[-1]}, expected {patterns.codes.shape[1]}."
        raise UsageError(got, "Use the code that the patterns were stored with.")
    if rounds < 1 or beta <= 0:
        raise UsageError(f"recall: got {rounds} rounds and beta {beta}, expected 1 or more and above 0.", "Raise them.")
    cues = normalize(cues)
    completed = cues
    for _ in range(rounds):
        shares = torch.softmax(beta * (completed @ patterns.codes.T), -1)
        completed = normalize(shares @ patterns.codes)
    novelty = 1.0 - (cues * completed).sum(-1).clamp_min(0.0)
    return Recalled(shares @ patterns.values, shares, completed, novelty)

"""A fast bias on the vocabulary: the part of the procedural memory that learns which tokens are frequent in this text.

    expected = sum_t p_t,   said = sum_t one_hot(s_t)         over the predicted tokens of the span
    step = clip(rate (said - expected) / (expected + FLOOR), MOST_STEP)
    b <- clip(b 2^(-n / half_life) + step, MOST)

said - expected is minus the gradient of the span's surprise at b, expected is about the diagonal of its Fisher matrix, so this
is a natural gradient (Amari 1998, doi:10.1162/089976698300017746) damped by FLOOR: a token that was hardly expected moves by
rate / FLOOR when it comes. Both bounds keep a rate that is too large from more than a few nats of harm. Source: the output
bias that learns in dynamic evaluation (Krause et al. 2018, arXiv:1709.07432, where all weights learn).
"""

from __future__ import annotations

import torch
from torch import Tensor

from backends import Ops
from neuro.config import BrainConfig
from neuro.state import FastBiasState

FLOOR = 0.02  # chosen on the opening of WikiText-2 valid with the shipped model, as the rate was
MOST_STEP = 1.0  # nats that a commit may move a token by
MOST = 6.0  # nats


def init_state(config: BrainConfig, batch: int, device: torch.device) -> FastBiasState:
    """Nothing is frequent yet, and nothing came."""
    empty = torch.zeros(batch, config.vocab_size, device=device)
    return FastBiasState(empty, empty.clone(), empty.clone())


def counted(state: FastBiasState, tokens: Tensor, chances: Tensor, predicted: Tensor, ops: Ops) -> FastBiasState:
    """Tokens [B,T] that came, the chances [B,T,V] they were given, predicted [B,T] 1 where they were -> state."""
    weight = predicted.unsqueeze(1)
    said = ops.tally(weight, tokens.to(weight.dtype), chances.shape[-1])
    return state._replace(said=state.said + said[:, 0], expected=state.expected + (weight @ chances)[:, 0])


def write(state: FastBiasState, rate: float, half_life_tokens: float, tokens: Tensor) -> FastBiasState:
    """What a commit makes of a span of ``tokens`` [B]; ``rate`` of a step, ``half_life_tokens`` of a bias."""
    step = rate * (state.said - state.expected) / (state.expected + FLOOR)
    kept = torch.exp2(-tokens.to(step.dtype) / half_life_tokens).unsqueeze(1)
    bias = (state.bias * kept + step.clamp(-MOST_STEP, MOST_STEP)).clamp(-MOST, MOST)
    return FastBiasState(bias, torch.zeros_like(step), torch.zeros_like(step))

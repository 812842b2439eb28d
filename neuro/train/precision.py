"""How a brain's errors vary over a text: what a natural procedural memory divides them by.

    C = mean d d^T over the predicted tokens,   Q = (C / c + floor I)^-1,   c the mean eigenvalue of C

for each of the errors that differ (`neuro.memory.procedural`). Nothing is trained: one pass over some thousand tokens of
training text, with the procedural memory learning as it goes, for it is then that the errors are those it will be told.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from neuro.brain import Brain
from neuro.errors import UsageError
from neuro.memory import contents
from neuro.regions.cortex import Cortex

FLOOR = 0.03  # of the mean eigenvalue; chosen on the opening of WikiText-2 valid with the shipped model
SETTLING = 1024  # tokens of each stream before the first that counts


@torch.no_grad()
def measure(brain: Brain, tokens: Tensor) -> int:
    """Set the precision of ``brain``'s errors from training text; nothing else of it changes.

    Args:
        brain: with ``procedural.natural``; run without its episodic memory.
        tokens: [B,T] int64, B streams.

    Returns:
        How many errors were counted.

    Raises:
        UsageError: a brain without a natural procedural memory, or streams that are too short.
    """
    c = brain.config
    if not c.fast_rank or not c.procedural.natural:
        raise UsageError(
            "precision: this brain has no procedural memory that divides its errors by how they vary.",
            "Set procedural.natural=true.",
        )
    if tokens.shape[1] < SETTLING + c.d_model:
        raise UsageError(
            f"precision: got {tokens.shape[1]} tokens a stream, expected at least {SETTLING + c.d_model}.",
            f"Give more text: the first {SETTLING} tokens of a stream do not count.",
        )
    cortex = cast(Cortex, brain.regions["cortex"])
    memory = cortex.procedural
    assert memory is not None
    covariance, counted = torch.zeros_like(memory.precision, dtype=torch.float64), 0
    state, read = brain.init_state(tokens.shape[0]), 0
    for span in tokens.split(c.plasticity_span, 1):
        out = brain.scan(span, state)
        if read >= SETTLING:
            errors = memory.differing(cortex.credited(out.state.buffer)[1]).flatten(1, 2).double()
            covariance += errors.mT @ errors
            counted += int(out.aux.predicted.sum())
        read += span.shape[1]
        state = contents.emptied(brain.commit(out.state)[0], "episodic")
    covariance /= covariance.diagonal(dim1=1, dim2=2).mean(-1).reshape(-1, 1, 1)
    floor = FLOOR * torch.eye(c.d_model, dtype=covariance.dtype, device=covariance.device)
    memory.precision.copy_(torch.linalg.inv(covariance + floor))
    return counted

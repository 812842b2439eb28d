"""Does the reference say what torch says, over one stream with commits? And what it said, for the program to say after it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from export.c import board
from export.c.quantized import Quantized
from export.c.reference import Reference
from neuro import config
from neuro.brain import Brain

_EVERY = 8  # tokens between two rows of logits that are kept


def without_memory(brain: Brain) -> Brain:
    """The same brain with neither an episodic nor a procedural memory."""
    off = ["hippocampus.enabled=false", "procedural.enabled=false"]
    plain = Brain(config.apply_sets(brain.config, off), brain.backend)
    own = brain.state_dict()
    plain.load_state_dict({name: own[name] for name in plain.state_dict()})
    return plain.eval()


@torch.no_grad()
def measure(brain: Brain, quantized: Quantized, tokens: Sequence[int]) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Run torch and the reference over one stream -> (parity, orders, what the reference answered to them)."""
    reference, orders, expected = Reference(quantized), [], []
    nats = own_nats = divergence = 0.0
    agreed = macs = adds = commits = flips = spikes = 0
    state = brain.init_state(1)
    for at, token in enumerate(tokens):
        logits = reference.step(token)
        out = brain.step(torch.tensor([token]), state)
        state = out.state
        macs, adds = macs + reference.macs, adds + reference.adds
        orders.append(token)
        if (at + 1) % _EVERY == 0:
            orders.append(board.LOGITS)
            expected.append(logits)
        own, theirs = _log_softmax(logits), _log_softmax(out.logits[0].numpy())
        if at + 1 < len(tokens):
            own_nats, nats = own_nats - float(own[tokens[at + 1]]), nats - float(theirs[tokens[at + 1]])
        agreed += int(own.argmax() == theirs.argmax())
        divergence += float((np.exp(theirs) * (theirs - own)).sum())
        counts = out.events.spikes[0, 0].tolist()
        spikes += sum(counts)
        flips += sum(abs(a - b) for a, b in zip(counts, reference.fired, strict=True))
        if reference.clock == quantized.config.plasticity_span:
            reference.commit()
            state, commits = brain.commit(state)[0], commits + 1
    orders.append(board.MEMORIES)
    expected.append(reference.state["modulators"])
    if quantized.memory:
        expected += [reference.state["fast"].ravel(), reference.state["strengths"]]
    count = len(tokens)
    updates = max(1, count * quantized.config.cortex.feedforward_width * len(reference.fired))
    parity = {
        "tokens": count,
        "commits": commits,
        "nats": own_nats / max(1, count - 1),
        "torch_nats": nats / max(1, count - 1),
        "top1_agreement": agreed / count,
        "divergence": divergence / count,
        "spike_mismatch": flips / updates,
        "spike_rate": spikes / updates,
        "macs_per_token": macs / count,
        "spike_additions_per_token": adds / count,
    }
    return parity, np.array(orders, np.int16), np.concatenate(expected).astype(np.float32)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64) - logits.max()
    return wide - math.log(np.exp(wide).sum())

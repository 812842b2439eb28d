"""What stored pairs were worth, and a tag that foretells it.

    worth_m = - sum over what is read in the next 4,096 tokens of d(-log p(next token)) / d log strength_m

nats by which the stream would be cheaper if pair m were somewhat stronger. A pair that says what came where nothing else said
it is worth much; one of many that say the same little, however often it is read; one that misleads costs. How
often a pair is read says next to nothing of it (docs/memory.md). Nothing but the tag of `neuro.memory.tag` is changed: one
pass over training text with the procedural memory empty, and a ridge regression.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from neuro.brain import Brain
from neuro.errors import UsageError
from neuro.memory import contents
from neuro.regions.hippocampus import Hippocampus
from neuro.state import detach

HORIZON = 4096  # tokens after a pair that count, and pairs of a stream that are judged
_MOST = 1.0  # nats that one pair counts, either way: a few are worth thirty
_PENALTY = 1000.0  # of the regression, on features of deviation 1


def worth(brain: Brain, tokens: Tensor, horizon: int = HORIZON) -> tuple[Tensor, Tensor]:
    """What each of the first pairs of some streams was worth.

    Args:
        brain: with ``hippocampus.tag``, room for everything that is read and a pair for every token.
        tokens: [B,T] int64, B streams of at least twice ``horizon``.

    Returns:
        features of each pair [B, horizon, 4 + D + K], and what it was worth in nats [B, horizon]; nothing leads to the
        first token of a stream, so there is no such pair and its worth is 0.

    Raises:
        UsageError: a brain without a tag, too few slots or writes, or streams that are too short.
    """
    region = brain.regions["hippocampus"] if "hippocampus" in brain.regions else None
    tag = region.tag if isinstance(region, Hippocampus) else None
    if tag is None:
        raise UsageError("usefulness: this brain has no tag.", "Set hippocampus.tag=true.")
    h, length = brain.config.hippocampus, tokens.shape[1]
    if h.writes_per_span < brain.config.plasticity_span or h.slots < 2 * horizon:
        raise UsageError(
            f"usefulness: got {h.slots} slots and {h.writes_per_span} writes a span, expected at least {2 * horizon} and "
            f"{brain.config.plasticity_span}.",
            "Load the brain with more: what is not stored cannot be judged.",
        )
    if length < 2 * horizon:
        raise UsageError(
            f"usefulness: got {length} tokens a stream, expected at least {2 * horizon}.", "Give more text."
        )
    trained = [p for p in brain.parameters() if p.requires_grad]
    brain.requires_grad_(False)
    try:
        rows = [_worth_of(brain, row, horizon) for row in tokens[:, : 2 * horizon].split(1)]
    finally:
        for p in trained:
            p.requires_grad_(True)
    features, worths = zip(*rows, strict=True)
    return torch.stack(features), torch.stack(worths)


def _worth_of(brain: Brain, tokens: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
    """(features [horizon, N], worth [horizon]) of one stream [1, T]."""
    tag = cast(Hippocampus, brain.regions["hippocampus"]).tag
    assert tag is not None
    length = tokens.shape[1]
    found: list[Tensor] = []
    state = brain.init_state(1)
    worths = state.logits.new_zeros(length)
    for start in range(0, length, brain.config.plasticity_span):
        part = tokens[:, start : start + brain.config.plasticity_span]
        held = state.regions.hippocampus
        assert held
        louder = torch.zeros_like(held.strengths, requires_grad=True)
        asked = held._replace(strengths=held.strengths * torch.exp(louder))
        out = brain.scan(part, state._replace(regions=state.regions._replace(hippocampus=asked)))
        following = tokens[0, start + 1 : start + 1 + part.shape[1]]
        nats = F.cross_entropy(out.logits[0, : len(following)], following, reduction="sum")
        if nats.requires_grad:
            gradient = torch.autograd.grad(nats, louder)[0][0]
            origins = held.origins[0].long()
            counts = (held.strengths[0] > 0) & (start - origins <= horizon)
            worths.index_add_(0, origins[counts], -gradient[counts])
        with torch.no_grad():
            found.append(tag.features(detach(out.state.buffer))[0, : part.shape[1]])
            state = contents.emptied(brain.commit(detach(out.state))[0], "procedural")
    return torch.cat(found)[:horizon], worths[:horizon]


@torch.no_grad()
def measure(brain: Brain, tokens: Tensor, horizon: int = HORIZON) -> int:
    """Fit ``brain``'s tag to what the pairs of training text were worth; nothing else of it changes.

    Args:
        brain: as `worth` takes it.
        tokens: [B,T] int64, B streams of at least twice ``horizon``.

    Returns:
        How many pairs were judged.

    Raises:
        UsageError: as `worth`.
    """
    with torch.enable_grad():
        features, worths = worth(brain, tokens, horizon)
    x = features[:, 1:].flatten(0, 1).double()
    y = worths[:, 1:].flatten().double().clamp(-_MOST, _MOST)
    mean, deviation = x.mean(0), x.std(0) + 1e-9
    x = (x - mean) / deviation
    weight = torch.linalg.solve(x.T @ x + _PENALTY * torch.eye(x.shape[1], dtype=x.dtype), x.T @ (y - y.mean()))
    weight /= (x @ weight).std() + 1e-12
    tag = cast(Hippocampus, brain.regions["hippocampus"]).tag
    assert tag is not None
    tag.weight.copy_(weight / deviation)
    tag.bias.copy_(-(mean / deviation) @ weight)
    return len(y)

"""Training the hippocampus alone: what the frozen brain thinks is read once, then its memory is replayed over it.

The regions before the hippocampus do not read what it learns (their only way back are two hormones, taken as they were), so
its inputs are computed once and kept. A replay makes the keys of a stream anew, reads some of its spans with what had been
committed before them, and asks two things of them:

    loss = surprise at the token that came, from norm(hidden + recall)         the model's own loss
         + weight * -log(share of the slots that hold that token)              of all slots, not only of the top_k

The second reaches slots that are not among the best; without it, what is not found teaches nothing. Source: the
objective of a k-nearest-neighbour language model, Khandelwal et al. 2020, arXiv:1911.00172, here with trained keys.
differs: gradients do not pass through a commit, which only puts a row in its place.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro.brain import Brain
from neuro.config import HORMONES
from neuro.layers.norm import normalize, wide
from neuro.regions.base import Channels
from neuro.regions.hippocampus import Hippocampus
from neuro.regions.readout import Readout
from neuro.state import HippocampusState, ReadoutState
from neuro.train.episodes import AGAIN, ANSWER, TEXT, Episode

SAMPLE = 12  # tokens of a span and kind that pass the vocabulary
EARLIER = 800  # tokens of another stream that may state facts of the same forms
WARM = 6  # tokens of a span before trust is what it would be
_DOPAMINE = HORMONES.index("dopamine")


class Thoughts(NamedTuple):
    """What the hippocampus reads of one stream of T tokens, S spans."""

    tokens: Tensor  # [T] int64
    kinds: Tensor  # [T] int8, of `neuro.train.episodes`
    hidden: Tensor  # [T, D] float16
    context: Tensor  # [T, D] float16
    relay: Tensor  # [T, D] float16
    salience: Tensor  # [T]
    modulators: Tensor  # [T, H] held in the token's span


@torch.no_grad()
def think(brain: Brain, episodes: list[Episode]) -> list[Thoughts]:
    """Read streams of one length side by side; the brain stays as it is.

    The procedural memory stays empty: the error that it learns from costs as much as all the rest.
    """
    region = cast(Hippocampus, brain.regions["hippocampus"])
    kept: dict[str, list[Tensor]] = {name: [] for name in ("hidden", "context", "relay", "salience", "modulators")}

    def listen(inputs: Channels, state: HippocampusState) -> tuple[dict[str, Tensor], HippocampusState]:
        for name in ("hidden", "context", "relay"):
            kept[name].append(inputs[name].half())
        kept["salience"].append(inputs["salience"])
        kept["modulators"].append(inputs["modulators~"].unsqueeze(1).expand(-1, inputs["salience"].shape[1], -1))
        return Hippocampus.scan(region, inputs, state)

    def unmoved(
        channels: Channels, logits: Tensor, predicted: Tensor, state: ReadoutState
    ) -> tuple[Tensor, ReadoutState]:
        return torch.zeros_like(channels["embedding"]), state

    tokens = torch.from_numpy(np.stack([episode.tokens for episode in episodes]))
    state = brain.init_state(len(episodes))
    region.scan, brain._missed = listen, unmoved  # type: ignore[method-assign,assignment]
    try:
        for span in tokens.split(brain.config.plasticity_span, 1):
            state = brain.commit(brain.scan(span, state).state)[0]
    finally:
        del region.scan, brain._missed
    rows = {name: torch.cat(parts, 1) for name, parts in kept.items()}
    kinds = torch.from_numpy(np.stack([episode.kinds for episode in episodes]))
    return [
        Thoughts(tokens[row], kinds[row], **{name: part[row] for name, part in rows.items()})
        for row in range(len(episodes))
    ]


class ReplayLoss(NamedTuple):
    total: Tensor  # [] what is minimised
    nats: dict[int, float]  # mean surprise of each kind of token
    found: dict[int, float]  # geometric mean of the share that the slots of that token have, where there is one
    right: dict[int, float]  # share of tokens that were the likeliest


def replay_loss(
    brain: Brain,
    thoughts: Thoughts,
    spans: Iterable[int],
    weights: dict[int, float],
    search: float,
    random: np.random.Generator,
    earlier: Thoughts | None = None,
) -> ReplayLoss:
    """Read ``spans`` of a stream, each with what was committed before it.

    Args:
        weights: of the mean loss of each kind of token.
        search: weight of the second loss.
        random: which tokens of a span count: all answers, and `SAMPLE` of each other kind.
        earlier: another stream, whose text past its facts the memory holds too: more to tell a fact from.
    """
    region, readout = cast(Hippocampus, brain.regions["hippocampus"]), cast(Readout, brain.regions["readout"])
    memory, span = region.memory, brain.config.plasticity_span
    hidden = wide(thoughts.hidden)
    key, value, strength = _slots(region, thoughts)
    old = torch.zeros(0, dtype=torch.int64)  # slots of the earlier stream, by the token that each holds
    if earlier is not None:
        old = EARLIER + (earlier.kinds[EARLIER:] != ANSWER).nonzero().squeeze(1)
        old_key, old_value, old_strength = _slots(region, earlier)
    parts: list[tuple[Tensor, ...]] = []
    for number in spans:
        start, stop = number * span, min((number + 1) * span, len(thoughts.tokens) - 1)
        # Without the answers to earlier questions: a fact is to be found where it was stated, not where it was asked.
        told = 1 + (thoughts.kinds[1:start] != ANSWER).nonzero().squeeze(1)
        held = (strength[told] * torch.exp2((told // span * span - start) / memory.half_life)).unsqueeze(0)
        keys, values, tokens = key[:, told - 1], value[:, told], thoughts.tokens[told]
        if earlier is not None:
            keys, values = torch.cat([old_key[:, old - 1], keys], 1), torch.cat([old_value[:, old], values], 1)
            held, tokens = torch.cat([old_strength[None, old], held], 1), torch.cat([earlier.tokens[old], tokens])
        score, cosine, chosen = memory.scores(key[:, start:stop], keys, held)
        content = torch.softmax(score, -1) * chosen.to(score.dtype) @ values
        said = normalize(content.detach())
        said = torch.cat([torch.zeros_like(said[:, :1]), said[:, :-1]], 1)
        trust = region._trust(said, value[:, start:stop], torch.zeros(1))
        mood = (thoughts.modulators[start:stop] - 0.5).unsqueeze(0)
        gate_input = region.norm(hidden[start:stop].unsqueeze(0)) * (1.0 + region.null_modulation(mood))
        gate = memory.gate(torch.logsumexp(score, -1), gate_input, trust)
        recall = wide(region.out(content * gate.unsqueeze(-1)))
        gain = readout._gain(thoughts.modulators[start : start + 1])[0].detach()
        following = thoughts.tokens[start + 1 : stop + 1]
        kinds = thoughts.kinds[start + 1 : stop + 1]
        asked = torch.from_numpy(_sample(kinds.numpy(), random))
        features = readout.norm(hidden[start:stop][asked] + recall[0, asked]) * gain
        every = torch.exp(memory.log_scale) * cosine[0, asked] + torch.exp(memory.log_age) * torch.log(held)
        same = following[asked].unsqueeze(1) == tokens
        share = torch.logsumexp(every.masked_fill(~same, -1e4), 1) - torch.logsumexp(every, 1)
        parts.append((kinds[asked], following[asked], features, share, same.any(1)))
    kinds, following, features, share, there = (torch.cat(column) for column in zip(*parts, strict=True))
    logits = features @ brain.embedding.T
    nats = F.cross_entropy(logits, following, reduction="none")
    right = (logits.detach().argmax(-1) == following).float()
    total = torch.zeros(())
    found: list[dict[int, float]] = [{}, {}, {}]
    for kind, weight in weights.items():
        of = kinds == kind
        if bool(of.any()):
            total = total + weight * nats[of].mean()
            found[0][kind], found[2][kind] = float(nats[of].detach().mean()), float(right[of].mean())
        if bool((of & there).any()):
            total = total - weight * search * share[of & there].mean()
            found[1][kind] = float(torch.exp(share[of & there].detach().mean()))
    return ReplayLoss(total, *found)


def _slots(region: Hippocampus, thoughts: Thoughts) -> tuple[Tensor, Tensor, Tensor]:
    """Of every token of a stream the key [1,T,K], the value [1,T,D] and the strength [T] it would be stored with."""
    context = wide(thoughts.context).unsqueeze(0)
    nothing = context.new_zeros(1, region.config.hippocampus.key_width)
    key = region.keys(region.traces(context, context.new_ones(1, context.shape[1]), nothing))
    strength = thoughts.salience * (0.5 + thoughts.modulators[:, _DOPAMINE])
    return key, wide(region.value(wide(thoughts.relay).unsqueeze(0))), strength


def _sample(kinds: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Places of a span's tokens that count: all answers, `SAMPLE` of each other kind but the first ones."""
    found = [np.flatnonzero(kinds == ANSWER)]
    for kind in (TEXT, AGAIN):
        places = np.flatnonzero(kinds == kind)
        places = places[places >= WARM]
        found.append(random.permutation(places)[:SAMPLE])
    return np.concatenate(found)


def spans_to_ask(thoughts: Thoughts, span: int, count: int, random: np.random.Generator) -> list[int]:
    """``count`` spans of a stream, those with an answer first, in order; never the first four."""
    full = len(thoughts.tokens) // span
    with_answer = {int(place) // span for place in (thoughts.kinds[1:] == ANSWER).nonzero()}
    candidates = np.arange(4, full)
    chance = np.array([8.0 if int(s) in with_answer else 1.0 for s in candidates])
    chosen = random.choice(candidates, min(count, len(candidates)), replace=False, p=chance / chance.sum())
    return sorted(int(s) for s in chosen)


def parameters(brain: Brain) -> list[nn.Parameter]:
    """What is trained; everything else of the brain is frozen by this call."""
    brain.requires_grad_(False)
    return list(brain.regions["hippocampus"].requires_grad_(True).parameters())

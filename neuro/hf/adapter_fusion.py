"""What an adapter adds to a base's hidden states: recall from a hippocampus, or a block without a memory.

    e_t = rms-normalised embedding of token t,  c_t = the base's state that addresses the memory, h_t = what its head reads
    fused_t = h_t + recall_t,   recall_t by the rules of `neuro.regions.hippocampus` from hidden h, context c, relay e

A pair is (key of the context of the token before, the token that came). Pairs of a span are written when it is full, so a
token reads spans that ended before it; spans are cut inside ``scan``, which therefore takes any number of tokens, and
``scan == fold(step)``. With an `Alignment` (`neuro.hf.adapter_drift`) h, c and e are mapped on their way in and recall on its
way out. differs from the brain's hippocampus: salience is 1 and the hormones are at rest, for a base has neither.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backends import Ops
from neuro.config import HORMONES
from neuro.hf.adapter_config import AdapterConfig
from neuro.hf.adapter_drift import Alignment
from neuro.layers.norm import RMSNorm, wide
from neuro.memory import slot_lists
from neuro.memory.slot_lists import SlotLists
from neuro.regions.hippocampus import Hippocampus
from neuro.state import HippocampusState, SpanBuffer, tree_map

_START_NATS = 4.0  # by which a recalled token's own logit is raised before training, through an open gate


class MemoryState(NamedTuple):
    """One state per row. n tokens since the last commit."""

    hippocampus: HippocampusState
    keys: Tensor  # [B, n, K] of the pairs that wait for the commit
    values: Tensor  # [B, n, D]
    candidate: Tensor  # [B, n] 1 where keys and values make a pair
    novelty: Tensor  # [B, n]
    lists: SlotLists | tuple[()] = ()  # of the slots; empty where they are read exactly or have been exchanged


class Fused(NamedTuple):
    """What came of hidden states [B,T,D]."""

    hidden: Tensor  # [B, T, D]
    gate: Tensor  # [B, T] how much of what was found is recalled
    novelty: Tensor  # [B, T]


class MemoryFusion(nn.Module):
    """A hippocampus beside a base."""

    def __init__(self, config: AdapterConfig, ops: Ops) -> None:
        super().__init__()
        self.config = config
        self.hippocampus = Hippocampus(config.brain_config(), ops)
        self.hippocampus.null_modulation.weight.requires_grad_(False)  # of hormones, which never change here
        self.alignment: Alignment | None = None

    @torch.no_grad()
    def start_towards(self, directions: Tensor) -> None:
        """Let a recalled embedding raise its own token: ``directions`` [D,D] maps embeddings to the head's rows."""
        weight = directions.to(self.hippocampus.out.weight)
        probe = torch.randn(256, weight.shape[1], generator=torch.Generator().manual_seed(0)).to(weight)
        raised = (probe @ weight.T).square().sum(1).mean()
        self.hippocampus.out.weight.copy_(weight * _START_NATS / raised.clamp_min(1e-6))

    def init_state(self, batch: int, device: torch.device) -> MemoryState:
        h, width = self.config.brain_config().hippocampus, self.config.hidden_size
        dtype = self.hippocampus.norm.weight.dtype
        fresh = tree_map(lambda leaf: leaf.to(dtype), self.hippocampus.init_state(batch, device))
        empty = fresh.trust.new_zeros(batch, 0)
        return MemoryState(
            fresh, empty.new_zeros(batch, 0, h.key_width), empty.new_zeros(batch, 0, width), empty, empty.clone()
        )

    def scan(self, hidden: Tensor, context: Tensor, embedded: Tensor, state: MemoryState) -> tuple[Fused, MemoryState]:
        """Tokens [B,T] of any number, committing at each span's end."""
        alignment = self.alignment
        read = hidden if alignment is None else alignment.hidden(hidden)
        key, relay = self._aligned(context, embedded)
        pieces, start = [], 0
        while start < hidden.shape[1]:
            state = self._listed(state)
            stop = min(hidden.shape[1], start + self.config.span - state.keys.shape[1])
            piece, state = self._read(wide(read[:, start:stop]), wide(key[:, start:stop]), relay[:, start:stop], state)
            pieces.append(piece)
            if state.keys.shape[1] == self.config.span:
                state = self.commit(state)
            start = stop
        recall, gate, novelty = (torch.cat(parts, 1) for parts in zip(*pieces, strict=True))
        recall = recall if alignment is None else alignment.recalled(recall)
        return Fused(hidden + recall.to(hidden.dtype), gate, novelty), state

    def encode(self, context: Tensor, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B,T] -> the key of each, under which what follows it is stored [B,T,K], and its value [B,T,D]."""
        key, relay = self._aligned(context, embedded)
        every = relay.new_ones(relay.shape[:2])
        before = relay.new_zeros(len(relay), self.config.key_width)
        keys = self.hippocampus.keys(self.hippocampus.traces(wide(key), every, before))
        return keys, wide(self.hippocampus.value(relay))

    def commit(self, state: MemoryState) -> MemoryState:
        """Write the pairs that wait; a span may end early."""
        rows, count = state.candidate.shape
        if not count:
            return state
        rest = self.config.span - count
        keys, values = (F.pad(part, (0, 0, 0, rest)) for part in (state.keys, state.values))
        candidate, novelty, valid = (
            F.pad(part, (0, rest)) for part in (state.candidate, state.novelty, torch.ones_like(state.candidate))
        )
        none = candidate[..., :0]
        span = SpanBuffer(
            keys, values, candidate, valid, novelty, none, torch.zeros_like(valid), none, valid, none, none
        )
        rest_mood = candidate.new_full((rows, len(HORMONES)), 0.5)
        tokens = torch.full((rows,), count, dtype=torch.int64, device=candidate.device)
        after, _, _ = self.hippocampus.write(state.hippocampus, span, rest_mood, tokens)
        lists = state.lists
        if isinstance(lists, SlotLists):
            lists = slot_lists.written(lists, state.hippocampus.keys, after.keys, after.strengths)
        return MemoryState(after, keys[:, :0], values[:, :0], candidate[:, :0], novelty[:, :0], lists)

    def _listed(self, state: MemoryState) -> MemoryState:
        """With lists where slots are read through them: by ``probes``, outside training, when there are enough to gain."""
        if self.config.probes is None or self.training:
            return state._replace(lists=())
        if isinstance(state.lists, SlotLists):
            return state
        own = state.hippocampus
        if int((own.strengths > 0).sum(1).max()) < self.config.probes_from:
            return state
        return state._replace(lists=slot_lists.fit(own.keys, own.strengths))

    def _aligned(self, context: Tensor, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """What addresses the memory and what is stored, in the terms that the store was written in."""
        relay = _unit_rms(embedded)
        if self.alignment is None:
            return context, relay
        return self.alignment.context(context), _unit_rms(self.alignment.embedded(relay))

    def _read(
        self, hidden: Tensor, context: Tensor, relay: Tensor, state: MemoryState
    ) -> tuple[tuple[Tensor, Tensor, Tensor], MemoryState]:
        """Tokens inside one span -> ((recall, gate, novelty), state)."""
        rows, count, _ = hidden.shape
        inputs = {
            "hidden": hidden,
            "context": context,
            "relay": relay,
            "valid": hidden.new_ones(rows, count),
            "modulators~": hidden.new_full((rows, len(HORMONES)), 0.5),
        }
        lookup, lists = None, state.lists
        if isinstance(lists, SlotLists) and self.config.probes is not None:
            lookup = partial(
                slot_lists.candidates, lists, strengths=state.hippocampus.strengths, probes=self.config.probes
            )
        out, hippocampus = self.hippocampus.scan(inputs, state.hippocampus, lookup)
        after = MemoryState(
            hippocampus,
            keys=torch.cat([state.keys, out["pair_key"]], 1),
            values=torch.cat([state.values, out["pair_value"]], 1),
            candidate=torch.cat([state.candidate, out["pair_candidate"]], 1),
            novelty=torch.cat([state.novelty, out["novelty"]], 1),
            lists=lists,
        )
        return (out["recall"], out["recall_gate"], out["novelty"]), after


class FeedforwardFusion(nn.Module):
    """The same place and the same number of parameters, but no memory: h + W_2 gelu(W_1 norm(h)); begins at no effect."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.hidden_size)
        self.enter = nn.Linear(config.hidden_size, config.hidden, bias=False)
        self.leave = nn.Linear(config.hidden, config.hidden_size, bias=False)
        nn.init.zeros_(self.leave.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.leave(F.gelu(self.enter(self.norm(hidden)))).to(hidden.dtype)


def _unit_rms(x: Tensor) -> Tensor:
    x = wide(x)
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True).clamp_min(1e-12))

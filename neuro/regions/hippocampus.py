"""Hippocampus: a sparse place-cell code addresses an episodic memory of what came next.

    a_t = place_cells(norm(hidden_t)),   key_t = unit(W_k a_t),   value_t = W_v relay_t
    pair_t = (key_{t-1}, value_t): what followed the context of the token before
    recall_t = W_o read(key_t)

Written at commits only, so no token can read what came after it. differs from the architecture's table: it also reads
relay, because what it stores is the token that followed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backends import Ops
from neuro.config import HORMONES, BrainConfig
from neuro.layers.norm import RMSNorm, normalize, wide
from neuro.memory.episodic import EpisodicMemory, Pairs
from neuro.memory.place_cells import PlaceCells
from neuro.regions.base import Channels, Region
from neuro.state import Held, HippocampusState, SpanBuffer

_DOPAMINE = HORMONES.index("dopamine")


class Hippocampus(Region):
    name = "hippocampus"
    reads = ("hidden", "relay", "salience", "valid", "modulators~")
    writes = ("recall", "novelty", "pair_key", "pair_value", "pair_candidate")

    def __init__(self, config: BrainConfig, ops: Ops) -> None:
        super().__init__()
        self.config = config
        width, h = config.d_model, config.hippocampus
        self.norm = RMSNorm(width)
        self.place_cells = PlaceCells(width, h.place_cells, h.sparsity)
        self.key = nn.Linear(h.place_cells, h.key_width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.null_modulation = nn.Linear(len(HORMONES), width, bias=False)
        nn.init.zeros_(self.null_modulation.weight)
        # A recalled token starts as itself: both projections near the identity.
        for linear in (self.value, self.out):
            nn.init.eye_(linear.weight)
        self.memory = EpisodicMemory(width, h.top_k, h.writes_per_span, h.half_life_tokens, ops, h.rebind)

    def init_state(self, batch: int, device: torch.device) -> HippocampusState:
        h, width = self.config.hippocampus, self.config.d_model
        return HippocampusState(
            torch.zeros(batch, h.slots, h.key_width, device=device),
            torch.zeros(batch, h.slots, width, device=device),
            torch.zeros(batch, h.slots, device=device),
            torch.zeros(batch, h.key_width, device=device),
            torch.zeros(batch, device=device),
        )

    def scan(self, inputs: Channels, state: HippocampusState) -> tuple[dict[str, Tensor], HippocampusState]:
        x = self.norm(inputs["hidden"])
        key = normalize(self.key(self.place_cells(x)))
        gate_input = x * (1.0 + self.null_modulation((inputs["modulators~"] - 0.5).unsqueeze(1)))
        recall, novelty = self.memory.read(key, gate_input, state.keys, state.values, state.strengths)
        valid = inputs["valid"]
        outputs = {
            "recall": wide(self.out(recall)),
            "novelty": novelty,
            "pair_key": torch.cat([state.last_key.unsqueeze(1), key[:, :-1]], 1),
            "pair_value": wide(self.value(inputs["relay"])),
            "pair_candidate": torch.cat([state.has_key.unsqueeze(1), valid[:, :-1]], 1) * valid,
        }
        return outputs, state._replace(last_key=key[:, -1], has_key=valid[:, -1])

    def write(
        self, state: HippocampusState, span: SpanBuffer, modulators: Tensor, tokens: Tensor
    ) -> tuple[HippocampusState, Tensor, Tensor]:
        """The commit with its counts: (state, slots written [B], filled slots overwritten [B])."""
        strengths = span.salience * (0.5 + modulators[:, _DOPAMINE].unsqueeze(1))
        priority = span.salience * (0.05 + span.novelty) * span.candidate
        pairs = Pairs(span.keys, span.values, strengths, priority)
        keys, values, strengths, writes, evictions = self.memory.write(
            state.keys, state.values, state.strengths, pairs, tokens
        )
        return state._replace(keys=keys, values=values, strengths=strengths), writes, evictions

    def commit(
        self, state: HippocampusState, span: SpanBuffer, held: Held, modulators: Tensor, tokens: Tensor
    ) -> HippocampusState:
        return self.write(state, span, modulators, tokens)[0]

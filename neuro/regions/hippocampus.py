"""Hippocampus: a sparse place-cell code addresses an episodic memory of what came next.

    a_t = place_cells(norm(context_t)),   c_t = unit(W_k a_t) + key_trace c_{t-1},   key_t = unit(c_t),   value_t = W_v relay_t
    pair_t = (key_{t-1}, value_t): what followed the context of the token before
    recall_t = W_o gate_t content(key_t)
    trust_t = d trust_{t-1} + (1 - d) cos(content_{t-1}, value_t),   d = 2^(-1/3)

With ``key_direct`` c_t = unit(W_k a_t + W_d norm(context_t)) + key_trace c_{t-1}: the context reaches the key past the place
cells too, as entorhinal cortex reaches CA1 directly. With ``key_trace`` a key is the drifting context of the last few tokens
and not of one alone (Howard and Kahana 2002, doi:10.1006/jmps.2001.1388); it is 0 by default.

Trust is how right the memory has just been: high while a text repeats, near zero in a new one. Written at commits only, so
no token can read what came after it. Which pairs of a span are written, at most ``writes_per_span``, is the controller's
choice: "surprise" (the most surprising tokens), "salient" (surprise times salience), "tagged" (surprise times what the pair is
foretold to be worth, `neuro.memory.tag`), "learned" (salience and novelty), "random" or "periodic". With ``learned_sparsity``
every place cell has a threshold of its own that is trained, and training holds the mean share of active cells to a budget
(`neuro.train.objective`). With ``pointer`` the tokens that followed are predicted outright as well (`neuro.memory.pointer`).
With ``phrase`` a slot to which the same words led gains so much cosine at most, whatever the context makes of them, and its
value is recalled louder (`neuro.memory.phrases`). With ``time_cells`` W_time rates_t is added to the unit key and their sum
made a unit again: when in an event a moment was is part of what it is found by (`neuro.memory.event_clock`). With ``segments``
each slot keeps whether surprise said that an event began with its token (`neuro.memory.segments`): contiguity does not lead
into it.
differs from the architecture's table: it also reads relay, because what it stores is the token that followed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from backends import Ops
from neuro.config import HORMONES, BrainConfig
from neuro.layers.linear import Linear
from neuro.layers.norm import RMSNorm, normalize, wide
from neuro.memory import phrases
from neuro.memory.episodic import EpisodicMemory, Pairs
from neuro.memory.event_clock import EventClock
from neuro.memory.place_cells import PlaceCells
from neuro.memory.pointer import Pointer
from neuro.memory.segments import FAST, RISE, SLOW, Segments
from neuro.memory.slot_lists import Candidates
from neuro.memory.tag import Tag
from neuro.regions.base import Channels, DecayModulation, Region
from neuro.state import ClockState, Held, HippocampusState, SegmentState, SpanBuffer, tree_map

_DOPAMINE = HORMONES.index("dopamine")
_TRUST_DECAY = 2.0 ** (-1.0 / 3.0)  # of how right the memory was; half of it is forgotten in 3 tokens
_LAST_EXACT = 2.0**24  # positions are float32, because memory rows are


class Hippocampus(Region):
    name = "hippocampus"
    reads: tuple[str, ...] = ("hidden", "context", "relay", "salience", "valid", "modulators~")
    writes: tuple[str, ...] = ("recall", "recall_gate", "novelty", "pair_key", "pair_value", "pair_candidate")

    def __init__(self, config: BrainConfig, ops: Ops) -> None:
        super().__init__()
        self.config, self.ops = config, ops
        width, h = config.d_model, config.hippocampus
        self.norm = RMSNorm(width)
        self.place_cells = PlaceCells(width, h.place_cells, h.sparsity, ops, h.learned_sparsity)
        self.key = Linear(h.place_cells, h.key_width, ops)
        self.direct = Linear(width, h.key_width, ops) if h.key_direct else None
        if self.direct is not None:
            nn.init.orthogonal_(self.direct.weight)  # cosines of keys begin as those of contexts, nearly
        self.clock = EventClock(h.time_cells, h.key_width, ops) if h.time_cells else None
        if self.clock is not None:
            self.time = Linear(h.time_cells, h.key_width, ops)
            nn.init.zeros_(self.time.weight)  # keys begin as they are without a clock
        self.value = Linear(width, width, ops)
        self.out = Linear(width, width, ops)
        self.null_modulation = nn.Linear(len(HORMONES), width, bias=False)
        nn.init.zeros_(self.null_modulation.weight)
        # A recalled token starts as itself: both projections near the identity.
        for linear in (self.value, self.out):
            nn.init.eye_(linear.weight)
        self.decay_modulation = DecayModulation() if config.modulates_decay else None
        self.memory = EpisodicMemory(width, h.top_k, h.writes_per_span, h.half_life_tokens, ops, h.rebind)
        self.tag = Tag(width, h.key_width) if h.tag else None
        self.pointer = Pointer(width, config.vocab_size, ops) if h.pointer else None
        if self.pointer is not None:
            self.writes = (*self.writes, "copied")
        if h.learned_sparsity:
            self.writes = (*self.writes, "place_share")
        self.phrases = phrases.Phrases() if h.phrase else None
        if self.phrases is not None:
            self.reads, self.writes = (*self.reads, "token"), (*self.writes, "pair_phrase")
        self.segments = Segments(FAST, SLOW, RISE, ops) if h.segments else None

    def init_state(self, batch: int, device: torch.device) -> HippocampusState:
        h, width = self.config.hippocampus, self.config.d_model
        return HippocampusState(
            torch.zeros(batch, h.slots, h.key_width, device=device),
            torch.zeros(batch, h.slots, width, device=device),
            torch.zeros(batch, h.slots, device=device),
            torch.zeros(batch, h.slots, device=device),
            torch.zeros(batch, device=device),
            torch.zeros(batch, h.key_width, device=device),
            torch.zeros(batch, device=device),
            torch.zeros(batch, width, device=device),
            torch.zeros(batch, device=device),
            torch.zeros(batch, h.slots, device=device) if h.pointer else (),
            self.clock.init_state(batch, device) if self.clock is not None else (),
            torch.zeros(batch, h.slots, phrases.WIDTH, device=device) if self.phrases is not None else (),
            self.phrases.init_state(batch, device) if self.phrases is not None else (),
            torch.zeros(batch, h.slots, device=device) if self.segments is not None else (),
            self.segments.init_state(batch, device) if self.segments is not None else (),
        )

    def scan(
        self,
        inputs: Channels,
        state: HippocampusState,
        lookup: Callable[[Tensor], Candidates] | None = None,
    ) -> tuple[dict[str, Tensor], HippocampusState]:
        """As every region's; ``lookup`` says which slots the keys [B,T,K] look at, None that it is all of them."""
        context = self.norm(inputs["context"])
        activity, active = self.place_cells.code(context)
        trace, clock = self._traces(context, activity, inputs["valid"], state.last_key, state.clock)
        key = self.keys(trace)
        value = wide(self.value(inputs["relay"]))
        valid = inputs["valid"]
        before = torch.cat([self.keys(state.last_key.unsqueeze(1)), key[:, :-1]], 1)
        candidate = torch.cat([state.has_key.unsqueeze(1), valid[:, :-1]], 1) * valid
        lift = None
        if self.config.hippocampus.contiguity:
            told = self.config.hippocampus.contiguity * candidate
            lift = told.unsqueeze(-1) * self.memory.following(before, value, state)
        among = None if lookup is None else lookup(key)
        led, last_codes, same, gain = None, state.last_codes, None, None
        if self.phrases is not None and isinstance(last_codes, Tensor) and isinstance(state.phrases, Tensor):
            led, last_codes = self.phrases.scan(inputs["token"], valid, last_codes)
            matches = phrases.match(led[:, 1:], state.phrases)
            same, gain = self.config.hippocampus.phrase * matches, phrases.gain(matches)
        content, evidence, novelty, cosine = self.memory.read(
            key, state.keys, state.values, state.strengths, lift, among, same, gain
        )
        said = normalize(content.detach()) * valid.unsqueeze(-1)
        trust = self._trust(torch.cat([state.last_content.unsqueeze(1), said[:, :-1]], 1), value, state.trust)
        mood = (inputs["modulators~"] - 0.5).unsqueeze(1)
        gate_input = self.norm(inputs["hidden"]) * (1.0 + self.null_modulation(mood))
        gate = self.memory.gate(evidence, gate_input, trust)
        outputs = {
            "recall": wide(self.out(content * gate.unsqueeze(-1))),
            "recall_gate": gate,
            "novelty": novelty,
            "pair_key": before,
            "pair_value": value,
            "pair_candidate": candidate,
        }
        if self.config.hippocampus.learned_sparsity:
            outputs["place_share"] = active.mean(-1)
        if led is not None:
            outputs["pair_phrase"] = led[:, :-1]
        if self.pointer is not None and isinstance(state.ids, Tensor):
            outputs["copied"] = self.pointer(cosine, state.strengths, state.ids, gate_input, trust)
        return outputs, state._replace(
            last_key=trace[:, -1],
            has_key=valid[:, -1],
            last_content=said[:, -1],
            trust=trust[:, -1],
            clock=clock,
            last_codes=last_codes,
        )

    def same_words_now(self, state: HippocampusState) -> Tensor | None:
        """What each slot's cosine gains by being of the same words as the last of row 0 [1,1,M]; None without phrases."""
        if self.phrases is None or not isinstance(state.last_codes, Tensor) or not isinstance(state.phrases, Tensor):
            return None
        led = self.phrases.last(state.last_codes[:1]).unsqueeze(1)
        return self.config.hippocampus.phrase * phrases.match(led, state.phrases[:1])

    def traces(self, context: Tensor, valid: Tensor, before: Tensor) -> Tensor:
        """context [B,T,D], valid [B,T], the last token's trace [B,K] -> c [B,T,K]; an event clock starts with them."""
        clock = () if self.clock is None else self.clock.init_state(len(context), context.device)
        clock = tree_map(lambda leaf: leaf.to(context.dtype), clock)
        context = self.norm(context)
        return self._traces(context, self.place_cells(context), valid, before, clock)[0]

    def _traces(
        self, context: Tensor, activity: Tensor, valid: Tensor, before: Tensor, clock: ClockState | tuple[()]
    ) -> tuple[Tensor, ClockState | tuple[()]]:
        key = self.key(activity)
        key = normalize(key if self.direct is None else key + self.direct(context))
        if self.clock is not None and isinstance(clock, ClockState):
            rates, clock = self.clock.scan(key.detach(), valid, clock)
            key = normalize(key + self.time(rates))
        kept = self.config.hippocampus.key_trace
        if not kept:
            return key, clock
        key = key * valid.unsqueeze(-1)
        traces = self.ops.affine_scan(torch.full_like(key, kept).transpose(0, 1), key.transpose(0, 1), before)
        return traces.transpose(0, 1), clock

    def keys(self, traces: Tensor) -> Tensor:
        """c [...,K] -> unit keys [...,K]."""
        return normalize(traces) if self.config.hippocampus.key_trace else traces

    def _trust(self, said: Tensor, came: Tensor, before: Tensor) -> Tensor:
        """said [B,T,D] unit vectors, came [B,T,D], before [B] -> [B,T]; a measurement: no gradient."""
        right = (said * normalize(came.detach())).sum(-1, keepdim=True)
        decay = torch.full_like(right, _TRUST_DECAY)
        b = (1.0 - _TRUST_DECAY) * right
        trust = self.ops.affine_scan(decay.transpose(0, 1), b.transpose(0, 1), before.unsqueeze(-1))
        return trust.transpose(0, 1).squeeze(-1)

    def write(
        self, state: HippocampusState, span: SpanBuffer, modulators: Tensor, tokens: Tensor
    ) -> tuple[HippocampusState, Tensor, Tensor]:
        """The commit with its counts: (state, slots written [B], filled slots overwritten [B])."""
        length = span.valid.shape[1]
        index = torch.arange(length, device=span.valid.device)
        before = (index[:, None] < index).to(span.valid.dtype)
        # Padding lies before a row's first token, so the valid ones before a token are its place in the span.
        origins = (state.position.unsqueeze(1) + span.valid @ before).clamp_max(_LAST_EXACT)
        strengths = span.salience * (0.5 + modulators[:, _DOPAMINE].unsqueeze(1))
        first = self._priority(span, origins) * span.candidate
        begins: Tensor | tuple[()] = ()
        if self.segments is not None and isinstance(state.segment, SegmentState):
            begins, segment = self.segments.scan(span.surprise, state.segment, span.valid)
            state = state._replace(segment=segment)
        pairs = Pairs(span.keys, span.values, strengths, origins, first, span.ids, span.phrases, begins)
        aged = tokens if self.decay_modulation is None else self.decay_modulation(modulators, tokens)
        after, writes, evictions = self.memory.write(state, pairs, aged)
        return after._replace(position=(state.position + tokens).clamp_max(_LAST_EXACT)), writes, evictions

    def _priority(self, span: SpanBuffer, origins: Tensor) -> Tensor:
        """[B,P]: which pairs come first; those at 0 are never written."""
        h = self.config.hippocampus
        match h.controller:
            case "learned":
                return span.salience * (0.05 + span.novelty)
            case "surprise":
                return span.surprise + 1e-3  # what came as no surprise at all comes last, but comes
            case "salient":
                return span.salience * (span.surprise + 1e-3)
            case "tagged" if self.tag is not None:
                return torch.exp(0.5 * self.tag(span)) * (span.surprise + 1e-3)
            case "periodic":
                every = -(-span.valid.shape[1] // h.writes_per_span)
                return (torch.remainder(origins, every) == 0).to(origins.dtype)
        # A hash of the position by products that every backend rounds alike, so that no generator is part of the state.
        mixed = torch.remainder(origins * 0.61803399, 1.0)
        return torch.remainder(mixed * (mixed + 33.33) * 977.0, 1.0) + 1e-3

    def commit(
        self, state: HippocampusState, span: SpanBuffer, held: Held, modulators: Tensor, tokens: Tensor
    ) -> HippocampusState:
        return self.write(state, span, modulators, tokens)[0]

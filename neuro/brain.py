"""The brain: regions wired on the bus, run one token at a time or a span at once, learning at every commit.

    out = brain.scan(tokens, state)      # up to the tokens left in the span
    state, events = brain.commit(out.state)

Axes: B batch, T tokens, P plasticity span, D width, S spiking populations, L layers, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import backends
from backends import Backend
from backends.kernels import pages
from neuro import bus
from neuro.config import HORMONES, BrainConfig
from neuro.errors import UsageError
from neuro.events import CommitEvents, Events
from neuro.layers.norm import wide
from neuro.memory import fast_bias, phrases
from neuro.regions.amygdala import Amygdala
from neuro.regions.base import Region
from neuro.regions.cortex import Cortex
from neuro.regions.endocrine import Endocrine
from neuro.regions.hippocampus import Hippocampus
from neuro.regions.readout import Readout
from neuro.regions.thalamus import Thalamus
from neuro.state import (
    BrainState,
    EndocrineState,
    FastBiasState,
    Held,
    HippocampusState,
    ReadoutState,
    RegionStates,
    SpanBuffer,
    tree_map,
)

if TYPE_CHECKING:
    from neuro.tokenizer import Tokenizer
    from neuro.training_text import TrainingText


class Aux(NamedTuple):
    """What training and search need, with its graph still attached."""

    surprise: Tensor  # [B, T] nats of each token given everything before it; 0 where nothing was predicted yet
    predicted: Tensor  # [B, T] 1 where surprise is one
    route: Tensor  # [B, T, L]
    layer_rates: Tensor  # [B, T, S] spikes per channel of each spiking population
    features: Tensor  # [B, T, D] what the vocabulary matrix turns into logits
    place_share: Tensor  # [B, T] share of the place cells that are active; [B, 0] where their sparsity is not learned
    copied: Tensor | None  # [B, T, V] chance that the pointer gives outright; None without one


class ScanOutput(NamedTuple):
    logits: Tensor  # [B, T, V] for the token after each
    state: BrainState
    events: Events
    aux: Aux


class StepOutput(NamedTuple):
    logits: Tensor  # [B, V] for the next token
    state: BrainState
    events: Events  # T = 1


class Brain(nn.Module):
    """A hybrid ANN-SNN language model with memory. State is explicit; the module holds only what training changed.

    Args:
        config: sizes and switches.
        backend: where it runs; None selects automatically.
        record_raster: keep every spike in the events, not only their counts.
        record_membrane: keep every membrane potential before its reset, too; a second pass over what drives the neurons.
    """

    tokenizer: Tokenizer  # set by neuro.load,
    seen: TrainingText | None = None  # and so is what it was trained on, where that is known

    def __init__(
        self,
        config: BrainConfig,
        backend: Backend | None = None,
        record_raster: bool = False,
        record_membrane: bool = False,
    ) -> None:
        super().__init__()
        backend = backend or backends.select()
        self.config, self.backend, self.ops = config, backend, backend.ops
        spiking = "spiking" in [feedforward for _, feedforward in config.cortex.layers]
        if (record_raster or record_membrane) and not spiking:
            name = "record_raster" if record_raster else "record_membrane"
            raise UsageError(f"brain: {name} without a spiking layer.", "Make a feed-forward 'spiking'.")
        self.embedding = nn.Parameter(torch.randn(config.vocab_size, config.d_model) * 0.03)
        regions: list[Region] = []
        if config.thalamus.enabled:
            regions.append(Thalamus(config, self.ops))
        if config.amygdala.enabled:
            regions.append(Amygdala(config, self.ops))
        if config.endocrine.enabled:
            regions.append(Endocrine(config))
        regions.append(Cortex(config, self.ops, record_raster, record_membrane))
        if config.hippocampus.enabled:
            regions.append(Hippocampus(config, self.ops))
        regions.append(Readout(config, self.embedding, self.ops))
        self.wiring = bus.wire(regions)
        self.regions = nn.ModuleDict({region.name: region for region in regions})
        self.to(device=backend.device, dtype=backend.dtype)
        pages.collapse(self.parameters())  # loading writes into the same places

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Brain:
        # Some devices (DirectML) get new parameters when a module moves, one for each holder: tie them again.
        super()._apply(fn, recurse)
        cast(Readout, self.regions["readout"]).weight = self.embedding
        return self

    def init_state(self, batch: int = 1) -> BrainState:
        """The state of ``batch`` streams that have seen nothing.

        Raises:
            UsageError: a batch below 1.
        """
        if batch < 1:
            raise UsageError(f"init_state: got batch {batch}, expected at least 1.", "Give a positive batch.")
        config, device = self.config, self.embedding.device
        span = config.plasticity_span
        memory = config.hippocampus if config.hippocampus.enabled else None

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(batch, *shape, device=device)

        states: dict[str, Any] = {
            name: self.region(name).init_state(batch, device) if name in self.regions else ()
            for name in RegionStates._fields
        }
        state = BrainState(
            RegionStates(**states),
            SpanBuffer(
                keys=zeros(span, memory.key_width if memory else 0),
                values=zeros(span, config.d_model if memory else 0),
                candidate=zeros(span),
                salience=zeros(span),
                novelty=zeros(span),
                affect=zeros(span, 2),
                surprise=zeros(span),
                spike_rate=zeros(span),
                valid=zeros(span),
                error=zeros(span, config.d_model if config.trace_width else 0),
                eligibility=zeros(span, config.trace_width),
                ids=zeros(span) if config.points else (),
                phrases=zeros(span, phrases.WIDTH) if memory and memory.phrase else (),
            ),
            Held(zeros(2), zeros(), zeros(), zeros()),
            zeros(config.vocab_size),
            zeros(),
            torch.zeros((), dtype=torch.int64, device=device),
        )
        return tree_map(lambda leaf: leaf.to(self.carried_dtype) if leaf.is_floating_point() else leaf, state)

    def scan(
        self, tokens: Tensor, state: BrainState, prosody: Tensor | None = None, valid: Tensor | None = None
    ) -> ScanOutput:
        """Run T tokens, at most as many as are left in the span.

        Args:
            tokens: [B, T] int64 ids.
            state: of the same batch.
            prosody: [B, T, C] pitch, energy, duration; None is silence.
            valid: [B, T] 1 for a real token, 0 for padding, which may only lie before a row's first token.

        Raises:
            UsageError: wrong shape or dtype, an id outside the vocabulary, another batch, or past the span's end.
        """
        self._check(tokens, state, prosody, valid)
        return self._scan(tokens, state, prosody, valid)

    def step(self, token: Tensor, state: BrainState, prosody: Tensor | None = None) -> StepOutput:
        """Run one token per row: token [B], prosody [B, C]."""
        if token.dim() != 1:
            raise UsageError(f"step: got tokens of shape {list(token.shape)}, expected [batch].", "Use scan for more.")
        out = self.scan(token.unsqueeze(1), state, None if prosody is None else prosody.unsqueeze(1))
        return StepOutput(out.logits[:, 0], out.state, out.events)

    def _scan(
        self, tokens: Tensor, state: BrainState, prosody: Tensor | None = None, valid: Tensor | None = None
    ) -> ScanOutput:
        batch, length = tokens.shape
        embedding = self.ops.embed(tokens, self.embedding) * self.config.d_model**0.5
        if valid is None:
            valid = embedding.new_ones(batch, length, dtype=self.carried_dtype)
        valid = valid.to(self.carried_dtype)
        if prosody is None:
            prosody = embedding.new_zeros(batch, length, self.config.prosody_channels, dtype=self.carried_dtype)
        channels = {"token": tokens, "embedding": embedding, "prosody": prosody, "valid": valid}
        channels |= {f"{name}~": value for name, value in state.held._asdict().items()}
        channels["modulators~"] = self.modulators(state)
        for name in self.wiring.silent:
            channels[name] = self._silent(name, channels)
        states = state.regions._asdict()
        for name in self.wiring.order:
            region = self.region(name)
            outputs, after = region.scan({read: channels[read] for read in region.reads}, states.get(name, ()))
            channels |= outputs
            if name in states:
                states[name] = after
        for name in ("affect", "salience", "novelty", "recall_gate", "route"):
            if name not in channels:
                channels[name] = self._silent(name, channels)

        logits = wide(channels["logits"])
        surprise, predicted = self._surprise(tokens, logits, valid, state)
        if "read_before" in channels:
            before = torch.cat([state.logits.unsqueeze(1), logits[:, :-1]], 1)
            channels["error"], states["readout"] = self._missed(channels, before, predicted, states["readout"])
        buffer = self._remember(channels, surprise.detach(), state)
        after_state = BrainState(
            RegionStates(**states),
            buffer,
            state.held,
            logits[:, -1],
            torch.maximum(state.started, valid.amax(1)),
            state.clock + length,
        )
        events = Events(
            spikes=channels["spikes"].to(torch.int64),
            route=channels["route"].detach(),
            affect=channels["affect"].detach(),
            salience=channels["salience"].detach(),
            novelty=channels["novelty"].detach(),
            recall_gate=channels["recall_gate"].detach(),
            surprise=surprise.detach(),
            valid=valid,
            raster=channels.get("raster"),
            membrane=channels.get("membrane"),
        )
        aux = Aux(
            surprise,
            predicted,
            channels["route"],
            channels["layer_rates"],
            channels["features"],
            channels.get("place_share", valid[:, :0]),
            channels.get("copied"),
        )
        return ScanOutput(logits, after_state, events, aux)

    def commit(self, state: BrainState) -> tuple[BrainState, CommitEvents]:
        """End the span: hold its means as feedback, update the hormones, write the memory, empty the buffer.

        A partial span is fine; a span of no tokens changes nothing.
        """
        span, regions = state.buffer, state.regions
        count = span.valid.sum(1)  # a row's own tokens: padding ages nothing
        lived = count > 0

        def mean(channel: Tensor, before: Tensor) -> Tensor:
            weight = span.valid if channel.dim() == 2 else span.valid.unsqueeze(-1)
            share = count.clamp_min(1.0) if channel.dim() == 2 else count.clamp_min(1.0).unsqueeze(-1)
            keep = lived if channel.dim() == 2 else lived.unsqueeze(-1)
            return torch.where(keep, (channel * weight).sum(1) / share, before)

        held = Held(*(mean(getattr(span, name), getattr(state.held, name)) for name in Held._fields))
        modulators = self.modulators(state)
        if "endocrine" in self.regions:
            after = self.region("endocrine").commit(regions.endocrine, span, held, modulators, count)
            regions, modulators = regions._replace(endocrine=after), after.modulators
        cortex = self.region("cortex").commit(regions.cortex, span, held, modulators, count)
        regions = regions._replace(cortex=cortex)
        readout = self.region("readout").commit(regions.readout, span, held, modulators, count)
        regions = regions._replace(readout=readout)
        nothing = torch.zeros_like(count, dtype=torch.int64)
        writes = evictions = filled = nothing
        if "hippocampus" in self.regions:
            hippocampus = cast(Hippocampus, self.regions["hippocampus"])
            after, writes, evictions = hippocampus.write(
                cast(HippocampusState, regions.hippocampus), span, modulators, count
            )
            regions = regions._replace(hippocampus=after)
            filled = (after.strengths > 0).to(torch.int64).sum(1)
        means = (held.surprise.detach(), held.novelty.detach(), held.spike_rate.detach())
        events = CommitEvents(state.clock, writes, evictions, filled, modulators.detach(), *means)
        empty = tree_map(torch.zeros_like, span)
        return BrainState(regions, empty, held, state.logits, state.started, torch.zeros_like(state.clock)), events

    def region(self, name: str) -> Region:
        """The region of that name."""
        return cast(Region, self.regions[name])

    @property
    def carried_dtype(self) -> torch.dtype:
        """Type of the state: that of the weights, float32 at least."""
        return torch.promote_types(self.embedding.dtype, torch.float32)

    def remaining(self, state: BrainState) -> int:
        """Tokens left in the span before a commit is due."""
        return self.config.plasticity_span - int(state.clock)

    def parameter_counts(self) -> dict[str, int]:
        """Parameters by region; the tied vocabulary matrix is counted once, as ``embedding``."""
        counts = {"embedding": self.embedding.numel()}
        for name, region in self.regions.items():
            counts[name] = sum(p.numel() for p in region.parameters() if p is not self.embedding)
        return counts

    def modulators(self, state: BrainState) -> Tensor:
        """Hormone levels [B, H] held since the last commit; 0.5 when the endocrine system is off."""
        if isinstance(state.regions.endocrine, EndocrineState):
            return state.regions.endocrine.modulators
        return state.started.new_full((state.started.shape[0], len(HORMONES)), 0.5)

    def warmth(self, state: BrainState) -> Tensor:
        """What noradrenaline multiplies each row's sampling temperature by: 2^(octaves (2 x - 1)) [B], float64 if it can.

        Explored while it is high (Aston-Jones & Cohen 2005, doi:10.1146/annurev.neuro.28.061604.135709); negative octaves
        are the opposite claim, that it sharpens choice (Doya 2002, doi:10.1016/S0893-6080(02)00044-8).
        """
        octaves = self.config.endocrine.temperature_octaves
        level = self.modulators(state)[:, HORMONES.index("noradrenaline")]
        level = level.double() if self.backend.fp64 else level
        return torch.exp2(octaves * (2.0 * level - 1.0))

    def _silent(self, name: str, channels: dict[str, Tensor]) -> Tensor:
        value = bus.CHANNELS[name].silent
        if isinstance(value, str):
            return channels[value]
        width = {"route": (len(self.config.cortex.layers),), "affect": (2,), "recall": (1,)}.get(name, ())
        return channels["valid"].new_full((*channels["token"].shape, *width), float(value or 0.0))

    def _surprise(self, tokens: Tensor, logits: Tensor, valid: Tensor, state: BrainState) -> tuple[Tensor, Tensor]:
        """-log p of each token under the logits made just before it: the shift is in the data flow, not in an index."""
        predicted = torch.cat([state.started.unsqueeze(1), valid[:, :-1]], 1) * valid
        if not logits.shape[-1]:  # a vocabulary of no words, while nobody listens (`neuro.train.sampled`)
            return torch.zeros_like(predicted), predicted
        # Written out: exporters lose the reduction of a negative log-likelihood.
        chances = torch.log_softmax(state.logits, -1).unsqueeze(-1)
        nats = -self.ops.take_rows(chances, tokens[:, :1]).squeeze(-1)
        if tokens.shape[1] > 1:
            # Scored against the token that follows, so that [B,T,V] is never copied; the last column is dropped.
            following = torch.cat([tokens[:, 1:], tokens[:, :1]], 1)
            inside = F.cross_entropy(logits.flatten(0, 1), following.flatten(), reduction="none")
            nats = torch.cat([nats, inside.reshape(tokens.shape)[:, :-1]], 1)
        return nats * predicted, predicted

    def _missed(
        self, channels: dict[str, Tensor], logits: Tensor, predicted: Tensor, state: ReadoutState
    ) -> tuple[Tensor, ReadoutState]:
        """How what each token was predicted from should have been [B,T,D], and what the fast bias counts of it.

        Args:
            logits: [B,T,V] the prediction of each token.
            predicted: [B,T] 0 where nothing was: no error there.
        """
        said = channels["embedding"] / self.config.d_model**0.5
        readout = cast(Readout, self.regions["readout"])
        chances = torch.softmax(logits.detach(), -1)
        error = readout.error(channels["read_before"], said, chances, channels["modulators~"])
        if isinstance(state.bias, FastBiasState):
            state = state._replace(bias=fast_bias.counted(state.bias, channels["token"], chances, predicted, self.ops))
        return error * predicted.unsqueeze(-1), state

    def _remember(self, channels: dict[str, Tensor], surprise: Tensor, state: BrainState) -> SpanBuffer:
        """Write the tokens' records into the span buffer at the clock."""
        batch, length = surprise.shape
        span = self.config.plasticity_span
        source = {name: channels.get(name) for name in ("salience", "novelty", "affect", "spike_rate", "valid")}
        source |= {"keys": channels.get("pair_key"), "values": channels.get("pair_value")}
        source |= {"phrases": channels.get("pair_phrase")}
        source |= {"candidate": channels.get("pair_candidate"), "surprise": surprise}
        source |= {"error": channels.get("error"), "eligibility": channels.get("eligibility")}
        source |= {"ids": channels["token"].to(surprise.dtype)}
        names = [name for name in SpanBuffer._fields if isinstance(getattr(state.buffer, name), Tensor)]
        columns, widths = [], []
        for name in names:
            record = source[name]
            if record is None:  # the memory that reads it is off
                record = surprise.new_zeros(batch, length, *getattr(state.buffer, name).shape[2:])
            columns.append(wide(record) if record.dim() == 3 else wide(record).unsqueeze(-1))
            widths.append(columns[-1].shape[-1])
        offset = torch.arange(span, device=surprise.device) - state.clock
        inside = (offset >= 0) & (offset < length)
        if length == 1:
            rows: Sequence[Tensor] = columns  # the one row stands at the clock: no table to take it from
        else:
            index = offset.clamp(0, length - 1).unsqueeze(0).expand(batch, span)
            rows = self.ops.take_rows(torch.cat(columns, -1), index).split(widths, -1)
        fields = {}
        for name, row in zip(names, rows, strict=True):
            old = getattr(state.buffer, name)
            here = inside.unsqueeze(-1) if old.dim() == 3 else inside
            fields[name] = torch.where(here, row if old.dim() == 3 else row.squeeze(-1), old)
        return SpanBuffer(**fields)

    def _check(self, tokens: Tensor, state: BrainState, prosody: Tensor | None, valid: Tensor | None) -> None:
        if tokens.dim() != 2 or tokens.dtype != torch.int64:
            raise UsageError(
                f"scan: got {tokens.dtype} of shape {list(tokens.shape)}, expected int64 [batch, tokens].",
                "Use brain.tokenizer.encode and torch.tensor([...]).",
            )
        if tokens.shape[1] == 0:
            raise UsageError("scan: got no tokens, expected at least one.", "Start from the <bos> token.")
        if tokens.shape[0] != state.started.shape[0]:
            raise UsageError(
                f"scan: got batch {tokens.shape[0]}, expected {state.started.shape[0]} as in the state.",
                "Make a state of that batch with init_state.",
            )
        if int(tokens.max()) >= self.config.vocab_size or int(tokens.min()) < 0:
            raise UsageError(
                f"scan: got ids {int(tokens.min())}..{int(tokens.max())}, expected 0..{self.config.vocab_size - 1}.",
                "Use the tokenizer the model was trained with.",
            )
        if tokens.shape[1] > self.remaining(state):
            raise UsageError(
                f"scan: got {tokens.shape[1]} tokens, expected at most {self.remaining(state)} before the span ends.",
                "Cut at the span and call commit, or use neuro.session.Session.",
            )
        expected = (*tokens.shape, self.config.prosody_channels)
        if prosody is not None and prosody.shape != expected:
            raise UsageError(
                f"scan: got prosody of shape {list(prosody.shape)}, expected {list(expected)}.",
                "Give every channel of every token, or None for silence.",
            )
        if valid is None:
            return
        if valid.shape != tokens.shape:
            raise UsageError(
                f"scan: got valid of shape {list(valid.shape)}, expected {list(tokens.shape)}.", "Give one per token."
            )
        seen = torch.cat([state.started.unsqueeze(1), valid.to(state.started.dtype)], 1)
        if bool((seen[:, 1:] < seen[:, :-1]).any()):
            raise UsageError(
                "scan: got padding after a real token, expected padding only before a row's first one.",
                "Pad on the left.",
            )

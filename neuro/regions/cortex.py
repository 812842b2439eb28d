"""Cortex: pre-norm residual layers of a token mixer (recurrence or window) and a feed-forward (spiking, dense or branched).

    x <- x + mixer(norm(x) * (1 + U m)),   x <- x + feedforward(norm(x), route)

With ``thalamus.skips = "layer"`` a layer runs for the tokens that are sent to it and does nothing for the others
(`neuro.layers.mixture_of_depths`); of one row at a time only those tokens go through it.

The hormones m (held since the last commit, centred) scale the features that the mixers see. With a procedural memory each
mixer and feed-forward adds F^T e to its output (`neuro.layers.fast_linear`); ``context`` is the hidden state less what was so
added: the address under which the hippocampus keeps a moment must not move when habits do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backends import Ops
from neuro.config import HORMONES, BrainConfig
from neuro.layers.affine_recurrence import AffineRecurrence
from neuro.layers.branched_feedforward import BranchedFeedforward
from neuro.layers.dropout import LockedDropout
from neuro.layers.fast_linear import Trace
from neuro.layers.feedforward import DenseFeedforward, SpikingFeedforward
from neuro.layers.mixture_of_depths import DepthRouter, gathers
from neuro.layers.norm import RMSNorm, wide
from neuro.layers.window_attention import WindowAttention
from neuro.memory.procedural import ProceduralMemory
from neuro.regions.base import Channels, DecayModulation, Region
from neuro.state import CortexState, Held, LayerState, ProceduralState, SpanBuffer


class CortexLayer(nn.Module):
    """One mixer and one feed-forward, each with its norm."""

    def __init__(self, config: BrainConfig, index: int, ops: Ops) -> None:
        super().__init__()
        width, c = config.d_model, config.cortex
        mixer, feedforward = c.layers[index]
        rank, holds = config.fast_rank, config.skips_layers
        self.mixer_norm, self.feedforward_norm = RMSNorm(width), RMSNorm(width)
        self.modulation = nn.Linear(len(HORMONES), width, bias=False)
        nn.init.zeros_(self.modulation.weight)
        self.mixer: Any  # AffineRecurrence or WindowAttention
        if mixer == "recurrence":
            self.mixer = AffineRecurrence(width, config.plasticity_span, rank, c, ops, holds)
        else:
            self.mixer = WindowAttention(width, c.heads, c.window, rank, ops, holds)
        self.feedforward: Any  # SpikingFeedforward, DenseFeedforward or BranchedFeedforward
        if feedforward == "spiking":
            self.feedforward = SpikingFeedforward(width, c, rank, ops, holds)
        elif feedforward == "dense":
            self.feedforward = DenseFeedforward(width, c.feedforward_width, rank, ops)
        else:
            self.feedforward = BranchedFeedforward(config, index, ops)
        self.depth = DepthRouter(width) if holds else None
        self.channels = tuple(e.channels for e in (*self.mixer.emitters, *self.feedforward.emitters))


class _Given(NamedTuple):
    """What a layer starts from."""

    x: Tensor  # [B,T,D]
    shift: Tensor  # [B,T,D] what the fast weights have added so far
    scaled: Tensor  # [B,T,D] what the mixer reads
    before: LayerState
    habits: Sequence[Tensor]  # fast weights [B,r,D] of the mixer and of the feed-forward, or none
    token: Tensor | None = None  # [B,T], where a feed-forward has branches


class _Ran(NamedTuple):
    """What a layer made of the tokens it ran for."""

    x: Tensor  # [B,T,D]
    shift: Tensor  # [B,T,D] what the fast weights have added so far
    traces: list[Tensor]  # [B,T,r] of the mixer and of the feed-forward
    read: list[Tensor]  # [B,T,D] what a dense feed-forward's norm read, when errors pass it; 0 where it did not run
    spikes: list[Tensor]  # [B,T,N] of each population
    membranes: list[Tensor]  # likewise, when recorded
    state: LayerState


class Cortex(Region):
    name = "cortex"
    reads: tuple[str, ...] = ("relay", "route", "valid", "modulators~")
    writes: tuple[str, ...] = ("hidden", "context", "spikes", "layer_rates", "spike_rate")

    def __init__(
        self, config: BrainConfig, ops: Ops, record_raster: bool = False, record_membrane: bool = False
    ) -> None:
        super().__init__()
        self.ops, self.record_raster, self.record_membrane = ops, record_raster, record_membrane
        layers = config.cortex.layers
        self.rank = config.fast_rank
        if record_raster:
            self.writes = (*self.writes, "raster")
        if record_membrane:
            self.writes = (*self.writes, "membrane")
        if any(feedforward == "branched" for _, feedforward in layers):
            self.reads = (*self.reads, "token")
        self.skips_layers = config.skips_layers
        if self.skips_layers:
            self.reads = tuple("route_drive" if name == "route" else name for name in self.reads)
            self.writes = (*self.writes, "route")
        self.procedural: ProceduralMemory | None = None
        if self.rank:
            self.writes = (*self.writes, "eligibility")
            self.procedural = ProceduralMemory(
                config.d_model, config.fast_projections, config.procedural, config.trace_width, config.errors_alike
            )
        self.outward = Trace(config.d_model, self.rank) if config.fast_projections > 2 * len(layers) else None
        self.through_dense = config.error_paths > 0
        self.decay_modulation = DecayModulation() if self.rank and config.modulates_decay else None
        self.layers = nn.ModuleList(CortexLayer(config, index, ops) for index in range(len(layers)))
        self.dropout = (
            LockedDropout()
        )  # of what comes in, of what each mixer and feed-forward adds, and of what goes out
        self.emitters = tuple(
            emitter._replace(name=f"{path}.{emitter.name}".rstrip("."), projection=f"{path}.{emitter.projection}")
            for index, layer in enumerate(self._layers())
            for path, part in (
                (f"layers.{index}.mixer", layer.mixer),
                (f"layers.{index}.feedforward", layer.feedforward),
            )
            for emitter in part.emitters
        )

    def init_state(self, batch: int, device: torch.device) -> CortexState:
        layers = tuple(
            LayerState(layer.mixer.init_state(batch, device), layer.feedforward.init_state(batch, device))
            for layer in self._layers()
        )
        if self.procedural is None:
            return CortexState(layers, ())
        return CortexState(layers, self.procedural.init_state(batch, device))

    def scan(self, inputs: Channels, state: CortexState) -> tuple[dict[str, Tensor], CortexState]:
        x, valid = self.dropout(inputs["relay"]), inputs["valid"]
        drive = inputs["route_drive" if self.skips_layers else "route"]
        mood = (inputs["modulators~"] - 0.5).unsqueeze(1)
        states, rasters, membranes, traces, read, routes = [], [], [], [], [], []
        fast = self._fast(state)
        shift = torch.zeros_like(x)  # what the fast weights have added
        for index, (layer, before) in enumerate(zip(self._layers(), state.layers, strict=True)):
            scaled = layer.mixer_norm(x) * (1.0 + layer.modulation(mood))
            given = _Given(x, shift, scaled, before, fast[2 * index : 2 * index + 2], inputs.get("token"))
            if layer.depth is None:
                ran = self._run(layer, given, valid, drive[..., index] * valid)
            else:
                routes.append(layer.depth(scaled, drive[..., index]))
                ran = self._skipping(layer, given, routes[-1], valid)
            x, shift = ran.x, ran.shift
            states.append(ran.state)
            traces += ran.traces
            read += ran.read
            rasters += ran.spikes
            membranes += ran.membranes
        if self.outward is not None:
            traces.append(self.outward(x))
            if fast:
                habit = traces[-1] @ fast[-1]
                x, shift = x + habit, shift + habit
        context = x - shift if fast else x
        outputs = {"hidden": self.dropout(x), "context": context, "spike_rate": torch.zeros_like(valid)}
        outputs["layer_rates"] = outputs["spikes"] = valid.new_zeros(*valid.shape, 0)
        if rasters:
            outputs["layer_rates"] = torch.stack([raster.mean(-1) for raster in rasters], -1)
            outputs["spike_rate"] = outputs["layer_rates"].mean(-1)
            outputs["spikes"] = torch.stack([raster.detach().sum(-1) for raster in rasters], -1)
        if routes:
            outputs["route"] = torch.stack(routes, -1)
        if self.record_raster:
            outputs["raster"] = _side_by_side(rasters)
        if self.record_membrane:
            outputs["membrane"] = _side_by_side(membranes)
        procedural = state.procedural
        if isinstance(procedural, ProceduralState):
            eligibility = wide(torch.cat([*traces, *read], -1)) * valid.unsqueeze(-1)
            waiting = procedural.last_eligibility.unsqueeze(1)
            outputs["eligibility"] = torch.cat([waiting, eligibility[:, :-1]], 1)
            procedural = procedural._replace(last_eligibility=eligibility[:, -1])
        return outputs, CortexState(tuple(states), procedural)

    def _run(self, layer: CortexLayer, given: _Given, valid: Tensor, gate: Tensor) -> _Ran:
        """One layer over every token; ``valid`` [B,T] is the mixer's, ``gate`` [B,T] the feed-forward's."""
        x, shift, scaled, before, habits, token = given
        traces: list[Tensor] = []

        def add(y: Tensor, trace: Tensor) -> None:
            nonlocal x, shift
            x = x + self.dropout(y)
            if habits:
                habit = trace @ habits[len(traces)]
                x, shift = x + habit, shift + habit
            traces.append(trace)

        y, trace, said, mixer = layer.mixer.scan(scaled, valid, before.mixer)
        add(y, trace)
        read = [x.detach() * gate.detach().unsqueeze(-1)] if self._passes(layer) else []
        scaled = layer.feedforward_norm(x)
        known = (token,) if isinstance(layer.feedforward, BranchedFeedforward) else ()
        y, trace, fired, feedforward = layer.feedforward.scan(scaled, gate, before.feedforward, *known)
        add(y, trace)
        spikes, membranes = [], []
        for raster, u in (*said, *fired):
            spikes.append(raster)
            if self.record_membrane:
                replay = layer.feedforward.membrane
                membranes.append(replay(scaled, gate, raster, before.feedforward) if u is None else u)
        return _Ran(x, shift, traces, read, spikes, membranes, LayerState(mixer, feedforward))

    def _skipping(self, layer: CortexLayer, given: _Given, route: Tensor, valid: Tensor) -> _Ran:
        """`_run` for the tokens at route 1; the others pass by, and the layer does not notice."""
        gate = route.detach() * valid
        if gathers(self.ops, gate.shape[0]) and not self.record_membrane:
            return self._gathered(layer, given, gate)
        ran, on = self._run(layer, given, gate, gate), gate.unsqueeze(-1) > 0
        x = torch.where(on, ran.x, given.x)
        if route.requires_grad:  # forward nothing; backward what running would have changed
            x = x + ((route - route.detach()) * valid).unsqueeze(-1) * (ran.x - given.x)
        traces = [trace * gate.unsqueeze(-1) for trace in ran.traces]
        return ran._replace(x=x, shift=torch.where(on, ran.shift, given.shift), traces=traces)

    def _gathered(self, layer: CortexLayer, given: _Given, gate: Tensor) -> _Ran:
        """`_skipping` of one row without work for a token that passes by."""
        sent = gate[0].nonzero().squeeze(1)
        if len(sent) == gate.shape[1]:
            return self._run(layer, given, gate, gate)
        if len(sent) == 0:
            widths = ([self.rank, self.rank], layer.channels)
            traces, spikes = ([gate.new_zeros(*gate.shape, n) for n in each] for each in widths)
            read = [torch.zeros_like(given.x)] if self._passes(layer) else []
            return _Ran(given.x, given.shift, traces, read, spikes, [], given.before)
        few = given._replace(x=given.x[:, sent], shift=given.shift[:, sent], scaled=given.scaled[:, sent])
        if given.token is not None:
            few = few._replace(token=given.token[:, sent])
        ran = self._run(layer, few, gate[:, sent], gate[:, sent])

        def spread(part: Tensor) -> Tensor:
            return part.new_zeros(*gate.shape, part.shape[-1]).index_copy(1, sent, part)

        return ran._replace(
            x=given.x.index_copy(1, sent, ran.x),
            shift=given.shift.index_copy(1, sent, ran.shift),
            traces=[spread(trace) for trace in ran.traces],
            read=[spread(x) for x in ran.read],
            spikes=[spread(spikes) for spikes in ran.spikes],
        )

    def commit(
        self, state: CortexState, span: SpanBuffer, held: Held, modulators: Tensor, tokens: Tensor
    ) -> CortexState:
        memory = state.procedural
        if self.procedural is None or not isinstance(memory, ProceduralState):
            return state
        if self.decay_modulation is not None:
            tokens = self.decay_modulation(modulators, tokens)
        traces, error = self.credited(span)
        return state._replace(procedural=self.procedural.write(memory, error, traces, modulators, tokens))

    def credited(self, span: SpanBuffer) -> tuple[Tensor, Tensor]:
        """What the procedural memory learns from a span: eligibilities [B,P,M r], errors [B,P,D] or by projection [B,M,P,D]."""
        if self.procedural is None or not self.through_dense:
            return span.eligibility, span.error
        width = self.procedural.projections * self.rank
        traces, read = span.eligibility.split([width, span.eligibility.shape[2] - width], 2)
        return traces, self._handed_back(span.error, read)

    def _handed_back(self, error: Tensor, read: Tensor) -> Tensor:
        """The readout's error [B,P,D] and what each dense feed-forward's norm read [B,P,n D] -> [B,M,P,D]."""
        waiting, errors = list(read.split(error.shape[2], 2)), [error] if self.outward is not None else []
        for layer in reversed(self._layers()):
            errors.append(error)
            if self._passes(layer):
                x = waiting.pop()
                norm = layer.feedforward_norm
                error = error + norm.hand_back(x, layer.feedforward.hand_back(norm(x), error))
            errors.append(error)
        return torch.stack(errors[::-1], 1)

    def _passes(self, layer: CortexLayer) -> bool:
        return self.through_dense and isinstance(layer.feedforward, DenseFeedforward)

    def _fast(self, state: CortexState) -> Sequence[Tensor]:
        """The fast weights [B,r,D], two a layer and those on what it says; nothing without a procedural memory."""
        if not isinstance(state.procedural, ProceduralState):
            return ()
        return state.procedural.fast.split(self.rank, 1)

    def _layers(self) -> list[CortexLayer]:
        return cast(list[CortexLayer], list(self.layers))


def _side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """[B,T,N] each -> [B,T,S,N] of the widest, the others padded with zeros."""
    widest = max(part.shape[-1] for part in parts)
    return torch.stack([F.pad(part.detach(), (0, widest - part.shape[-1])) for part in parts], 2)

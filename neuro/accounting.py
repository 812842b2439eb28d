"""Counts what a run did: an observer that adds up integers, and the `Workload` they make.

Spikes are counted from the events. Everything dense follows from how often each module ran, by one rule per module
type; a module type without a rule is an error, never 0. What commits do is `neuro.accounting_commits`, the bytes of both
`neuro.accounting_traffic`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from neuro import accounting_commits, accounting_traffic
from neuro.brain import Brain
from neuro.config import HORMONES
from neuro.errors import NeuroError
from neuro.events import CommitEvents, Events
from neuro.layers.affine_recurrence import AffineRecurrence
from neuro.layers.branched_feedforward import BranchedFeedforward
from neuro.layers.dropout import LockedDropout
from neuro.layers.fast_linear import FastLinear, Trace
from neuro.layers.feedforward import DenseFeedforward, SpikingFeedforward
from neuro.layers.mixture_of_depths import DepthRouter
from neuro.layers.norm import RMSNorm
from neuro.layers.spiking_encoder import Emitter, SpikingEncoder
from neuro.layers.window_attention import WindowAttention
from neuro.memory import phrases
from neuro.memory.episodic import EpisodicMemory
from neuro.memory.event_clock import EventClock
from neuro.memory.phrases import Phrases
from neuro.memory.place_cells import PlaceCells
from neuro.memory.pointer import Pointer
from neuro.memory.procedural import ProceduralMemory
from neuro.memory.tag import Tag
from neuro.memory.time_cells import TimeCells
from neuro.regions.amygdala import Amygdala
from neuro.regions.base import Region
from neuro.regions.cortex import Cortex, CortexLayer
from neuro.regions.endocrine import Endocrine
from neuro.regions.thalamus import Thalamus
from neuro.workload import Operation, Phase, Population, Workload

CHIP_WEIGHT_BITS = 8  # width a synapse would be stored with on a chip; the exporters quantize to it


@dataclasses.dataclass
class Counted:
    """What happened in one phase, all rows of the batch together."""

    tokens: int = 0
    calls: int = 0
    row_calls: int = 0
    commits: int = 0  # of a row each
    commit_calls: int = 0  # of all rows together
    writes: int = 0
    spikes: list[int] = dataclasses.field(default_factory=list)  # of each population
    ran: list[int] = dataclasses.field(default_factory=list)  # tokens that each layer ran for
    attended: list[int] = dataclasses.field(default_factory=list)  # pairs of a query and a key, were it a window


class Tally:
    """An observer that counts tokens, calls, spikes and writes of one brain.

    Args:
        brain: whose events come.
        prefill: how many tokens of a stream are read before it is written; None: it only reads. A commit belongs to the
            phase of the span's last token.
    """

    def __init__(self, brain: Brain, prefill: int | None = None) -> None:
        self.brain, self.prefill = brain, prefill
        self.evictions = self.filled = self._seen = 0
        self.routed = [0] * len(brain.config.cortex.layers)
        self.phases = {
            name: Counted(
                spikes=[0] * len(emitters(brain)), ran=[0] * len(self.routed), attended=[0] * len(self.routed)
            )
            for name in ("prefill", "decode")
        }

    def span(self, events: Sequence[Events], commit: CommitEvents) -> None:
        for event in events:
            batch, length = event.valid.shape
            self._seen += length
            now = self._now()
            now.tokens += batch * length
            now.calls += 1
            now.row_calls += batch
            for layer, count in enumerate(event.spikes.sum((0, 1)).tolist()):
                now.spikes[layer] += int(count)
            routed = (event.route > 0.5).sum(1)  # [B, L] tokens
            ran = torch.full_like(routed, length)
            if self.brain.config.skips_layers:
                ran = ((event.route > 0.5) & (event.valid > 0).unsqueeze(-1)).sum(1)
            pairs = ran * (self.brain.config.cortex.window + ran)
            for total, counts in ((self.routed, routed), (now.ran, ran), (now.attended, pairs)):
                for layer, count in enumerate(counts.sum(0).tolist()):
                    total[layer] += int(count)
        now = self._now()
        now.commits += commit.writes.shape[0]
        now.commit_calls += 1
        now.writes += int(commit.writes.sum())
        self.evictions += int(commit.evictions.sum())
        self.filled = int(commit.filled.sum())

    def _now(self) -> Counted:
        reading = self.prefill is None or self._seen <= self.prefill
        return self.phases["prefill" if reading else "decode"]

    @property
    def tokens(self) -> int:
        return sum(phase.tokens for phase in self.phases.values())

    @property
    def commits(self) -> int:
        return sum(phase.commits for phase in self.phases.values())

    @property
    def writes(self) -> int:
        return sum(phase.writes for phase in self.phases.values())

    @property
    def spikes(self) -> list[int]:
        """Of each population."""
        return [sum(counts) for counts in zip(*(phase.spikes for phase in self.phases.values()), strict=True)]


def emitters(brain: Brain) -> tuple[Emitter, ...]:
    """The spiking populations in the order of the spike counts, named below their region."""
    return cast(Cortex, brain.regions["cortex"]).emitters


def spiking_names(brain: Brain) -> list[str]:
    """Population names in the order of the spike counts."""
    return [f"cortex.{emitter.name}" for emitter in emitters(brain)]


def spikes_per_synapse(load: Workload) -> float:
    """Sum of spikes x fan-out over that of the products a dense layer would make: per weight and token, 0 without spikes.

    A weight counts once, also where the two neurons of a channel need a synapse each.
    """
    replaced = sum(row.count for row in load.operations if row.kind == "mac" and row.signal == "binary")
    return sum(p.synaptic_ops for p in load.populations) / max(1, replaced)


def workload(
    brain: Brain,
    tally: Tally,
    model: str,
    seconds: tuple[float, float],
    measured_joules: float | None = None,
    measured_source: str | None = None,
) -> Workload:
    """The counts of a run as the torch-free contract that energy is priced from; ``seconds`` of reading and of writing.

    Raises:
        NeuroError: a module type whose operations cannot be counted.
    """
    phases = [
        Phase(
            name,
            counted.tokens,
            counted.calls,
            spent,
            _populations(brain, counted),
            _all_operations(brain, counted),
            accounting_traffic.traffic(brain, counted),
        )
        for (name, counted), spent in zip(tally.phases.items(), seconds, strict=True)
        if counted.tokens
    ]
    products = [m for _, m in brain.named_modules() if isinstance(m, nn.Linear | FastLinear)]
    return Workload(
        model=model,
        parameters=sum(brain.parameter_counts().values()),
        layers=len(products) + 1,  # and the vocabulary
        spans=tally.commits,
        hardware=brain.backend.hardware,
        backend=brain.backend.name,
        phases=tuple(phases),
        measured_joules=measured_joules,
        measured_source=measured_source,
    )


def _populations(brain: Brain, counted: Counted) -> tuple[Population, ...]:
    rows = []
    for emitter, spikes in zip(emitters(brain), counted.spikes, strict=True):
        neurons = emitter.channels * emitter.neurons
        tokens = counted.ran[int(emitter.name.split(".")[1])]
        rows.append(
            Population(
                name=f"cortex.{emitter.name}",
                region="cortex",
                neurons=neurons,
                fan_out=emitter.fan_out,
                fan_in=emitter.fan_in,
                input_signal=emitter.input_signal,
                weight_bits=CHIP_WEIGHT_BITS,
                spikes=spikes,
                synaptic_ops=spikes * emitter.fan_out,
                updates=neurons * emitter.steps * tokens,
                products=emitter.channels * emitter.fan_out * tokens,
            )
        )
    return tuple(rows)


def _all_operations(brain: Brain, counted: Counted) -> tuple[Operation, ...]:
    config = brain.config
    operations = [Operation("readout", "vocabulary", "mac", "dense", counted.tokens * brain.embedding.numel())]
    if config.fast_rank:  # the teaching signal: what every prediction missed, in the embedding's terms
        products = counted.tokens * brain.embedding.numel() + counted.row_calls * len(HORMONES)
        operations += [
            Operation("readout", "error", "mac", "dense", products),
            Operation("readout", "error", "transcendental", "dense", counted.tokens * config.vocab_size),
            Operation("readout", "error", "elementwise", "dense", 8 * counted.tokens * config.d_model),
        ]
    if config.fast_bias:  # added, and what came and what was expected counted, at every token
        added = config.vocab_size * (counted.tokens + 2 * counted.row_calls)
        operations += [
            Operation("readout", "fast bias", "mac", "dense", config.vocab_size * counted.tokens),
            Operation("readout", "fast bias", "elementwise", "dense", added),
        ]
    for name, module in brain.named_modules():
        parts = name.split(".")
        if len(parts) >= 2:
            operations += _operations(parts[1], ".".join(parts[2:]) or "self", module, brain, counted)
    operations += accounting_commits.operations(brain, counted.commits, counted.commit_calls)
    merged: dict[tuple[str, str, str, str], int] = {}
    for row in operations:
        key = (row.region, row.name, row.kind, row.signal)
        merged[key] = merged.get(key, 0) + row.count
    left = {
        emitter.projection: spikes * emitter.fan_out
        for emitter, spikes in zip(emitters(brain), counted.spikes, strict=True)
    }

    def effective(name: str, kind: str, signal: str) -> int | None:
        return left[name] if kind == "mac" and signal == "binary" else None

    return tuple(Operation(*key, count, effective(*key[1:])) for key, count in merged.items() if count)


def _operations(region: str, name: str, module: nn.Module, brain: Brain, counted: Counted) -> list[Operation]:
    """What one module did itself, without its children. Width D, window W, slots M, place cells N."""
    c, tokens = brain.config, counted.tokens
    d = c.d_model
    layer = name.split(".")[1:3] if region == "cortex" and name.startswith("layers.") else []
    ran = counted.ran[int(layer[0])] if layer else tokens
    if len(layer) == 2 and layer[1] in ("mixer", "feedforward", "feedforward_norm"):
        tokens = ran  # the rest of a layer decides what it runs for

    def row(kind: str, count: int, signal: str = "dense") -> Operation:
        return Operation(region, name, kind, signal, count)

    match module:
        case FastLinear() if module.rank:
            rank = module.rank
            signal = "binary" if name in _behind_spikes(brain) else "dense"
            # The fast part changes at every commit, so it cannot lie in a chip's synapses: dense, whatever comes in.
            count = rank * (module.in_features + module.out_features) * tokens
            fast = Operation(region, f"{name}.fast", "mac", "dense", count)
            return [row("mac", module.weight.numel() * tokens, signal), fast, row("elementwise", 3 * rank * tokens)]
        case Trace():
            rank, width = module.sense.shape
            return [row("mac", 2 * rank * width * tokens), row("elementwise", (3 * rank + 2 * width) * tokens)]
        case Tag():
            return []  # the commits'
        case nn.Linear():
            macs = module.in_features * module.out_features
            if name in ("procedural.modulation", "decay_modulation") or region == "endocrine":
                return []  # the commits'
            if name.endswith("modulation") or name == "gain":
                return [row("mac", macs * counted.row_calls)]  # the hormones are constant within a call
            # Behind spikes the same product is event-driven on a chip: its signal says so.
            return [row("mac", macs * tokens, "binary" if name in _behind_spikes(brain) else "dense")]
        case RMSNorm():
            width = module.weight.numel()
            return [row("elementwise", 4 * width * tokens), row("transcendental", tokens)]
        case AffineRecurrence():
            gated = 0 if module.inward is None else d * tokens
            return [row("elementwise", 7 * d * tokens + gated), row("transcendental", 2 * d * tokens)]
        case WindowAttention():
            pairs = counted.attended[int(layer[0])]
            return [row("mac", 2 * d * pairs), row("transcendental", module.heads * pairs)]
        case DenseFeedforward():
            hidden = module.down.in_features
            return [row("elementwise", (2 * hidden + d) * tokens), row("transcendental", hidden * tokens)]
        case BranchedFeedforward():  # one branch a token, and whose it is
            hidden, rank = module.hidden, c.fast_rank
            found = [
                row("mac", 3 * hidden * d * tokens),
                row("elementwise", (2 * hidden + d + 3 * rank) * tokens),
                row("transcendental", hidden * tokens),
            ]
            fast = Operation(region, f"{name}.fast", "mac", "dense", rank * (hidden + d) * tokens)
            return [*found, fast]
        case SpikingEncoder():
            return [row("elementwise", 3 * module.width * tokens)]  # the scale, and its two signs apart and together
        case SpikingFeedforward():
            gated = 0 if module.inward is None else d
            return [
                row("elementwise", (module.config.feedforward_width + gated) * tokens)
            ]  # the route; LIFs are populations
        case CortexLayer():
            return [row("elementwise", d * tokens + 2 * d * ran)]
        case DepthRouter():
            return [row("elementwise", tokens), row("transcendental", tokens)]
        case ProceduralMemory() | Endocrine():  # the commits' alone
            return []
        case PlaceCells():
            cells = module.project.out_features
            # A learned threshold is subtracted and compared with, and masks once more.
            learned = [row("elementwise", 2 * cells * tokens)] if module.threshold is not None else []
            compared = (2 if learned else 1) * cells * tokens
            return [row("compare", compared), row("transcendental", cells * tokens), *learned]
        case EventClock():  # the change of the key, two decaying means with a deviation, and the sum that makes a unit again
            return [row("elementwise", (7 * c.hippocampus.key_width + 40) * tokens), row("transcendental", 3 * tokens)]
        case TimeCells():
            cells = module.log_tau.numel()
            return [row("elementwise", (4 * cells + 4) * tokens), row("transcendental", (cells + 1) * tokens)]
        case EpisodicMemory():
            h = c.hippocampus
            # Contiguity asks twice: for what is near now, and for what was recalled at the token before.
            read = h.slots * (h.key_width + d) * tokens * (2 if h.contiguity else 1)
            read += h.slots * phrases.WIDTH * tokens if h.phrase else 0
            traced = 7 * h.key_width if h.key_trace else 0  # what is kept of the last trace, and a unit again
            return [
                row("mac", read),
                row("compare", h.slots * tokens),
                row("transcendental", (h.slots + 4) * tokens),
                row("elementwise", (8 * d + 6 + traced + (9 * h.slots if h.phrase else 0)) * tokens),  # trust and gate
            ]
        case Phrases():  # a token's code, then the sum over the last ones, made a unit
            summed = 2 * phrases.LENGTH * phrases.WIDTH + 2 * phrases.WIDTH
            return [
                row("elementwise", (summed + 6 * phrases.WIDTH) * tokens),
                row("transcendental", (phrases.WIDTH + 1) * tokens),
            ]
        case Pointer():  # share and sum of every slot, then the mixture of every token of the vocabulary
            slots, vocabulary = c.hippocampus.slots, c.vocab_size
            return [
                row("elementwise", (4 * slots + 3 * vocabulary) * tokens),
                row("transcendental", (slots + 2 * vocabulary + 4) * tokens),
            ]
        case Thalamus():
            layers = len(c.cortex.layers)
            return [row("elementwise", 2 * d * tokens), row("transcendental", (d + layers) * tokens)]
        case Amygdala():
            hidden = c.amygdala.hidden
            stressed = 4 if c.amygdala.prosody_gain else 0  # their mean, times the gain, added
            return [row("elementwise", (6 + stressed) * tokens), row("transcendental", (hidden + 3) * tokens)]
        case Region() | nn.ModuleList():
            return [row("elementwise", d * tokens)] if isinstance(module, Region) else []
        case LockedDropout():  # of training alone
            return []
    raise NeuroError(
        f"accounting: no counting rule for {type(module).__name__} ('{region}.{name}').",
        "Add its rule to neuro/accounting.py; an operation that cannot be counted is an error.",
    )


def _behind_spikes(brain: Brain) -> set[str]:
    return {emitter.projection for emitter in emitters(brain)}

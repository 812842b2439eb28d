"""Counts what a run did: an observer that adds up integers, and the `Workload` they make.

Spikes are counted from the events. Everything dense follows from how often each module ran, by one rule per module
type; a module type without a rule is an error, never 0.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from torch import nn

from neuro.brain import Brain
from neuro.config import HORMONES
from neuro.errors import NeuroError
from neuro.events import CommitEvents, Events
from neuro.layers.affine_recurrence import AffineRecurrence
from neuro.layers.fast_linear import FastLinear
from neuro.layers.feedforward import DenseFeedforward, SpikingFeedforward
from neuro.layers.norm import RMSNorm
from neuro.layers.spiking_encoder import Emitter, SpikingEncoder
from neuro.layers.window_attention import WindowAttention
from neuro.memory.episodic import EpisodicMemory
from neuro.memory.place_cells import PlaceCells
from neuro.memory.procedural import ProceduralMemory
from neuro.regions.amygdala import Amygdala
from neuro.regions.base import Region
from neuro.regions.cortex import Cortex, CortexLayer
from neuro.regions.endocrine import Endocrine
from neuro.regions.thalamus import Thalamus
from neuro.state import leaves
from neuro.workload import Operation, Population, Traffic, Workload

FLOAT_BYTES = 4
CHIP_WEIGHT_BITS = 8  # width a synapse would be stored with on a chip; the exporters quantize to it


class Tally:
    """An observer that counts tokens, calls, spikes and writes of one brain (all rows of the batch together)."""

    def __init__(self, brain: Brain) -> None:
        self.brain = brain
        self.tokens = self.calls = self.row_calls = self.attended = self.commits = 0
        self.writes = self.evictions = self.filled = 0
        self.routed = [0] * len(brain.config.cortex.layers)
        self.spikes = [0] * len(emitters(brain))

    def span(self, events: Sequence[Events], commit: CommitEvents) -> None:
        for event in events:
            batch, length = event.valid.shape
            self.tokens += batch * length
            self.calls += 1
            self.row_calls += batch
            self.attended += batch * length * (self.brain.config.cortex.window + length)
            for layer, count in enumerate(event.spikes.sum((0, 1)).tolist()):
                self.spikes[layer] += int(count)
            for layer, count in enumerate((event.route > 0.5).sum((0, 1)).tolist()):
                self.routed[layer] += int(count)
        self.commits += commit.writes.shape[0]
        self.writes += int(commit.writes.sum())
        self.evictions += int(commit.evictions.sum())
        self.filled = int(commit.filled.sum())


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
    prefill_tokens: int,
    seconds: float,
    measured_joules: float | None = None,
    measured_source: str | None = None,
) -> Workload:
    """The counts of a run as the torch-free contract that energy is priced from.

    Raises:
        NeuroError: a module type whose operations cannot be counted.
    """
    config = brain.config
    populations = []
    for emitter, spikes in zip(emitters(brain), tally.spikes, strict=True):
        neurons = emitter.channels * emitter.neurons
        populations.append(
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
                updates=neurons * emitter.steps * tally.tokens,
            )
        )
    operations = [Operation("readout", "vocabulary", "mac", "dense", tally.tokens * brain.embedding.numel())]
    if config.fast_rank:  # the teaching signal: what every prediction missed, in the embedding's terms
        products = tally.tokens * brain.embedding.numel() + tally.row_calls * len(HORMONES)
        operations += [
            Operation("readout", "error", "mac", "dense", products),
            Operation("readout", "error", "transcendental", "dense", tally.tokens * config.vocab_size),
            Operation("readout", "error", "elementwise", "dense", 8 * tally.tokens * config.d_model),
        ]
    for name, module in brain.named_modules():
        parts = name.split(".")
        if len(parts) >= 2:
            operations += _operations(parts[1], ".".join(parts[2:]) or "self", module, brain, tally)
    merged: dict[tuple[str, str, str, str], int] = {}
    for row in operations:
        key = (row.region, row.name, row.kind, row.signal)
        merged[key] = merged.get(key, 0) + row.count
    return Workload(
        model=model,
        parameters=sum(brain.parameter_counts().values()),
        tokens=tally.tokens,
        prefill_tokens=prefill_tokens,
        spans=tally.commits,
        seconds=seconds,
        hardware=cpu_name() if brain.backend.device.type == "cpu" else str(brain.backend.device),
        backend=brain.backend.name,
        populations=tuple(populations),
        operations=tuple(Operation(*key, count) for key, count in merged.items() if count),
        traffic=_traffic(brain, tally),
        measured_joules=measured_joules,
        measured_source=measured_source,
    )


def _operations(region: str, name: str, module: nn.Module, brain: Brain, tally: Tally) -> list[Operation]:
    """What one module did itself, without its children. Width D, window W, slots M, place cells N."""
    c, tokens = brain.config, tally.tokens
    d = c.d_model

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
        case nn.Linear():
            macs = module.in_features * module.out_features
            if name == "procedural.modulation":
                return [row("mac", macs * tally.commits)]
            if name.endswith("modulation") or name == "gain":
                return [row("mac", macs * tally.row_calls)]  # the hormones are constant within a call
            if isinstance(brain.regions[region], Endocrine):
                return [row("mac", macs * tally.commits)]
            # Behind spikes the same product is event-driven on a chip: its signal says so.
            return [row("mac", macs * tokens, "binary" if name in _behind_spikes(brain) else "dense")]
        case RMSNorm():
            width = module.weight.numel()
            return [row("elementwise", 4 * width * tokens), row("transcendental", tokens)]
        case AffineRecurrence():
            gated = 0 if module.inward is None else d * tokens
            return [row("elementwise", 7 * d * tokens + gated), row("transcendental", 2 * d * tokens)]
        case WindowAttention():
            pairs = tally.attended
            return [row("mac", 2 * d * pairs), row("transcendental", module.heads * pairs)]
        case DenseFeedforward():
            hidden = module.down.in_features
            return [row("elementwise", (2 * hidden + d) * tokens), row("transcendental", hidden * tokens)]
        case SpikingEncoder():
            return [row("elementwise", 3 * module.width * tokens)]  # the scale, and its two signs apart and together
        case SpikingFeedforward():
            gated = 0 if module.inward is None else d
            return [
                row("elementwise", (module.config.feedforward_width + gated) * tokens)
            ]  # the route; LIFs are populations
        case CortexLayer():
            return [row("elementwise", 3 * d * tokens)]
        case ProceduralMemory():
            span, rank = c.plasticity_span, module.config.rank
            weights = d * module.projections * rank
            macs, elementwise = span * weights, 9 * weights
            if module.config.rule == "delta":  # each token against those before it: their keys, then their updates
                macs += module.projections * (span * span * rank + span * (span - 1) // 2 * d)
                elementwise += 3 * weights + module.projections * span * (span + d + 3 * rank)
            return [row("mac", macs * tally.commits), row("elementwise", elementwise * tally.commits)]
        case PlaceCells():
            cells = module.project.out_features
            return [row("compare", cells * tokens), row("transcendental", cells * tokens)]
        case EpisodicMemory():
            h = c.hippocampus
            read = h.slots * (h.key_width + d) * tokens
            # Rebinding holds what is to be written against every slot and against itself.
            held = h.writes_per_span * (h.slots + h.writes_per_span) * tally.commits if h.rebind else 0
            extra = [row("compare", h.slots * tokens + held), row("transcendental", (h.slots + 4) * tokens)]
            # At a commit: decay, and the place of each token in the span; in a step: trust and gate.
            macs = read + c.plasticity_span**2 * tally.commits + h.key_width * held
            elementwise = h.slots * tally.commits + (8 * d + 6) * tokens
            return [row("mac", macs), *extra, row("elementwise", elementwise)]
        case Thalamus():
            layers = len(c.cortex.layers)
            return [row("elementwise", 2 * d * tokens), row("transcendental", (d + layers) * tokens)]
        case Amygdala():
            hidden = c.amygdala.hidden
            return [row("elementwise", 6 * tokens), row("transcendental", (hidden + 3) * tokens)]
        case Endocrine():
            return [row("elementwise", 15 * tally.commits), row("transcendental", 10 * tally.commits)]
        case Region() | nn.ModuleList():
            return [row("elementwise", d * tokens)] if isinstance(module, Region) else []
    raise NeuroError(
        f"accounting: no counting rule for {type(module).__name__} ('{region}.{name}').",
        "Add its rule to neuro/accounting.py; an operation that cannot be counted is an error.",
    )


def _behind_spikes(brain: Brain) -> set[str]:
    return {emitter.projection for emitter in emitters(brain)}


def _traffic(brain: Brain, tally: Tally) -> tuple[Traffic, ...]:
    """Bytes moved when nothing is cached between calls: weights once a call, state in and out, memory slots."""
    rows = []
    for name, count in brain.parameter_counts().items():
        rows.append(Traffic(name, "weights", "weights", count * FLOAT_BYTES * tally.calls, 0))
    state = brain.init_state(1)
    for name, region in state.regions._asdict().items():
        if not region or name == "hippocampus":
            continue
        size = sum(leaf.numel() for _, leaf in leaves(region)) * FLOAT_BYTES
        rows.append(Traffic(name, "state", "state", size * tally.row_calls, size * tally.row_calls))
    # Carried between regions: a call takes all of it in, a commit reads buffer and held values and writes them anew.
    calls, commits = tally.row_calls, tally.commits
    for name, carried, reads, writes in (
        ("span buffer", state.buffer, calls + commits, calls + commits),
        ("held values", state.held, calls + commits, commits),
        ("carried logits", state.logits, calls, calls),
    ):
        size = sum(leaf.numel() for _, leaf in leaves(carried)) * FLOAT_BYTES
        rows.append(Traffic("bus", name, "state", size * reads, size * writes))
    if "hippocampus" in brain.regions:
        h = brain.config.hippocampus
        read = (h.key_width + brain.config.d_model + 1) * FLOAT_BYTES * h.slots * tally.row_calls
        written = (h.key_width + brain.config.d_model + 2) * FLOAT_BYTES * tally.writes  # and where it came from
        rows.append(Traffic("hippocampus", "episodic slots", "memory", read, written))
    return tuple(rows)


def cpu_name() -> str:
    """The processor's model name, as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").split("\n"):
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

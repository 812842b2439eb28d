"""Law: energy counts only what happened. Counts equal a recount from rasters, and the operations torch itself saw."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import backends
from backends import portable
from neuro import accounting, presets
from neuro.brain import Brain
from neuro.config import apply_sets
from neuro.errors import NeuroError
from neuro.memory.phrases import WIDTH
from neuro.session import Session


def make(sets: list[str] | None = None, raster: bool = False) -> Brain:
    torch.manual_seed(3)
    # Portable operators: attention as two products, which the operation counter of torch sees.
    backend = dataclasses.replace(backends.select("cpu"), ops=portable.OPS)
    return Brain(apply_sets(presets.tiny().brain, sets or []), backend, record_raster=raster).eval()


class Rasters:
    def __init__(self) -> None:
        self.found: list[torch.Tensor] = []

    def span(self, events, commit) -> None:
        self.found += [event.raster for event in events]


def drive(brain: Brain, *observers, tokens: int = 53) -> accounting.Tally:
    tally = accounting.Tally(brain)
    session = Session(brain, observers=[tally, *observers])
    ids = torch.randint(0, brain.config.vocab_size, (1, tokens), generator=torch.Generator().manual_seed(1))
    session.feed(ids[:, :37])
    for i in range(37, tokens):
        session.feed(ids[:, i : i + 1])
    session.commit()
    return tally


def test_spikes_equal_a_recount_from_recorded_rasters():
    brain, rasters = make(["cortex.feedforwards=spiking,spiking"], raster=True), Rasters()
    tally = drive(brain, rasters)
    recount = torch.cat(rasters.found, 1)  # [1, T, S, N]
    assert set(recount.unique().tolist()) <= {0.0, 1.0}
    assert tally.spikes == [int(x) for x in recount.sum((0, 1, 3))]
    assert min(tally.spikes) > 0
    load = accounting.workload(brain, tally, "tiny", (1.0, 0.0))
    for layer, population in enumerate(load.populations):
        brute = sum(brain.config.d_model for spike in recount[0, :, layer].flatten().tolist() if spike)
        assert population.synaptic_ops == brute
        assert population.updates == 53 * population.neurons


def test_a_raster_repeated_twice_doubles_spikes_and_synaptic_operations():
    brain = make()
    once, twice = drive(brain), accounting.Tally(brain)
    for _ in range(2):
        session = Session(brain, observers=[twice])
        ids = torch.randint(0, brain.config.vocab_size, (1, 53), generator=torch.Generator().manual_seed(1))
        session.feed(ids[:, :37])
        for i in range(37, 53):
            session.feed(ids[:, i : i + 1])
        session.commit()
    assert twice.spikes == [2 * count for count in once.spikes]
    loads = [accounting.workload(brain, t, "tiny", (1.0, 0.0)) for t in (once, twice)]
    ops = [sum(p.synaptic_ops for p in load.populations) for load in loads]
    assert ops[1] == 2 * ops[0] > 0


def test_silent_neurons_make_no_spikes_and_no_synaptic_operations():
    brain = make()
    with torch.no_grad():
        for layer in brain.regions["cortex"].layers:
            if hasattr(layer.feedforward, "inject"):
                layer.feedforward.inject.weight.zero_()
                layer.feedforward.inject.bias.fill_(-1.0)
    tally = drive(brain)
    load = accounting.workload(brain, tally, "tiny", (1.0, 0.0))
    assert tally.spikes == [0]
    assert [p.synaptic_ops for p in load.populations] == [0]
    assert load.populations[0].updates > 0


@pytest.mark.parametrize(
    "sets",
    [
        [],
        ["cortex.feedforwards=spiking,spiking"],
        ["cortex.mixers=window,window", "cortex.feedforwards=dense,dense"],
        ["thalamus.enabled=false", "amygdala.enabled=false"],
        ["hippocampus.enabled=false", "endocrine.enabled=false"],
        ["endocrine.off=serotonin"],
        ["procedural.enabled=false"],
        ["hippocampus.rebind=true"],
        ["hippocampus.contiguity=0.3"],
        ["hippocampus.contiguity=0.3", "hippocampus.segments=true"],
        ["hippocampus.key_trace=0.5"],
        ["hippocampus.phrase=0.4"],
        ["hippocampus.pointer=true", "hippocampus.key_direct=true"],
        ["procedural.bias_rate=0.02"],
        ["procedural.natural=true", "procedural.outward_half_life_tokens=40"],
        ["hippocampus.learned_sparsity=true"],
        ["hippocampus.time_cells=6"],
        [
            "cortex.encoding=spikes",
            "cortex.mixers=recurrence,recurrence",
            "cortex.feedforwards=spiking,spiking",
            "procedural.enabled=false",
        ],
        ["procedural.rule=delta"],
    ],
)
def test_multiply_accumulates_equal_what_torch_dispatched(sets):
    brain = make(sets)
    tally = accounting.Tally(brain)
    session = Session(brain, observers=[tally])
    counter = FlopCounterMode(display=False)
    with counter:
        session.feed(torch.randint(0, brain.config.vocab_size, (1, 37)))
        session.feed(torch.randint(0, brain.config.vocab_size, (1, 1)))
        session.commit()
    load = accounting.workload(brain, tally, "tiny", (1.0, 0.0))
    counted = sum(row.count for row in load.operations if row.kind == "mac")
    # The portable table moves rows by one-hot products; those move data and are not the model's arithmetic.
    moved = _one_hot_products(brain, spans=[16, 16, 5, 1], commits=3)
    assert counter.get_total_flops() // 2 - moved == counted


def _one_hot_products(brain: Brain, spans: list[int], commits: int) -> int:
    c, h = brain.config, brain.config.hippocampus
    on = h.enabled
    led = WIDTH if h.phrase else 0
    record = (h.key_width + led + c.d_model if on else 0) + 8 + c.points
    if c.procedural.enabled:
        record += c.d_model + c.fast_projections * c.procedural.rank
    moved = sum(c.plasticity_span * length * record for length in spans if length > 1)
    moved += len(spans) * c.vocab_size  # what the token that came had been given
    moved += sum(spans) * c.vocab_size if c.fast_bias else 0  # which token came
    if on:
        rows = h.key_width + led + c.d_model + 2 + c.points + h.segments
        marks = (4 + c.points + bool(led) + h.segments) * (
            math.isqrt(h.slots - 1) + 1
        ) ** 2  # who writes which slot, by tensor
        moved += commits * h.writes_per_span * (h.slots + c.plasticity_span * rows + marks)
        moved += commits * h.writes_per_span * c.plasticity_span * h.key_width if h.rebind else 0
        moved += sum(spans) * h.slots * c.vocab_size if c.points else 0  # which slots hold which token
    return moved


def test_a_module_without_a_rule_is_an_error():
    brain = make()
    brain.regions["cortex"].layers[0].extra = torch.nn.Bilinear(2, 2, 2)
    tally = accounting.Tally(brain)
    session = Session(brain, observers=[tally])
    session.feed(torch.zeros(1, 3, dtype=torch.int64))
    session.commit()
    with pytest.raises(NeuroError, match="no counting rule for Bilinear"):
        accounting.workload(brain, tally, "tiny", (1.0, 0.0))


@pytest.mark.parametrize("feedforward", ["dense", "spiking"])
def test_skipped_layers_are_not_counted(feedforward):
    """By hand: the matrices of a layer times the tokens that it ran for, what decides times all of them."""
    brain = make(["thalamus.skips=layer", f"cortex.feedforwards={feedforward},{feedforward}"])
    with torch.no_grad():
        brain.regions["thalamus"].route.bias.zero_()
        for layer in brain.regions["cortex"].layers:
            layer.depth.score.weight *= 10.0
    tally = drive(brain)
    assert all(0 < count < 53 for count in tally.routed)
    load = accounting.workload(brain, tally, "tiny", (1.0, 0.0))
    counts = {(row.name, row.kind): row.count for row in load.operations if row.region == "cortex"}
    for index, layer in enumerate(brain.regions["cortex"].layers):
        ran = tally.routed[index]
        for name, part in layer.named_modules():
            if isinstance(part, torch.nn.Linear) and not name.endswith("modulation"):
                tokens = 53 if name == "depth.score" else ran
                assert counts[f"layers.{index}.{name}", "mac"] == part.weight.numel() * tokens
    for population in load.populations:
        ran = tally.routed[int(population.name.split(".")[2])]
        assert population.updates == population.neurons * ran

"""Law: with the encoding 'spikes' every product of the cortex reads spikes, and every one of them is counted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import backends
from backends import portable
from neuro import accounting, presets, recorder
from neuro.brain import Brain
from neuro.config import HORMONES, TrainConfig, apply_sets
from neuro.session import Session
from neuro.train.objective import window_loss

BURST = 3
SPIKES = [
    "cortex.encoding=spikes",
    f"cortex.burst={BURST}",
    "cortex.mixers=recurrence,recurrence",
    "cortex.feedforwards=spiking,spiking",
    "procedural.enabled=false",
]
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "matmul", "linear", "dot", "mv", "addmv", "einsum", "convolution"}


class Products(TorchDispatchMode):
    """Keeps the first factor of every product that torch runs."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[torch.Tensor] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in PRODUCTS:
            self.inputs.append(args[1 if name.startswith(("add", "badd")) else 0].detach().clone())
        return func(*args, **(kwargs or {}))


def products(brain: Brain, ids: torch.Tensor, monkeypatch) -> list[torch.Tensor]:
    """The inputs [*, I] of all products that the cortex makes while it reads ``ids``, but for those of the hormones."""
    cortex, seen = brain.regions["cortex"], Products()
    scan = cortex.scan

    def watched(inputs, state):
        with seen:
            return scan(inputs, state)

    monkeypatch.setattr(cortex, "scan", watched)
    with torch.no_grad():
        state = brain.commit(brain.scan(ids[:, :16], brain.init_state(ids.shape[0])).state)[0]
        brain.scan(ids[:, 16:], state)
    return [x for x in seen.inputs if x.shape[-1] != len(HORMONES)]


@pytest.mark.parametrize("ops", [backends.select("cpu").ops, portable.OPS], ids=lambda ops: ops.name)
def test_every_product_of_the_cortex_reads_spikes(ops, tiny_brain, tokens, monkeypatch):
    brain = tiny_brain(SPIKES, ops=ops)
    found = products(brain, tokens(3, 30), monkeypatch)
    assert len(found) == 2 * 4 * len(brain.config.cortex.layers)
    for x in found:
        assert set(x.unique().tolist()) <= set(range(-BURST, BURST + 1)) and 0 < float(x.abs().mean()) < 0.6


def test_the_law_can_fail(tiny_brain, tokens, monkeypatch):
    brain = tiny_brain([*SPIKES, "cortex.encoding=dense"])
    read = [set(x.unique().tolist()) <= {0.0, 1.0} for x in products(brain, tokens(3, 30), monkeypatch)]
    assert read == [False, False, False, True] * 4  # in, out, in, and only the LIF neurons' own projection


class Spikes:
    def __init__(self) -> None:
        self.found: list[torch.Tensor] = []

    def span(self, events, commit) -> None:
        self.found += [event.raster for event in events]


def ran(sets: list[str]) -> tuple[Brain, accounting.Tally, torch.Tensor]:
    """A brain after 41 tokens of one stream, its tally, and all its spikes [T,S,N]."""
    torch.manual_seed(3)
    backend = dataclasses.replace(backends.select("cpu"), ops=portable.OPS)
    brain = Brain(apply_sets(presets.tiny().brain, sets), backend, record_raster=True).eval()
    tally, spikes = accounting.Tally(brain), Spikes()
    session = Session(brain, observers=[tally, spikes])
    session.feed(torch.randint(0, 300, (1, 41), generator=torch.Generator().manual_seed(1)))
    session.commit()
    return brain, tally, torch.cat(spikes.found, 1)[0]


def test_spikes_per_synapse_are_those_of_a_recount():
    brain, tally, raster = ran(SPIKES)
    load = accounting.workload(brain, tally, "tiny", (1.0, 0.0))
    weights = [p.weight for name, p in brain.named_modules() if _reads_spikes(name)]
    assert len(weights) == len(tally.spikes) == raster.shape[1] == 8
    events = sum(int(raster[:, i].sum()) * weight.shape[0] for i, weight in enumerate(weights))
    assert sum(p.synaptic_ops for p in load.populations) == events > 0
    every = 41 * sum(weight.numel() for weight in weights)
    assert accounting.spikes_per_synapse(load) == events / every
    assert not raster[:, :, max(brain.config.d_model, brain.config.cortex.feedforward_width) :].any()


def test_a_recording_holds_every_burst_and_each_membrane_says_how_long_it_is(tiny_brain, tokens, tmp_path):
    brain = tiny_brain(SPIKES, record_raster=True, record_membrane=True)
    spikes = Spikes()
    with recorder.for_brain(tmp_path / "run", brain) as writer:
        session = Session(brain, batch=2, observers=[writer, spikes])
        session.feed(tokens(2, 30))
        session.commit()
    read = recorder.Recording(tmp_path / "run")
    raster, u = read.read("raster"), read.read("membrane")
    assert read.signals["raster"].kind == "counts" and raster.max() == BURST
    assert (raster == torch.cat(spikes.found, 1).transpose(0, 1).numpy()).all()
    d, n = brain.config.d_model, brain.config.cortex.feedforward_width
    assert read.about["channels"] == [d, d, d, n] * 2
    for index, (name, channels) in enumerate(zip(read.about["populations"], read.about["channels"], strict=True)):
        fired, membrane = raster[:, :, index], u[:, :, index]
        assert fired.any() and not fired[..., channels:].any() and not membrane[..., channels:].any()
        burst = BURST if name.endswith((".inward", ".outward")) else 1
        assert (fired == np.floor(membrane).clip(0, burst)).all()


def _reads_spikes(name: str) -> bool:
    return name.endswith((".mixer.project", ".mixer.out", ".feedforward.inject", ".feedforward.project"))


def test_no_dense_product_of_the_cortex_is_left_but_the_hormones():
    brain, tally, _ = ran(SPIKES)
    load = accounting.workload(brain, tally, "tiny", (1.0, 0.0))
    dense = {row.name for row in load.operations if (row.region, row.kind, row.signal) == ("cortex", "mac", "dense")}
    assert dense == {"layers.0.modulation", "layers.1.modulation"}
    pairs = [p for p in load.populations if p.name.endswith((".inward", ".outward"))]
    assert {p.neurons for p in pairs} == {2 * brain.config.d_model} and len(pairs) == 6
    assert all(p.updates == 41 * BURST * p.neurons for p in pairs)
    lif = [p for p in load.populations if p not in pairs]
    assert all(p.updates == 41 * p.neurons for p in lif)
    assert {p.input_signal for p in lif} == {"binary"} and {p.input_signal for p in pairs} == {"dense"}


def test_the_budget_is_one_over_all_synapses(tiny_brain, tokens):
    brain, t = tiny_brain(SPIKES), TrainConfig(rate_weight=7.0, route_weight=0.0, mixed_precision=False)
    ids = tokens(2, 16)
    loss = window_loss(brain, ids, brain.init_state(2), t)
    with torch.no_grad():
        spikes = brain.scan(ids, brain.init_state(2)).events.spikes.double().sum((0, 1))
    d, n = brain.config.d_model, brain.config.cortex.feedforward_width
    fan_out, channels = torch.tensor([3 * d, d, n, d] * 2), torch.tensor([d, d, d, n] * 2)
    rate = (spikes * fan_out).sum() / (32 * channels * fan_out).sum()
    budget = 7.0 * float(rate - brain.config.cortex.rate_target) ** 2
    assert float((loss.total - loss.nats).detach()) == pytest.approx(budget, rel=1e-3)
    loss.total.backward()
    for name, p in brain.named_parameters():
        if name.endswith("log_threshold"):
            assert p.grad.any(), name


def test_padding_is_silent(tiny_brain, tokens):
    brain = tiny_brain(SPIKES)
    valid = (torch.arange(16) >= torch.tensor([[0], [9]])).float()
    with torch.no_grad():
        out = brain.scan(tokens(2, 16), brain.init_state(2), valid=valid)
    assert not out.events.spikes[1, :9].any() and out.events.spikes[1, 9:].any()

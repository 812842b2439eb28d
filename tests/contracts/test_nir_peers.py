"""snnTorch's neurons leave as NIR graphs that fire as they do, resets by subtraction included."""

from __future__ import annotations

import nir as theirs
import numpy as np
import pytest
import snntorch as snn
import torch
from torch import nn

from neuro import nir_graph as nir
from neuro.errors import UsageError
from neuro.neurons.interop import from_snntorch
from neuro.nir_modules import from_modules
from sims.nir import run


def network(kind: str, reset: str, delay: bool) -> list[nn.Module]:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(6, 12).double()]
    nn.init.normal_(layers[0].weight, 0.3, 0.8)
    common = {"threshold": torch.linspace(0.4, 0.9, 12).double(), "reset_mechanism": reset, "reset_delay": delay}
    beta = torch.linspace(0.7, 0.95, 12).double()
    made = snn.Leaky(beta, **common) if kind == "Leaky" else snn.Synaptic(1.2 * beta - 0.3, beta, **common)
    snn.SpikingNeuron.instances.clear()  # it keeps every neuron ever made
    return [*layers, made]


def spikes(layers: list[nn.Module], x: torch.Tensor) -> np.ndarray:
    neuron, found = layers[1], []
    state = neuron.init_leaky() if isinstance(neuron, snn.Leaky) else neuron.init_synaptic()
    state = state if isinstance(state, tuple) else (state,)
    with torch.no_grad():
        for row in x:
            z, *state = neuron(layers[0](row), *state)
            found.append(z.numpy())
    return np.stack(found)


@pytest.mark.parametrize(
    ("kind", "reset", "delay"),
    [
        *(("Leaky", "zero", False), ("Leaky", "zero", True), ("Leaky", "subtract", True), ("Leaky", "none", True)),
        *(("Synaptic", "zero", False), ("Synaptic", "subtract", True), ("Synaptic", "none", True)),
    ],
)
def test_snntorch_neurons_fire_the_same(tmp_path, kind, reset, delay):
    layers, x = network(kind, reset, delay), (torch.rand(80, 6) < 0.4).double()
    expected = spikes(layers, x)
    assert 0 < expected.mean() < 1
    nir.write(from_modules([layers[0], from_snntorch(layers[1], 12)], (6,)), tmp_path / "a.nir")
    assert np.array_equal(run(nir.read(tmp_path / "a.nir"), x.numpy())["output"], expected)


def test_a_synaptic_that_is_reset_late_cannot_be_said():
    layers = network("Synaptic", "zero", True)
    with pytest.raises(UsageError, match="got a delayed hard reset, expected one at once"):
        from_modules([layers[0], from_snntorch(layers[1], 12)], (6,))


def test_a_graph_as_snntorch_writes_it(tmp_path):
    """Its exporter: tau = dt / (1 - beta) and r = tau / dt at a dt of 1e-4 s that the file does not hold, in float32."""
    layers, x = network("Leaky", "zero", False), (torch.rand(80, 6) < 0.4).double()
    tau = (1e-4 / (1 - layers[1].beta)).float().numpy()
    lif = theirs.LIF(tau, tau / np.float32(1e-4), np.zeros_like(tau), layers[1].threshold.float().numpy())
    weight, bias = (p.detach().float().numpy() for p in layers[0].parameters())
    theirs.write(tmp_path / "a.nir", theirs.NIRGraph.from_list(theirs.Affine(weight, bias), lif))
    graph = nir.read(tmp_path / "a.nir")
    assert "dt" not in graph.metadata
    assert np.array_equal(run(graph, x.numpy(), 1e-4)["output"], spikes(layers, x))

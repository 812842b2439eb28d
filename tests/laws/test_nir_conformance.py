"""The conformance suite against everything of ours that runs NIR, spike for spike, through a file."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from neuro import nir_graph as nir
from neuro.errors import UsageError
from neuro.neurons import Neuron
from neuro.nir_modules import to_modules
from neuro.nir_network import NirNetwork
from sims.nir import count, run
from sims.nir.conformance import DT, NAMES, STEPS, case

CHAINS = (
    *("lif", "lif_gain", "lif_reset", "lif_taus", "lif_thresholds", "lif_layers", "if", "conv2d", "avgpool"),
    *("conv1d", "cubalif", "reset_none", "reset_soft", "reset_soft_if"),
)
"""Of layers that `to_modules` has."""


def agree(found: np.ndarray, name: str, rounding: float) -> None:
    expected = case(name).answer.values
    assert found.shape == expected.shape
    if case(name).analog:
        np.testing.assert_allclose(found, expected, rounding, rounding)
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_case_asks_something(name):
    """It fires, not always, and no closer to a threshold than float32 could tell apart."""
    values = case(name).answer.values
    assert len(values) == STEPS and np.isfinite(values).all()
    assert case(name).analog or 0.02 < values.mean() < 0.6
    assert case(name).answer.closest > 5e-5 or case(name).analog


def test_the_suite_is_the_one_that_was_published():
    """Its graphs and samples are drawn; another generator would make other ones."""
    sums = {name: int(case(name).answer.values.sum()) for name in ("lif", "recurrent", "delay", "conv2d", "reset_soft")}
    assert sums == {"lif": 162, "recurrent": 124, "delay": 169, "conv2d": 202, "reset_soft": 215}


def test_the_suite_has_every_node():
    kinds = {type(node).__name__ for name in NAMES for node in case(name).graph.nodes.values()}
    assert kinds == set(nir.NODES)


@pytest.mark.parametrize("name", NAMES)
def test_ours_agree(tmp_path, name):
    nir.write(case(name).graph, tmp_path / "a.nir")
    graph, x = nir.read(tmp_path / "a.nir"), case(name).inputs
    agree(run(graph, x)["output"], name, 1e-12)
    for dtype, rounding in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        network = NirNetwork(graph, dtype=dtype)
        with torch.no_grad():
            found, _ = network.scan(torch.from_numpy(x).to(dtype).unsqueeze(1), network.init_state(1))
        agree(found[:, 0].numpy(), name, rounding)


@pytest.mark.parametrize("name", CHAINS)
def test_layers_agree(name):
    x = torch.from_numpy(case(name).inputs).unsqueeze(1)
    with torch.no_grad():
        for layer in to_modules(case(name).graph):
            if isinstance(layer, Neuron):
                flat = x.reshape(len(x), 1, -1)
                x = layer.scan(flat, layer.init_state(1))[0].reshape(x.shape)
            else:
                x = layer(x.flatten(0, 1)).unflatten(0, (len(x), 1))
    agree(x[:, 0].numpy(), name, 1e-5)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(CHAINS)))
def test_what_is_no_chain_of_layers_is_refused(name):
    with pytest.raises(UsageError, match="to_modules"):
        to_modules(case(name).graph)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Brian2 2.9 through sympy and pyparsing
@pytest.mark.parametrize("name", NAMES)
def test_brian2_agrees(name):
    pytest.importorskip("brian2")
    from sims.circuits.nir_network import run as in_brian2

    agree(in_brian2(case(name).graph, case(name).inputs)["output"], name, 1e-12)


@pytest.mark.parametrize("name", [name for name in NAMES if not case(name).analog])
def test_counted_spikes_are_those_of_the_answer(name):
    graph = case(name).graph
    last = graph.before["output"][0]
    load = count(graph, case(name).inputs, input_signal="binary")
    spikes = {population.name: population.spikes for population in load.phases[0].populations}
    assert spikes[last] == case(name).answer.values.sum()


def test_rules_that_a_file_does_not_tell_would_be_seen():
    """With the other rule the answer is another one: >= for >, exp for Euler, the current of the step before."""
    c = case("lif")
    node = c.graph.nodes["1_lif"]
    first = c.inputs @ c.graph.nodes["0_affine"].weight.T + c.graph.nodes["0_affine"].bias
    v, spikes = np.zeros(8), 0
    for current in first:
        v = math.exp(-DT / 8e-4) * v + current
        z = v > node.v_threshold
        v, spikes = np.where(z, 0.0, v), spikes + z.sum()
    assert spikes != c.answer.values.sum()

"""A NIR graph as a Brian2 network: what is built can be run on by hand, and what it does not take raises."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from neuro import nir_graph as nir
from neuro.errors import MissingError, UsageError
from sims import nir as counted
from sims.circuits import nir_network
from sims.nir.conformance import DT, STEPS, case

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Brian2 2.9 through sympy and pyparsing


def test_every_node_gives_what_it_should():
    brian2 = pytest.importorskip("brian2")
    made = nir_network.build(case("branch").graph, case("branch").inputs)
    expected = counted.run(case("branch").graph, case("branch").inputs)
    assert set(made.monitors) == set(expected)
    made.network.run(30 * DT * brian2.second)
    made.network.run((STEPS - 30) * DT * brian2.second)  # a run may be cut
    for name, monitor in made.monitors.items():
        np.testing.assert_allclose(np.asarray(monitor.y).T, expected[name], atol=1e-12)


def test_a_weight_of_zero_is_no_synapse_and_none_at_all_is_silence():
    pytest.importorskip("brian2")
    nodes = [nir.Affine(np.zeros((2, 3)), np.array([0.0, 2.0])), nir.IF(np.full(2, 1 / DT), np.ones(2), np.zeros(2))]
    found = nir_network.run(nir.sequence((3,), nodes, DT), np.ones((4, 3)))["output"]
    assert found.tolist() == [[0.0, 1.0]] * 4


def test_a_delay_of_potentials_is_refused():
    pytest.importorskip("brian2")
    graph = nir.sequence((2,), [nir.Delay(np.full(2, DT))], DT)
    with pytest.raises(UsageError) as error:
        nir_network.run(graph, np.ones((3, 2)))
    assert str(error.value) == (
        "Brian2 network: got a Delay '0_delay' of 'input', which gives no spikes, expected neurons.\n"
        "Run the graph with sims.nir.run, or put the Delay behind the neurons."
    )


def test_mistakes_are_those_of_our_own_simulator():
    pytest.importorskip("brian2")
    graph = nir.sequence((2,), [nir.Linear(np.ones((2, 2)))])
    with pytest.raises(UsageError, match="got no time step, expected one"):
        nir_network.run(graph, np.ones((3, 2)))
    with pytest.raises(UsageError, match="got inputs float64 \\[3, 4\\], expected numbers \\[T, 2\\]"):
        nir_network.run(graph, np.ones((3, 4)), DT)
    slow = case("lif").graph
    with pytest.raises(UsageError, match="got tau 0.0008 s with dt 0.001, expected a step no longer than it.\nEuler"):
        nir_network.run(slow, case("lif").inputs, 1e-3)


def test_without_brian2(monkeypatch):
    monkeypatch.setitem(sys.modules, "brian2", None)
    with pytest.raises(MissingError) as error:
        nir_network.run(case("lif").graph, case("lif").inputs)
    assert error.value.do == "pip install 'neuro-hybrid[sims]'"

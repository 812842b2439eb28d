"""A NIR graph as a torch module: where a run is cut plays no part, weights learn and go back into the graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backends import Surrogate
from neuro import nir_graph as nir
from neuro.errors import UsageError
from neuro.nir_network import NirNetwork
from sims.nir.conformance import NAMES, case


def network(name: str) -> tuple[NirNetwork, torch.Tensor]:
    x = torch.from_numpy(case(name).inputs)
    return NirNetwork(case(name).graph), torch.stack([x, x.roll(7, 0), torch.zeros_like(x)], 1)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_run_may_be_cut_anywhere_and_rows_are_apart(name):
    net, x = network(name)
    whole, end = net.scan(x, net.init_state(3))
    state, found = net.init_state(3), []
    for part in (x[:1], x[1:40], x[40:]):
        out, state = net.scan(part, state)
        found.append(out)
    assert torch.equal(torch.cat(found), whole)
    assert all(torch.equal(a, b) for a, b in zip((*end.held, *end.last), (*state.held, *state.last), strict=True))
    alone, _ = net.scan(x[:, 1:2], net.init_state(1))
    torch.testing.assert_close(whole[:, 1:2], alone)
    assert torch.equal(whole, net.scan(x, net.init_state(3))[0])  # nothing is kept on the module


@pytest.mark.parametrize("name", ["recurrent_delay", "avgpool", "branch", "recurrent_cuba", "scale", "conv1d"])
def test_weights_learn_and_go_back(tmp_path, name):
    net, x = network(name)
    out, _ = net.scan(x, net.init_state(3))
    out.sum().backward()
    gradients = {key: p.grad for key, p in net.named_parameters()}
    assert gradients and all(g is not None and g.isfinite().all() and g.any() for g in gradients.values())
    with torch.no_grad():
        for p in net.parameters():
            p -= 0.01 * p.grad
    nir.write(net.graph(), tmp_path / "a.nir")
    again = NirNetwork(nir.read(tmp_path / "a.nir"))
    with torch.no_grad():
        learned = net.scan(x, net.init_state(3))[0]
        assert torch.equal(again.scan(x, again.init_state(3))[0], learned)
    assert not torch.equal(learned, out)


def test_the_surrogate_is_in_the_gradient():
    found = []
    for slope in (1.0, 10.0):
        net = NirNetwork(case("lif").graph, surrogate=Surrogate(slope=slope))
        net.scan(torch.from_numpy(case("lif").inputs).unsqueeze(1), net.init_state(1))[0].sum().backward()
        found.append(next(net.parameters()).grad)
    assert not torch.allclose(*found)


def test_what_it_does_not_take():
    graph = case("lif").graph
    net = NirNetwork(graph)
    with pytest.raises(UsageError) as error:
        net.scan(torch.zeros(1, 5, 7), net.init_state(1))
    assert str(error.value) == (
        "NirNetwork: got torch.float32 [1, 5, 7], expected torch.float32 [T, B, 6].\n"
        "Give it time first, then the batch, in the network's type."
    )
    with pytest.raises(UsageError, match="got tau 0.0008 s with dt 0.001, expected a step no longer than it.\nEuler"):
        NirNetwork(graph, 1e-3)
    with pytest.raises(UsageError, match="got a delay of 0.0001 s at dt 0.00015, expected whole steps.\nTake a dt"):
        NirNetwork(case("delay").graph, 1.5e-4)
    two = nir.Graph({**graph.nodes, "more": nir.Output((8,))}, (*graph.edges, ("1_lif", "more")), {"dt": 1e-4})
    with pytest.raises(
        UsageError, match="got 2 Outputs \\(output, more\\), expected one.\nJoin them, or cut the graph."
    ):
        NirNetwork(two)


def test_float64_weights_make_it_float64():
    net = NirNetwork(nir.sequence((2,), [nir.Linear(np.ones((3, 2))), nir.IF(*[np.ones(3)] * 3)], 1.0))
    assert net.dtype == torch.float64 and net.init_state(2).held[0].dtype == torch.float64

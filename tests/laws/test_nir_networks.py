"""A network of a NIR graph has the synapses that the count of the same graph finds, and a chip holds it."""

from __future__ import annotations

import numpy as np
import pytest

from neuro import nir_graph as nir
from neuro.errors import UsageError
from neuro.nir_graph import Graph
from sims import chips
from sims.mapping import Conv2d, Dense, Network, Sparse, place, validate
from sims.mapping.nir import rates_of, to_network
from sims.nir.fan import Fan

DT = 1e-3


def fire(*shape: int) -> nir.Node:
    return nir.IF(np.full(shape, 1 / DT), np.full(shape, 0.7), np.zeros(shape))


def weights(rng, *shape: int, kept: float = 1.0) -> np.ndarray:
    return rng.normal(0.4, 0.5, shape) * (rng.random(shape) < kept)


def degrees(network: Network, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(targets, sources) of each neuron of a group, in the group's order, by walking over every synapse."""
    group = network[name]
    out, into = np.zeros(group.neurons, np.int64), np.zeros(group.neurons, np.int64)
    for p in network.projections:
        source, target = network[p.source], network[p.target]
        if isinstance(p, Dense):
            pairs = list(np.ndindex(source.neurons, target.neurons))
        elif isinstance(p, Sparse):
            pairs = list(zip(np.repeat(np.arange(source.neurons), np.diff(p.offsets)), p.targets, strict=True))
        else:
            pairs, a, b = [], source.shape, target.shape
            for number, (x, y, c) in enumerate(np.ndindex(b)):
                for kx, ky in np.ndindex(p.kernel):
                    sx, sy = x * p.stride[0] - p.padding[0] + kx, y * p.stride[1] - p.padding[1] + ky
                    if 0 <= sx < a[0] and 0 <= sy < a[1]:
                        width = a[2] // p.groups
                        first = c // (b[2] // p.groups) * width
                        pairs += [((sx * a[1] + sy) * a[2] + k, number) for k in range(first, first + width)]
        for i, j in pairs:
            if p.source == name:
                out[i] += 1
            if p.target == name:
                into[j] += 1
    return out, into


def random_graph(seed: int) -> Graph:
    rng = np.random.default_rng(seed)
    groups, one = int(rng.choice([1, 2])), seed % 4 == 0
    shape = (2 * groups, 8) if one else (2 * groups, 7, 6)
    kernel = rng.integers(1, 4, len(shape) - 1)
    kept = 1.0 if seed % 3 else 0.6
    conv = (nir.Conv1d if one else nir.Conv2d)(
        weights(rng, 2 * groups, 2, *kernel, kept=1.0),
        np.zeros(2 * groups),
        stride=tuple(rng.integers(1, 3, len(kernel))),
        padding=tuple(rng.integers(0, 3, len(kernel))),
        dilation=(1 + seed % 2,) * len(kernel),
        groups=groups,
    )
    out = conv.output_shape(shape)
    nodes: list[nir.Node] = [conv, fire(*out)]
    if not one and seed % 5 == 1:
        nodes.append(nir.SumPool2d((2, 2), (2, 2), (0, 0)))  # windows that do not overlap: no synapse twice
        out = nodes[-1].output_shape(out)
        nodes.append(nir.Scale((rng.random(out) < 0.7) * 1.0))
    nodes += [nir.Flatten(0, -1), nir.Delay(np.zeros(int(np.prod(out))))]
    nodes += [nir.Affine(weights(rng, 4, int(np.prod(out)), kept=kept), np.zeros(4)), fire(4)]
    nodes.append(nir.Linear(weights(rng, 3, 4, kept=kept)))
    return nir.sequence(shape, nodes, DT)


@pytest.mark.parametrize("seed", range(20))
def test_synapses_are_those_that_are_counted(seed):
    graph = random_graph(seed)
    fan, network = Fan(graph, "binary"), to_network(graph, name="net")
    for name in fan.sources:
        for found, expected in zip(degrees(network, name), (fan.fan_out[name], fan.fan_in[name]), strict=True):
            expected = np.moveaxis(expected, 0, -1) if expected.ndim > 1 else expected
            assert np.array_equal(found, expected.ravel()), name
    kinds = {type(p) for p in network.projections}
    assert (Conv2d in kinds) == (seed % 2 == 0)  # a dilated kernel is written out
    assert network.groups[-1].name == [*graph.nodes][-2] and not network.groups[0].placed


def test_rates_follow_the_neurons():
    graph = random_graph(2)
    rng = np.random.default_rng(0)
    x = (rng.random((30, *graph.shapes["input"][0])) < 0.3) * 1.0
    rates = rates_of(graph, x)
    network = to_network(graph, rates)
    for name, rate in rates.items():
        group = network[name]
        assert group.rates.mean() == pytest.approx(rate.mean()) and rate.mean() > 0
        if group.shape is not None:
            assert np.array_equal(group.rates.reshape(group.shape), np.moveaxis(rate, 0, -1).reshape(group.shape))


def test_a_recurrent_net_is_placed_and_checked():
    rng, one = np.random.default_rng(1), np.ones(20)
    nodes = {
        "in": nir.Input((10,)),
        "w": nir.Linear(weights(rng, 20, 10)),
        "held": nir.LI(one * 5e-3, one * 5, one * 0),
        "n": nir.Threshold(one * 0.5),
        "reset": nir.Scale(-0.4 * one),
        "own": nir.Linear(weights(rng, 20, 20, kept=0.3)),
        "last": nir.Linear(weights(rng, 4, 20)),
        "out": nir.Output((4,)),
        "spikes": nir.Output((20,)),
    }
    edges = [
        ("in", "w"),
        ("w", "held"),
        ("held", "n"),
        ("n", "reset"),
        ("reset", "held"),
        ("n", "own"),
        ("own", "held"),
    ]
    graph = Graph(nodes, (*edges, ("n", "last"), ("last", "out"), ("n", "spikes")), {"dt": DT})
    network = to_network(graph, {"n": 0.1, "in": 0.2})
    assert [(g.name, g.neurons, g.placed) for g in network.groups] == [
        ("in", 10, False),
        ("n", 20, True),
        ("last", 4, True),
    ]
    assert [(type(p), p.source, p.target) for p in network.projections] == [
        (Dense, "in", "n"),
        (Sparse, "n", "n"),
        (Dense, "n", "last"),
    ]
    own = network.projections[1]
    to, source = np.nonzero(nodes["own"].weight)
    rows = np.repeat(np.arange(20), np.diff(own.offsets))
    assert {*zip(rows.tolist(), own.targets.tolist(), strict=True)} == {*zip(source.tolist(), to.tolist(), strict=True)}
    chip = chips.load("loihi1")
    placement = place(network, chip, 0)
    assert placement.fits and validate.check(placement.network, placement.core, chip) == []


def test_what_is_no_network():
    held = [nir.Linear(np.ones((3, 3))), nir.LI(*[np.ones(3)] * 3)]
    for nodes, what in (
        ([*held, nir.Linear(np.ones((2, 3)))], "'1_li', whose potentials enter '2_linear'"),
        ([*held, nir.Scale(np.ones(3)), fire(3)], "'1_li', whose potentials enter '3_if'"),
        ([held[0], nir.Scale(np.ones(3)), held[0], fire(3)], "'0_linear', whose sums enter '2_linear'"),
    ):
        with pytest.raises(UsageError) as error:
            to_network(nir.sequence((3,), nodes))
        assert str(error.value) == (
            f"to_network: got {what}, expected spikes.\nPut neurons that fire between them, or map the part behind."
        )
    graph = nir.sequence((3,), [held[0], fire(3)])
    with pytest.raises(UsageError) as error:
        to_network(graph, {"0_linear": 0.1})
    assert str(error.value) == (
        "to_network: got a rate of '0_linear', expected one of input, 1_if.\nName a node that gives spikes."
    )
    with pytest.raises(UsageError) as error:
        to_network(graph, {"1_if": np.ones(2)})
    assert str(error.value) == (
        "to_network: got rates [2] of '1_if', expected [3].\nGive one per neuron, in the node's shape."
    )

"""Counts of NIR graphs equal those of an enumerator that walks every spike over every synapse, one by one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from neuro import nir_graph as nir
from neuro.nir_graph import Graph
from sims.nir import count, run

DT = 1e-3


def neurons(rng, kind: str, shape) -> nir.Node:
    def draw(lo, hi):
        return rng.uniform(lo, hi, shape)

    taus = {"tau_syn": draw(2e-3, 6e-3), "tau_mem": draw(3e-3, 9e-3)}
    fires = {"v_threshold": draw(0.2, 0.6), "v_reset": draw(-0.2, 0.1)}
    return {
        "IF": lambda: nir.IF(draw(300, 900), **fires),
        "LIF": lambda: nir.LIF(draw(2e-3, 8e-3), draw(2, 5), draw(-0.1, 0.2), **fires),
        "CubaLIF": lambda: nir.CubaLIF(**taus, r=draw(2, 5), v_leak=draw(-0.1, 0.2), w_in=draw(1, 3), **fires),
        "LI": lambda: nir.LI(draw(2e-3, 8e-3), draw(1, 2), draw(0, 0.1)),
        "CubaLI": lambda: nir.CubaLI(**taus, r=draw(1, 2), v_leak=draw(0, 0.1), w_in=draw(1, 2)),
        "I": lambda: nir.I(draw(100, 400)),
    }[kind]()


def weights(rng, *shape) -> np.ndarray:
    return rng.normal(0.25, 0.6, shape) * (rng.random(shape) < 0.7)


def picture(seed: int) -> Graph:
    """Convolutions, pools, Scale and Flatten on the way to a product, as the seed says."""
    rng = np.random.default_rng(seed)
    groups, one = int(rng.choice([1, 2])), bool(seed % 5 == 0)
    shape = (2 * groups, 9) if one else (2 * groups, 7, 6)
    kernel = rng.integers(1, 4, len(shape) - 1)
    conv = (nir.Conv1d if one else nir.Conv2d)(
        weights(rng, 2 * groups, 2, *kernel),
        rng.normal(0, 0.1, 2 * groups),
        stride=tuple(rng.integers(1, 3, len(kernel))),
        padding=tuple(rng.integers(0, 3, len(kernel))),
        dilation=tuple(rng.integers(1, 3, len(kernel))),
        groups=groups,
    )
    nodes: list[nir.Node] = [conv]
    out = conv.output_shape(shape)
    nodes.append(neurons(rng, str(rng.choice(["IF", "LIF", "CubaLIF"])), out))
    if not one and min(out[1:]) >= 2:
        pool = [nir.SumPool2d, nir.AvgPool2d][seed % 2]
        nodes.append(
            pool(kernel_size=(2, 2), stride=tuple(rng.integers(1, 3, 2)), padding=tuple(rng.integers(0, 2, 2)))
        )
        out = nodes[-1].output_shape(out)
    if seed % 3 == 0:
        nodes.append(nir.Scale(rng.uniform(0.5, 2, out) * (rng.random(out) < 0.8)))
    nodes.append(nir.Flatten(0, -1))
    width = int(np.prod(out))
    nodes += [nir.Affine(weights(rng, 4, width), rng.normal(0, 0.1, 4)), neurons(rng, "LIF", (4,))]
    nodes += [nir.Linear(weights(rng, 3, 4)), neurons(rng, str(rng.choice(["LI", "CubaLI", "I"])), (3,))]
    return nir.sequence(shape, nodes, DT)


def recurrent(seed: int) -> Graph:
    """Two populations with loops of their own, one over both, a delay, a skip from the Input, and a reset by subtraction."""
    rng = np.random.default_rng(seed)
    n, a, b = 4, 5, 3
    kinds = ["IF", "LIF", "CubaLIF"]
    nodes = {
        "in": nir.Input((n,)),
        "w1": nir.Affine(weights(rng, a, n), rng.normal(0, 0.1, a)),
        "one": neurons(rng, kinds[seed % 3], (a,)),
        "own": nir.Linear(weights(rng, a, a)),
        "late": nir.Delay(rng.integers(0, 4, a) * DT),
        "w2": nir.Linear(weights(rng, b, a)),
        "skip": nir.Linear(weights(rng, b, n)),
        "held": neurons(rng, ["LI", "I", "CubaLI"][seed % 3], (b,)),
        "two": nir.Threshold(rng.uniform(0.2, 0.5, b)),
        "reset": nir.Scale(-rng.uniform(0.2, 1.0, b)),
        "back": nir.Linear(weights(rng, a, b)),
        "direct": neurons(rng, "LIF", (b,)),
        "out": nir.Output((b,)),
    }
    edges = [
        *(("in", "w1"), ("w1", "one"), ("one", "own"), ("own", "one"), ("one", "late"), ("late", "w2"), ("w2", "held")),
        *(("in", "skip"), ("skip", "held"), ("held", "two"), ("two", "reset"), ("reset", "held")),
        *(("two", "back"), ("back", "one"), ("two", "direct"), ("direct", "out"), ("two", "out")),
    ]
    if seed % 2:
        nodes.pop("reset")
        edges = [edge for edge in edges if "reset" not in edge]
    order = rng.permutation(len(edges))
    return Graph(nodes, tuple(edges[i] for i in order), {"dt": DT})


def synapses(node: nir.Node, shape, out) -> list[tuple]:
    """(input index, output index, weight) of every connection a node has, weights of 0 included."""
    if isinstance(node, nir.Linear):
        return [((i,), (j,), node.weight[j, i]) for j, i in np.ndindex(*node.weight.shape)]
    if isinstance(node, nir.Scale | nir.Delay):
        return [(i, i, node.scale[i] if isinstance(node, nir.Scale) else 1.0) for i in np.ndindex(*shape)]
    if isinstance(node, nir.Flatten):
        return [(np.unravel_index(k, shape), (k,), 1.0) for k in range(int(np.prod(shape)))]
    found = []
    strides, dilations = node.steps
    area = int(np.prod(node.kernel)) if isinstance(node, nir.AvgPool2d) else 1
    for o in np.ndindex(*out):
        for k in itertools.product(*map(range, node.kernel)):
            rows = zip(o[1:], strides, k, dilations, node.padding, strict=True)
            place = tuple(int(y * s + q * d - p) for y, s, q, d, p in rows)
            if any(not 0 <= q < n for q, n in zip(place, shape[1:], strict=True)):
                continue
            if isinstance(node, nir.SumPool2d):
                found.append(((o[0], *place), o, 1.0 / area))
                continue
            each_out, each_in = node.weight.shape[0] // node.groups, node.weight.shape[1]
            for c in range(each_in):
                channel = o[0] // each_out * each_in + c
                found.append(((channel, *place), o, node.weight[(o[0], c, *k)]))
    return found


WIRES = nir.Linear | nir.Conv | nir.Scale | nir.Delay | nir.Flatten | nir.SumPool2d


class Enumerator:
    """Every value and every event by hand, in plain Python."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.table = {
            name: synapses(node, *graph.shapes[name]) for name, node in graph.nodes.items() if isinstance(node, WIRES)
        }

    def run(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        g, length = self.graph, len(inputs)
        went = {name: np.zeros((length, *shape)) for name, (_, shape) in g.shapes.items()}
        came = {name: np.zeros((length, *shape)) for name, (shape, _) in g.shapes.items()}
        state = {name: [np.zeros(shape), np.zeros(shape)] for name, (shape, _) in g.shapes.items()}
        for t in range(length):
            for name in g.order:
                for source in g.before[name]:
                    late = (source, name) in g.recurrent
                    if t >= late:
                        came[name][t] += went[source][t - late]
                if name == g.input:
                    came[name][t] = inputs[t]
                went[name][t] = self.node(name, came[name], state[name], t)
        self.came = came
        return went

    def node(self, name: str, came: np.ndarray, state: list, t: int) -> np.ndarray:
        node, x = self.graph.nodes[name], came[t]
        if isinstance(node, nir.Delay):
            steps = np.round(node.delay / DT).astype(int)
            out = np.zeros(x.shape)
            for i in np.ndindex(*x.shape):
                out[i] = came[(t - steps[i], *i)] if t >= steps[i] else 0.0
            return out
        if isinstance(node, WIRES):
            out = np.zeros(self.graph.shapes[name][1])
            for i, j, w in self.table[name]:
                out[j] += w * x[i]
            if "bias" in node.arrays():
                out += node.bias.reshape(-1, *(1,) * (out.ndim - 1))
            return out
        if isinstance(node, nir.Input | nir.Output):
            return x
        if isinstance(node, nir.Threshold):
            return (x > node.threshold) * 1.0
        if isinstance(node, nir.CubaLI):
            state[1] += DT / node.tau_syn * (node.w_in * x - state[1])
            x = state[1]
        if isinstance(node, nir.I | nir.IF):
            v = state[0] + DT * node.r * x
        else:
            v = state[0] + DT / (node.tau_mem if isinstance(node, nir.CubaLI) else node.tau) * (
                node.v_leak - state[0] + node.r * x
            )
        if isinstance(node, nir.I | nir.LI | nir.CubaLI) and not hasattr(node, "v_threshold"):
            state[0] = v
            return v
        fired = v > node.v_threshold
        state[0] = np.where(fired, node.v_reset, v)
        return fired * 1.0

    def walk(self, name: str, i: tuple, dense: set[str], tally: dict[str, int]) -> int:
        """Synapses that an event out of a node passes; ``tally`` is told which products."""
        passed = 0
        for target in self.graph.after[name]:
            node = self.graph.nodes[target]
            if target == "reset" or isinstance(node, nir.Output):
                continue
            if not isinstance(node, WIRES):
                passed += 1
                continue
            meets = [(j, w) for source, j, w in self.table[target] if source == i and w != 0]
            tally[target] += len(meets) if not isinstance(node, nir.Flatten | nir.Delay) else 0
            if isinstance(node, nir.Linear | nir.Conv):
                passed += len(meets) if target not in dense else 0
            else:
                passed += sum(self.walk(target, tuple(j), dense, tally) for j, _ in meets)
        return passed


CASES = [(picture, seed) for seed in range(16)] + [(recurrent, seed) for seed in range(12)]


@pytest.mark.parametrize(("build", "seed"), CASES)
@pytest.mark.parametrize("signal", ["binary", "graded"])
def test_counts_equal_the_enumerator(build, seed, signal):
    graph, rng = build(seed), np.random.default_rng(seed + 100)
    shape = graph.shapes["input" if build is picture else "in"][0]
    x = (rng.random((6, *shape)) < 0.6) * 1.0
    if signal == "graded":
        x *= rng.choice([-1, 1, 2, 3], x.shape)
    hand = Enumerator(graph)
    went = hand.run(x)
    load = count(graph, x, input_signal=signal)
    spiking = [n for n, node in graph.nodes.items() if isinstance(node, nir.IF | nir.LIF | nir.CubaLIF | nir.Threshold)]
    assert sum(went[n].sum() for n in spiking) > 0
    for name, values in run(graph, x).items():
        np.testing.assert_allclose(values, went[name], atol=1e-9)

    # Products that see the Input's values, or a potential, are dense; the rest sees spikes.
    first = {n for n in graph.after[graph.input] if n in hand.table} if signal == "graded" else set()
    if signal == "graded" and build is picture:
        first = {"0_conv2d", "0_conv1d"} & set(graph.nodes)
    tally = dict.fromkeys(graph.nodes, 0)
    sources = [*spiking, *([graph.input] if signal == "binary" else [])]
    expected = {
        n: sum(hand.walk(n, tuple(map(int, at[1:])), first, tally) for at in np.argwhere(went[n])) for n in sources
    }
    populations = {p.name: p for p in load.populations}
    assert {n: populations[n].synaptic_ops for n in sources} == expected
    assert {n: populations[n].spikes for n in sources} == {n: int(went[n].sum()) for n in sources}
    for n in spiking:
        assert populations[n].updates == 6 * went[n][0].size
    rows = {row.name: row for row in load.operations}
    for n, table in hand.table.items():
        if n == "reset" or isinstance(graph.nodes[n], nir.Flatten | nir.Delay):
            continue
        assert rows[n].count == 6 * len(table)
        if n in first:
            met = sum(int((hand.came[n][(slice(None), *i)] != 0).sum()) for i, _, w in table if w != 0)
            assert (rows[n].signal, rows[n].effective) == ("graded", met)
        else:
            assert (rows[n].signal, rows[n].effective) == ("binary", tally[n])


def test_a_published_dense_count():
    """NeuroBench's keyword network, 20-256-256-256-35 over 200 steps: 29,030,400 (github.com/NeuroBench/neurobench)."""
    nodes: list[nir.Node] = []
    for inputs, outputs in itertools.pairwise((20, 256, 256, 256, 35)):
        nodes += [nir.Affine(np.ones((outputs, inputs)), np.zeros(outputs)), nir.IF(*[np.ones(outputs)] * 3)]
    load = count(nir.sequence((20,), nodes, DT), np.zeros((200, 20)), input_signal="binary")
    assert sum(row.count for row in load.operations if row.kind == "mac") == 29_030_400
    assert sum(row.effective for row in load.operations if row.kind == "mac") == 0
    assert sum(p.updates for p in load.populations) == 200 * (3 * 256 + 35)

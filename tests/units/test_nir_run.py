"""NIR graphs run by their equations, and what cannot be run or counted says why."""

from __future__ import annotations

import numpy as np
import pytest

from neuro import nir_graph as nir
from neuro.errors import UsageError
from neuro.nir_graph import Graph
from neuro.workload import from_json
from sims.nir import count, run

DT = 1e-3


def alone(node: nir.Node, x, dt: float | None = DT) -> np.ndarray:
    """[T] of a graph of one neuron."""
    return run(nir.sequence((1,), [node], dt), np.array(x, float).reshape(-1, 1))["output"][:, 0]


def c(*values: float) -> list[np.ndarray]:
    return [np.array([value]) for value in values]


def test_membranes_by_hand():
    assert alone(nir.LI(*c(4e-3, 2, 0.4)), [1, 0]).tolist() == [0.6, 0.75 * 0.6 + 0.1]
    assert alone(nir.I(*c(500)), [1, 0, 2]).tolist() == [0.5, 0.5, 1.5]
    # The membrane sees the current of the same step.
    assert alone(nir.CubaLI(*c(2e-3, 4e-3, 2, 0, 3)), [1, 0]).tolist() == [0.75, 0.75 * 0.75 + 0.5 * 0.75]
    assert alone(nir.Delay(*c(2e-3)), [1, 2, 3, 4]).tolist() == [0, 0, 1, 2]
    assert alone(nir.Delay(*c(0)), [1, 2]).tolist() == [1, 2]


def test_spikes_by_hand():
    assert alone(nir.Threshold(*c(1)), [0.5, 1, 1.5]).tolist() == [0, 0, 1]  # above, not at
    assert alone(nir.IF(*c(1000, 1, 0.25)), [1, 0.5, 0.75, 0.25]).tolist() == [0, 1, 0, 1]
    # Reset to 0.25 after the spike: 1.0 is at the threshold, 1.25 above it.
    assert alone(nir.LIF(*c(2e-3, 2, 0.5, 1, -1)), [1, 0, 2]).tolist() == [1, 0, 1]


def test_a_recurrent_edge_is_a_step_late():
    nodes = {
        "in": nir.Input((1,)),
        "n": nir.IF(*c(1000, 0.5, 0)),
        "w": nir.Affine(np.ones((1, 1)), np.ones(1)),
        "out": nir.Output((1,)),
    }
    graph = Graph(nodes, (("in", "n"), ("n", "w"), ("w", "n"), ("n", "out")), {"dt": DT})
    assert graph.recurrent == {("w", "n")}
    assert run(graph, np.array([[0.0], [0.0], [0.0]]))["n"].ravel().tolist() == [
        0,
        1,
        1,
    ]  # its bias comes from step 2 on
    assert run(graph, np.array([[1.0], [-2.0], [0.0]]))["n"].ravel().tolist() == [1, 0, 1]


def test_the_step_of_the_graph_is_used_and_can_be_replaced():
    graph = nir.sequence((1,), [nir.I(*c(500))], DT)
    assert run(graph, np.ones((1, 1)))["output"][0] == 0.5
    assert run(graph, np.ones((1, 1)), dt=2e-3)["output"][0] == 1.0


BIG = nir.sequence((2,), [nir.LI(*[np.full(2, 1e-3)] * 3)], DT)


@pytest.mark.parametrize(
    ("graph", "inputs", "dt", "text"),
    [
        (
            nir.sequence((2,), []),
            np.ones((3, 2)),
            None,
            "NIR graph: got no time step, expected one: it is not stored with this graph.\nGive dt in seconds.",
        ),
        (BIG, np.ones((3, 2)), 0.0, "NIR graph dt: got 0.0, expected more than 0.\nGive the step in seconds."),
        (
            Graph(BIG.nodes, BIG.edges, {"dt": "soon"}),
            np.ones((3, 2)),
            None,
            "NIR graph dt: got 'soon', expected more than 0.\nGive the step in seconds.",
        ),
        (
            BIG,
            np.ones((3, 2)),
            2e-3,
            "NIR graph, node '0_li': got tau 0.001 s with dt 0.002, expected a step no longer than it.\n"
            "Euler's rule would overshoot: take a smaller dt.",
        ),
        (
            BIG,
            np.ones((3, 1, 2)),
            None,
            "NIR graph: got inputs float64 [3, 1, 2], expected numbers [T, 2].\nGive time first, one sample, no batch axis.",
        ),
        (
            BIG,
            np.ones((0, 2)),
            None,
            "NIR graph: got inputs float64 [0, 2], expected numbers [T, 2].\nGive time first, one sample, no batch axis.",
        ),
        (
            BIG,
            np.full((3, 2), np.nan),
            None,
            "NIR graph: got inputs that are NaN or infinite, expected finite ones.\nCorrect them.",
        ),
        (
            nir.sequence((2,), [nir.Delay(np.array([1e-3, 1.5e-3]))]),
            np.ones((3, 2)),
            DT,
            "NIR graph, node '0_delay': got a delay of 0.0015 s at dt 0.001, expected whole steps.\n"
            "Take a dt that divides it.",
        ),
    ],
)
def test_what_cannot_be_run(graph, inputs, dt, text):
    for job in (run, lambda *args: count(*args, input_signal="dense")):
        with pytest.raises(UsageError) as error:
            job(graph, inputs, dt)
        assert str(error.value) == text


def test_what_cannot_be_counted():
    x = np.array([[1.0, 0.0], [0.0, 2.0]])
    with pytest.raises(UsageError) as error:
        count(BIG, x, input_signal="binary")
    assert str(error.value) == (
        "NIR graph: got the value 2.0 in an Input declared binary, expected 0 and 1.\n"
        'Declare input_signal="graded" or "dense".'
    )
    with pytest.raises(UsageError) as error:
        count(BIG, x, input_signal="spikes")
    assert str(error.value) == (
        "NIR graph signal: got 'spikes', expected one of binary, graded, dense.\n"
        'Say what the Input carries: "binary" for spikes.'
    )
    nodes = {"i": nir.Input((1,)), "s": nir.Scale(*c(0.5)), "d": nir.Delay(*c(DT)), "o": nir.Output((1,))}
    loop = Graph(nodes, (("i", "s"), ("s", "d"), ("d", "s"), ("d", "o")), {"dt": DT})
    with pytest.raises(UsageError) as error:
        count(loop, np.ones((2, 1)), input_signal="binary")
    assert str(error.value) == (
        "NIR graph: got a loop through 's' without a neuron or a product, expected none.\n"
        "Its spikes would come back as events for ever; put a neuron into it."
    )


def test_signals_are_declared_and_not_looked_at():
    """An Input of ones and zeros that is declared dense is multiplied; what neurons give is binary even so."""
    nodes = {
        "i": nir.Input((2,)),
        "w": nir.Affine(np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 3.0]]), np.zeros(3)),
        "held": nir.LI(*[np.full(3, 2e-3)] * 2, np.zeros(3)),
        "u": nir.Linear(np.ones((2, 3))),
        "n": nir.IF(np.full(2, 1000.0), np.full(2, 1e-6), np.zeros(2)),
        "v": nir.Linear(np.array([[1.0, 2.0], [0.0, 1.0]])),
        "both": nir.Linear(np.ones((1, 2))),
        "o": nir.Output((2,)),
        "p": nir.Output((1,)),
    }
    edges = [("i", "w"), ("w", "held"), ("held", "u"), ("u", "n"), ("n", "v"), ("v", "o"), ("n", "both"), ("i", "both")]
    graph = Graph(nodes, (*edges, ("both", "p")), {"dt": DT})
    x = np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    load = count(graph, x, input_signal="dense", model="hand")
    rows = {(row.name, row.kind): (row.signal, row.count, row.effective) for row in load.operations}
    spikes = run(graph, x)["n"]
    assert spikes.tolist() == [[1, 1]] * 3
    assert rows == {
        ("w", "mac"): ("dense", 18, 2 * 2 + 2),
        ("w.bias", "elementwise"): ("dense", 9, None),
        ("u", "mac"): ("dense", 18, 2 * (2 + 2 + 3)),  # the third potential stays 0 until the last step
        ("v", "mac"): ("binary", 12, 3 * (1 + 2)),
        ("both", "mac"): ("dense", 6, 3 * 2),  # spikes and values added up: no longer spikes
    }
    held, n = load.populations
    assert (held.name, held.spikes, held.updates, held.fan_in, held.input_signal) == ("held", 0, 9, 2, "dense")
    assert (n.synaptic_ops, n.fan_out, n.fan_in, n.input_signal) == (9, 2, 3, "dense")
    assert (load.model, load.unit, load.layers, load.parameters) == ("hand", "sample", 4, 6 + 3 + 6 + 4 + 2)
    assert load.phases[0].name == "inference" and load.phases[0].calls == 3 and load.tokens == 1
    bytes_ = {(t.name, t.store): (t.read_bytes, t.written_bytes) for t in load.traffic}
    assert bytes_["w", "weights"] == (3 * 9 * 8, 0) and bytes_["held", "state"] == (3 * 12, 3 * 12)
    assert from_json(load.to_json()) == load


def test_a_binary_input_is_a_population_without_updates():
    graph = nir.sequence((3,), [nir.Linear(np.array([[1.0, 0, 0], [1, 1, 0]])), nir.IF(*[np.ones(2)] * 3)], DT)
    x = np.array([[1, 1, 1], [1, 0, 0]], bool)
    entry, _ = count(graph, x, input_signal="binary").populations
    assert (entry.name, entry.neurons, entry.spikes, entry.synaptic_ops, entry.updates) == ("input", 3, 4, 2 * 2 + 1, 0)
    assert (entry.fan_out, entry.fan_in) == (2, 0)


def test_nested_graphs_are_regions_and_widths_are_the_files():
    ones = np.ones(2, np.float32)
    nodes = {
        "i": nir.Input((2,)),
        "eye.w": nir.Linear(np.ones((2, 2), np.float32)),
        "eye.n": nir.CubaLIF(*[ones] * 7),
        "eye.late": nir.Delay(np.array([0, 2e-3], np.float32)),
        "o": nir.Output((2,)),
    }
    names = list(nodes)
    graph = Graph(nodes, tuple(zip(names, names[1:], strict=False)), {"dt": DT})  # noqa: RUF007
    load = count(graph, np.ones((4, 2)), input_signal="binary")
    assert {p.name: p.region for p in load.populations} == {"i": "network", "eye.n": "eye"}
    bytes_ = {t.name: (t.region, t.store, t.read_bytes) for t in load.traffic}
    assert bytes_ == {
        "eye.w": ("eye", "weights", 4 * 16),
        "eye.n": ("eye", "state", 4 * 2 * 2 * 4),
        "eye.late": ("eye", "state", 4 * 4),
    }

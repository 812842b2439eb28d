"""What one sample through a NIR graph costs, counted from a run of it: exact integers as a `Workload` of unit "sample".

Spiking nodes are populations with their synaptic operations; so is a binary Input (without updates), and so are integrators
(which never spike), since a chip updates them too. Products are also listed as multiply-accumulates on the signal that enters
them: behind spikes "binary", with the accumulations left as ``effective``, spikes under way in a delay at the end included.
Wiring is listed as arithmetic: a Scale elementwise, a pool as accumulations (an AvgPool2d with one elementwise division per
output), a bias as an elementwise addition.

Weights are read once a step, in the width the graph stores them in; state is read and written once a step, in 4 bytes a
number. Resets by subtraction are of the neurons: neither synapses nor arithmetic nor weights.
"""

from __future__ import annotations

import time

import numpy as np

from neuro import nir_graph as nir
from neuro.errors import UsageError
from neuro.nir_graph import PRODUCTS, Graph, delay_steps, step_of
from neuro.workload import Operation, Phase, Population, Traffic, Workload
from sims.nir.fan import Fan
from sims.nir.simulate import steps

CHIP_WEIGHT_BITS = 8
FLOAT_BYTES = 4
_STATES = {nir.I: 1, nir.IF: 1, nir.LI: 1, nir.LIF: 1, nir.CubaLI: 2, nir.CubaLIF: 2}
_KINDS: dict[type[nir.Node], str] = dict.fromkeys(PRODUCTS, "mac") | {
    nir.Scale: "elementwise",
    nir.SumPool2d: "accumulate",
    nir.AvgPool2d: "accumulate",
}


def count(
    graph: Graph,
    inputs: np.ndarray,
    dt: float | None = None,
    *,
    input_signal: str,
    weight_bits: int = CHIP_WEIGHT_BITS,
    model: str = "NIR graph",
) -> Workload:
    """Run a graph on one sample and count.

    Args:
        graph: the network.
        inputs: [T, *shape of the Input].
        dt: the step in seconds; by default the one stored with the graph.
        input_signal: what the Input carries: "binary" (spikes, 0 or 1), "graded" or "dense". It is never guessed from values.
        weight_bits: of a synapse on a chip.
        model: a name for the report.

    Raises:
        UsageError: an Input declared binary that holds other values, an unknown signal, or as `sims.nir.simulate.steps`.
    """
    fan, dt = Fan(graph, input_signal), step_of(graph, dt)
    given = np.asarray(inputs)
    if input_signal == "binary" and not ((given == 0) | (given == 1)).all():
        other = given[(given != 0) & (given != 1)].ravel()[0]
        raise UsageError(
            f"NIR graph: got the value {other} in an Input declared binary, expected 0 and 1.",
            'Declare input_signal="graded" or "dense".',
        )
    sent = {name: np.zeros(graph.shapes[name][1], np.int64) for name in fan.sources}
    # Values other than 0 that entered what multiplies them; behind spikes they follow from the spikes.
    multiplied = [n for n, node in graph.nodes.items() if type(node) in _KINDS and fan.coming[n] != "binary"]
    full = {name: np.zeros(graph.shapes[name][0], np.int64) for name in multiplied}
    began, length = time.perf_counter(), 0
    for now in steps(graph, given, dt):
        length += 1
        for name, entered in full.items():
            entered += now[name][0] != 0
        for name, fired in sent.items():
            fired += now[name][1] != 0
    seconds = time.perf_counter() - began
    phase = Phase(
        "inference",
        tokens=1,
        calls=length,
        seconds=seconds,
        populations=tuple(_populations(fan, sent, length, weight_bits)),
        operations=tuple(_operations(fan, sent, full, length)),
        traffic=tuple(_traffic(fan, dt, length)),
        passes=length,
    )
    return Workload(
        model=model,
        parameters=sum(_weights(node)[0] for name, node in graph.nodes.items() if name not in fan.resets),
        layers=sum(type(node) in PRODUCTS for node in graph.nodes.values()),
        spans=0,
        hardware="simulated",
        backend="numpy",
        phases=(phase,),
        unit="sample",
    )


def region(name: str) -> str:
    """The nested graph a node came from, else "network"."""
    return name.partition(".")[0] if "." in name else "network"


def _populations(fan: Fan, sent: dict[str, np.ndarray], length: int, weight_bits: int) -> list[Population]:
    rows = [(fan.graph.input, "", 0)] if fan.signal == "binary" else []
    rows += [(row.name, row.membrane, length) for row in fan.emitters]
    found = []
    for name, membrane, times in rows:
        nothing = np.zeros(fan.graph.shapes[name][1], np.int64)
        out, spikes = fan.fan_out.get(name, nothing), sent.get(name, nothing)
        found.append(
            Population(
                name=name,
                region=region(name),
                neurons=nothing.size,
                fan_out=int(out.max(initial=0)),
                fan_in=int(fan.fan_in[membrane].max(initial=0)) if membrane else 0,
                input_signal=fan.driven_by(membrane) if membrane else fan.signal,
                weight_bits=weight_bits,
                spikes=int(spikes.sum()),
                synaptic_ops=int((spikes * out).sum()),
                updates=nothing.size * times,
                products=int(out.sum()),
            )
        )
    return found


def _operations(fan: Fan, sent: dict[str, np.ndarray], full: dict[str, np.ndarray], length: int) -> list[Operation]:
    events = fan.arriving(sent)
    rows = []
    for name in fan.graph.order:
        node, where = fan.graph.nodes[name], region(name)
        if type(node) not in _KINDS or name in fan.resets:
            continue
        signal, size = fan.coming[name], int(np.prod(fan.graph.shapes[name][1]))
        entered = events[name] if signal == "binary" else full[name]
        every, left = int(fan.meets(name, every=True).sum()), int((entered * fan.meets(name)).sum())
        rows.append(Operation(where, name, _KINDS[type(node)], signal, every * length, left))
        if "bias" in node.arrays():
            rows.append(Operation(where, f"{name}.bias", "elementwise", "dense", size * length))
        if type(node) is nir.AvgPool2d:
            rows.append(Operation(where, f"{name}.mean", "elementwise", signal, size * length))
    return rows


def _traffic(fan: Fan, dt: float, length: int) -> list[Traffic]:
    rows = []
    for name, node in fan.graph.nodes.items():
        if name in fan.resets:
            continue
        _, width = _weights(node)
        if width:
            rows.append(Traffic(region(name), name, "weights", width * length, 0))
        numbers = _STATES.get(type(node), 0) * int(np.prod(fan.graph.shapes[name][0]))
        if isinstance(node, nir.Delay):
            numbers = int((delay_steps(name, node, dt) > 0).sum())
        if numbers:
            size = numbers * FLOAT_BYTES * length
            rows.append(Traffic(region(name), name, "state", size, size))
    return rows


def _weights(node: nir.Node) -> tuple[int, int]:
    """(how many, their bytes) of weights, biases and scales."""
    found = [value for key, value in node.arrays().items() if key in ("weight", "bias", "scale")]
    return sum(value.size for value in found), sum(value.nbytes for value in found)

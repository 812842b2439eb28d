"""A NIR graph as a Brian2 network: neurons by forward Euler, weights as synapses, one slot of the schedule a node.

Every node is a NeuronGroup in a slot of its own, in the order of the graph; there it clears its input, takes what its edges
bring, updates, fires and resets. So a spike passes through a whole graph within its step, and along a recurrent edge, whose
target comes before its source, a step later. An edge is a Synapses with the weights of the node it leads into (a convolution
or pool is unrolled): spikes travel as Brian2's events, potentials and sums once a step. A CubaLIF is two groups, for its
membrane takes the current of the same step. differs: Brian2's own schedule has all groups in one slot, by which every
layer would add a step.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from neuro import nir_graph as nir
from neuro.errors import UsageError
from neuro.extras import require
from neuro.nir_graph import Graph, delay_steps, euler_rate, step_of
from sims.nir.simulate import checked
from sims.nir.windows import convolve, pool

Array = np.ndarray
_MEMBRANES = {nir.I: "r * x / second", nir.IF: "r * x / second"}
_LEAKY = "(v_leak - v + r * x) / (tau * second)"


class NirNetwork(NamedTuple):
    """What `build` makes: ``network`` is Brian2's, ``monitors`` hold what each node gave, by name."""

    network: Any
    monitors: dict[str, Any]


def run(graph: Graph, inputs: Array, dt: float | None = None) -> dict[str, Array]:
    """What every node gave, [T, *shape], as `sims.nir.run` says it.

    Args:
        graph: the network.
        inputs: [T, *shape of the Input].
        dt: the step in seconds; by default the one stored with the graph.

    Raises:
        MissingError: brian2 is not installed.
        UsageError: as `sims.nir.run`, or a Delay of what is no spike.
    """
    brian2 = require("brian2", "sims")
    dt = step_of(graph, dt)
    made = build(graph, inputs, dt)
    made.network.run(len(inputs) * dt * brian2.second)
    found = {}
    for name, monitor in made.monitors.items():
        values = np.asarray(monitor.y).T
        found[name] = values.reshape(len(inputs), *graph.shapes[name][1])
    return found


def build(graph: Graph, inputs: Array, dt: float | None = None) -> NirNetwork:
    """The network, ready to run for as many steps as there are inputs; arguments and errors as `run`."""
    brian2 = require("brian2", "sims")
    brian2.prefs.codegen.target = "numpy"
    return _Builder(brian2, graph, checked(graph, inputs), step_of(graph, dt)).network()


class _Builder:
    def __init__(self, brian2: ModuleType, graph: Graph, inputs: Array, dt: float) -> None:
        self.brian2: Any = brian2
        self.graph, self.dt, self.clock = graph, dt, self.brian2.Clock(dt * brian2.second)
        self.parts: list[Any] = []
        self.doors: dict[str, Any] = {}  # what takes the input of each node
        self.exits: dict[str, Any] = {}  # and what holds y
        self.slots: list[str] = []
        self.inputs = inputs

    def network(self) -> NirNetwork:
        for place, name in enumerate(self.graph.order):
            self._slots(place)
            self._node(place, name)
        for number, (source, target) in enumerate(self.graph.edges):
            self._edge(number, source, target)
        monitors = {}
        for name, group in self.exits.items():
            monitors[name] = self.brian2.StateMonitor(group, "y", record=True, when="end", clock=self.clock)
        network = self.brian2.Network(*self.parts, *monitors.values())
        network.schedule = ["start", *self.slots, "end"]
        return NirNetwork(network, monitors)

    def _slots(self, place: int) -> None:
        self.slots += [f"n{place}_{what}" for what in ("clear", "in", "update", "thresholds", "resets", "out")]

    def _node(self, place: int, name: str) -> None:
        node: Any = self.graph.nodes[name]
        if isinstance(node, nir.Input):
            rows = self.inputs.reshape(len(self.inputs), -1).astype(np.float64)
            given = self.brian2.TimedArray(rows, dt=self.clock.dt)
            group = self._group(place, rows.shape[1], "y : 1", {"given": given})
            group.run_regularly("y = given(t, i)", clock=self.clock, when=f"n{place}_update")
        elif type(node) in (*nir.SPIKING, *nir.INTEGRATORS):
            self._neurons(place, name, node)
            return
        else:
            size = int(np.prod(self.graph.shapes[name][1]))
            group = self._group(place, size, "y : 1\nbias : 1")
            if "bias" in node.arrays():
                each = size // len(node.bias)
                group.bias = np.repeat(node.bias.astype(np.float64), each)
            group.run_regularly("y = bias", clock=self.clock, when=f"n{place}_clear")
        self.doors[name] = self.exits[name] = group

    def _neurons(self, place: int, name: str, node: Any) -> None:
        size, constant = int(np.prod(self.graph.shapes[name][0])), _flat(node)
        for key in constant:
            if key.startswith("tau"):
                euler_rate(name, node, key, self.dt)  # refuses a step that is too long
        cuba, fires = isinstance(node, nir.CubaLI), type(node) in nir.SPIKING
        if cuba:  # the synapse: tau di/dt = -i + w_in x
            synapse = self._group(place, size, "dv/dt = (r * x - v) / (tau * second) : 1\nx : 1\nr : 1\ntau : 1")
            synapse.tau, synapse.r = constant.pop("tau_syn"), constant.pop("w_in")
            constant["tau"] = constant.pop("tau_mem")
            synapse.run_regularly("x = 0", clock=self.clock, when=f"n{place}_clear")
            synapse.state_updater.when = f"n{place}_in"
            synapse.state_updater.order = 1
        if isinstance(node, nir.Threshold):
            constant["v_threshold"] = constant.pop("threshold")
            equations = "v = x : 1"
        else:
            equations = f"dv/dt = {_MEMBRANES.get(type(node), _LEAKY)} : 1"
        lines = [equations, "x : 1", "y : 1", *(f"{key} : 1" for key in constant)]
        rule = ("v > v_threshold", "v = v_reset" if "v_reset" in constant else "") if fires else (None, None)
        group = self._group(place, size, "\n".join(lines), {}, *rule)
        for key, value in constant.items():
            setattr(group, key, value)
        if cuba:
            hand_on = self._synapses(synapse, group, np.eye(size), f"c{place}")
            hand_on.run_regularly("x_post += w * v_pre", clock=self.clock, when=f"n{place}_in", order=2)
        group.run_regularly("x = 0", clock=self.clock, when=f"n{place}_clear")
        group.run_regularly("y = 0" if fires else "y = v", clock=self.clock, when=f"n{place}_out")
        if fires:  # y is 1 where the group fired in this step
            told = self._synapses(group, group, np.eye(size), f"s{place}", "y_post += w")
            told.pre.when, told.pre.order = f"n{place}_out", 1
        self.doors[name], self.exits[name] = synapse if cuba else group, group

    def _group(
        self, place: int, size: int, equations: str, namespace: Any = None, fires: Any = None, reset: Any = None
    ) -> Any:
        rule = {"threshold": fires, "reset": reset, "namespace": namespace or {}}
        group = self.brian2.NeuronGroup(size, equations, method="euler", clock=self.clock, **rule)
        if group.state_updater is not None:
            group.state_updater.when = f"n{place}_update"
        for part in group.thresholder.values():
            part.when = f"n{place}_thresholds"
        for part in group.resetter.values():
            part.when = f"n{place}_resets"
        self.parts.append(group)
        return group

    def _edge(self, number: int, source: str, target: str) -> None:
        """Into the slot of the target, of what the source gave last."""
        node, place = self.graph.nodes[target], self.graph.order.index(target)
        variable = "x" if type(node) in (*nir.SPIKING, *nir.INTEGRATORS) else "y"
        matrix, pre, post = self._matrix(target), self.exits[source], self.doors[target]
        spikes, late = type(self.graph.nodes[source]) in nir.SPIKING, None
        if isinstance(node, nir.Delay):  # spikes wait in Brian2's queue of events, potentials would not
            if not spikes:
                raise UsageError(
                    f"Brian2 network: got a Delay '{target}' of '{source}', which gives no spikes, expected neurons.",
                    "Run the graph with sims.nir.run, or put the Delay behind the neurons.",
                )
            late = delay_steps(target, node, self.dt).ravel() * self.clock.dt
        made = self._synapses(pre, post, matrix, f"e{number}", f"{variable}_post += w" if spikes else None, late)
        if spikes:
            made.pre.when = f"n{place}_in"
        else:
            made.run_regularly(f"{variable}_post += w * y_pre", clock=self.clock, when=f"n{place}_in")

    def _synapses(
        self, pre: Any, post: Any, matrix: Array, name: str, on_pre: str | None = None, delay: Any = None
    ) -> Any:
        """``matrix`` [post, pre]; weights of 0 are no synapses."""
        made = self.brian2.Synapses(pre, post, "w : 1", on_pre=on_pre, clock=self.clock, name=f"nir_{name}*")
        targets, sources = np.nonzero(matrix)
        if not len(targets):
            targets, sources = np.zeros(1, int), np.zeros(1, int)  # Brian2 runs no Synapses without one
        made.connect(i=sources, j=targets)
        made.w = matrix[targets, sources]
        if delay is not None:
            made.pre.delay = delay[sources]
        self.parts.append(made)
        return made

    def _matrix(self, name: str) -> Array:
        """[out, in] of what a node makes of its input, the bias left out."""
        node, (shape, _) = self.graph.nodes[name], self.graph.shapes[name]
        size = int(np.prod(shape))
        match node:
            case nir.Linear():
                return node.weight.astype(np.float64)
            case nir.Scale():
                return np.diag(node.scale.astype(np.float64).ravel())
            case nir.Conv():
                weight = node.weight.astype(np.float64)
                rows = [convolve(one.reshape(shape), weight, node).ravel() for one in np.eye(size)]
            case nir.SumPool2d():
                area = node.kernel[0] * node.kernel[1] if isinstance(node, nir.AvgPool2d) else 1
                rows = [pool(one.reshape(shape), node).ravel() / area for one in np.eye(size)]
            case _:
                return np.eye(size)
        return np.stack(rows, 1)


def _flat(node: Any) -> dict[str, Array]:
    return {key: value.astype(np.float64).ravel() for key, value in node.arrays().items()}

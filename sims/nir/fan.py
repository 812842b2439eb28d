"""Who reaches whom in a NIR graph, counted: fan-out and fan-in of every neuron, and the signal on every edge.

Flatten, Scale, Delay and pools are wiring: a spike passes through them as events, one for every window it lies in, and a
constant factor on the way belongs to the synapse behind it. So what a product sees after pooled spikes is still binary.
Signals are declared at the Input and follow from the kinds of nodes; no value is looked at. Resets by subtraction
(`neuro.nir_graph.emitters`) are no synapses.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property

import numpy as np

from neuro import nir_graph as nir
from neuro.errors import UsageError
from neuro.nir_graph import PRODUCTS, SPIKING, WIRING, Graph
from sims.nir.simulate import SIGNALS
from sims.nir.windows import conv_fan_out, convolve, pool, spread

Maps = dict[str, np.ndarray]


class Fan:
    """The connections of a graph whose Input carries ``signal``: "binary" (spikes), "graded" or "dense".

    Attributes:
        coming: the signal into each node.
        resets: the Scales that are resets.
        fan_out: of each node that is a source of spikes (a binary Input, a spiking node), int64 of its shape: the synapses
            an event passes, those of weight 0 left out; a neuron that is reached without a product counts as one.

    Raises:
        UsageError: an unknown signal, or a loop of wiring without a neuron.
    """

    def __init__(self, graph: Graph, signal: str) -> None:
        if signal not in SIGNALS:
            raise UsageError(
                f"NIR graph signal: got '{signal}', expected one of {', '.join(SIGNALS)}.",
                'Say what the Input carries: "binary" for spikes.',
            )
        self.graph, self.signal = graph, signal
        self.emitters = nir.emitters(graph)
        self.resets = {row.reset for row in self.emitters}
        self._order = self._wired()
        self.going: dict[str, str] = {}
        self.coming: dict[str, str] = {}
        # Loops pass through a neuron or a product, whose signal does not depend on what comes in.
        kept = [name for name in graph.nodes if not self.wires(name)]
        self.going = {name: self._gives(name) for name in kept}
        for name in self._order:
            self.going[name] = self._worst(name)
        self.coming = {name: self._worst(name) for name in graph.nodes}
        self.fan_out = self._fan_out()

    @property
    def sources(self) -> list[str]:
        """Nodes whose values are spikes of their own."""
        kinds = [name for name in self.graph.order if type(self.graph.nodes[name]) in SPIKING]
        return [self.graph.input, *kinds] if self.signal == "binary" else kinds

    def before(self, name: str) -> list[str]:
        """Sources of a node that are no resets."""
        return [a for a in self.graph.before[name] if a not in self.resets]

    def after(self, name: str) -> list[str]:
        return [b for b in self.graph.after[name] if b not in self.resets]

    def meets(self, name: str, every: bool = False) -> np.ndarray:
        """int64 of a node's input shape: the weights other than 0 (``every``: all) that one value there meets."""
        node, (shape, out) = self.graph.nodes[name], self.graph.shapes[name]
        match node:
            case nir.Linear():
                return np.full(shape, out[0], np.int64) if every else (node.weight != 0).sum(0, dtype=np.int64)
            case nir.Conv():
                node = dataclasses.replace(node, weight=np.ones_like(node.weight)) if every else node
                return conv_fan_out(node, shape)
            case nir.Scale():
                return np.ones(shape, np.int64) if every else (node.scale != 0).astype(np.int64)
            case nir.SumPool2d():
                return spread(np.ones(out, np.int64), node, shape)
        raise AssertionError(f"{type(node).__name__} multiplies nothing")

    def arriving(self, sent: Maps) -> Maps:
        """Events at each node's input, of those that its sources ``sent``: wiring hands them on, everything else takes them."""
        gone = {name: sent[name] if name in sent else self._nothing(name, 1) for name in self.graph.nodes}
        for name in self._order:
            gone[name] = self._hand_on(name, self._sum(name, gone))
        return {name: self._sum(name, gone) for name in self.graph.nodes}

    @cached_property
    def fan_in(self) -> Maps:
        """int64 of each node's input shape: synapses that end there."""
        lines = self.arriving({n: np.ones(self.graph.shapes[n][1], np.int64) for n in self.graph.nodes})
        ends: Maps = {}
        for source, node in self.graph.nodes.items():
            if self.wires(source):
                continue
            if isinstance(node, nir.Linear):
                ends[source] = (node.weight != 0).astype(np.int64) @ lines[source]
            elif isinstance(node, nir.Conv):
                ends[source] = convolve(lines[source], (node.weight != 0).astype(np.int64), node)
            else:
                ends[source] = np.ones(self.graph.shapes[source][1], np.int64)
        return self.arriving(ends)

    def driven_by(self, name: str) -> str:
        """The signal that drives a neuron: what enters the products before it, or what reaches it without one."""
        found = []
        waiting = self.before(name)
        for source in waiting:
            if self.wires(source):
                waiting += [a for a in self.before(source) if a not in waiting]
            else:
                product = type(self.graph.nodes[source]) in PRODUCTS
                found.append(self.coming[source] if product else self.going[source])
        return max(found, key=SIGNALS.index, default=self.signal)

    def wires(self, name: str) -> bool:
        """Whether a node only hands spikes on."""
        return type(self.graph.nodes[name]) in WIRING and name not in self.resets

    def _gives(self, name: str) -> str:
        if name == self.graph.input:
            return self.signal
        return "binary" if type(self.graph.nodes[name]) in SPIKING else "dense"

    def _worst(self, name: str) -> str:
        return max((self.going[a] for a in self.before(name)), key=SIGNALS.index, default=self.signal)

    def _wired(self) -> list[str]:
        """Wiring nodes, each after the wiring before it."""
        found: list[str] = []
        left = [name for name in self.graph.order if self.wires(name)]
        while left:
            ready = [n for n in left if all(a in found or not self.wires(a) for a in self.before(n))]
            if not ready:
                raise UsageError(
                    f"NIR graph: got a loop through '{left[0]}' without a neuron or a product, expected none.",
                    "Its spikes would come back as events for ever; put a neuron into it.",
                )
            found += ready
            left = [name for name in left if name not in ready]
        return found

    def _nothing(self, name: str, side: int) -> np.ndarray:
        return np.zeros(self.graph.shapes[name][side], np.int64)

    def _sum(self, name: str, gone: Maps) -> np.ndarray:
        return sum((gone[a] for a in self.before(name)), start=self._nothing(name, 0))

    def _hand_on(self, name: str, events: np.ndarray) -> np.ndarray:
        node = self.graph.nodes[name]
        if isinstance(node, nir.Scale):
            return np.where(node.scale != 0, events, 0)
        if isinstance(node, nir.SumPool2d):
            return pool(events, node)
        return events.reshape(self.graph.shapes[name][1])

    def _fan_out(self) -> Maps:
        cost: Maps = {}  # of an event at each node's input

        def leaving(name: str) -> np.ndarray:
            return sum((cost[b] for b in self.after(name)), start=self._nothing(name, 1))

        for name, node in self.graph.nodes.items():
            if self.wires(name):
                continue
            if type(node) in PRODUCTS:
                cost[name] = self.meets(name) if self.coming[name] == "binary" else self._nothing(name, 0)
            else:
                cost[name] = self._nothing(name, 0) + (not isinstance(node, nir.Input | nir.Output))
        for name in reversed(self._order):
            node, shape = self.graph.nodes[name], self.graph.shapes[name][0]
            if isinstance(node, nir.Scale):
                cost[name] = np.where(node.scale != 0, leaving(name), 0)
            elif isinstance(node, nir.SumPool2d):
                cost[name] = spread(leaving(name), node, shape)
            else:
                cost[name] = leaving(name).reshape(shape)
        return {name: leaving(name) for name in self.sources}
